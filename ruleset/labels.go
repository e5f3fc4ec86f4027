//go:build linux

package ruleset

import "encoding/binary"

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
func LabelBits(labels ...int) (bits [16]byte) {
	for _, n := range labels {
		long := bits[n/64*8:][:8]
		binary.NativeEndian.PutUint64(long, binary.NativeEndian.Uint64(long)|1<<(n%64))
	}
	return bits
}
