package host

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ParentOf returns the process that has started another, and 0 if that cannot be told.
func ParentOf(id int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return 0
	}
	// After the name, which is in brackets and may have any in it: state, parent.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}
