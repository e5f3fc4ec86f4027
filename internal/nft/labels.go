//go:build linux

package nft

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The conntrack labels by which the wall recognizes connections. Administrators use
// labels, too, and name them in connlabel.conf, usually from the first of the 128 on. So
// these are the last ones.
const (
	// EndedLabel marks connections that were ended: the wall lets none of their packets
	// pass.
	EndedLabel = 126
	// JudgedLabel marks connections whose first packet the wall has passed on, to a queue
	// or beyond it. If conntrack keeps such a connection, it was admitted.
	JudgedLabel = 127
)

// LabelBits returns labels in the layout of struct nf_conn_labels
// (include/net/netfilter/nf_conntrack_labels.h), an array of longs. Labels are from 0 to
// 127.
func LabelBits(labels ...int) [16]byte { return placeLabels(kernelLong(), labels) }

// placeLabels places labels in longs of so many bytes. On a little-endian machine label 0
// is in the first byte, however long they are.
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

// kernelLong returns the size of the kernel's long in bytes. A 64-bit kernel runs 32-bit
// programs, too.
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
