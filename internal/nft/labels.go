//go:build linux

package nft

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The labels, in conntrack, by which the wall knows connections again. Labels are
// the administrator's as well, who gives them names in connlabel.conf: from the
// first of the 128 on, as a rule, so that these are the last.
const (
	// EndedLabel is that of connections that were ended: the wall lets nothing of
	// them pass.
	EndedLabel = 126
	// JudgedLabel is that of connections whose first packet the wall has handed on,
	// to a queue or behind it. If conntrack keeps such a connection, it was let in.
	JudgedLabel = 127
)

// LabelBits returns labels as the kernel holds those of a connection: struct
// nf_conn_labels of net/netfilter/nf_conntrack_labels.h, an array of longs.
func LabelBits(labels ...int) [16]byte { return placeLabels(kernelLong(), labels) }

// placeLabels returns labels in longs of so many bytes. Where the lowest byte of a number
// comes first, label 0 is in the first byte, however long they are.
func placeLabels(long int, labels []int) (bits [16]byte) {
	reversed := 0
	if isBigEndian {
		reversed = long - 1
	}
	for _, n := range labels {
		bits[n/8^reversed] |= 1 << (n % 8)
	}
	return bits
}

var isBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// kernelLong returns how many bytes a long of the kernel has. A kernel of 64 bits runs
// programs of 32 bits, too.
var kernelLong = sync.OnceValue(func() int {
	if strconv.IntSize == 64 {
		return 8
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil && strings.Contains(unix.ByteSliceToString(name.Machine[:]), "64") {
		return 8
	}
	return 4
})
