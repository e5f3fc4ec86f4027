package host

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ParentOf returns the parent of a process, or 0 if it cannot be read.
func ParentOf(id int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return 0
	}
	// The name is in brackets and may contain any. After it come the state and the
	// parent.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}
