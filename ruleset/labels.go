package ruleset

import "encoding/binary"

// Labels are bits of a connection, in conntrack, that nobody else needs to share as
// they have to with marks (struct nf_conn_labels of
// net/netfilter/nf_conntrack_labels.h; nft's "ct label", connlabel of iptables).
// The wall uses the last two of the 128.
const (
	// EndedLabel is that of connections that are to end: the wall lets nothing of
	// them pass.
	EndedLabel = 126
	// JudgedLabel is that of connections whose first packet the wall has judged.
	JudgedLabel = 127
)

// LabelBits returns the labels as the kernel has them: an array of longs, in the byte
// order of the host.
func LabelBits(labels ...int) (bits [16]byte) {
	// As words of 4 bytes they are the same on 32-bit machines and on 64-bit ones
	// that are little-endian, which are all that Linux has nftables users on.
	for _, label := range labels {
		word := bits[label/32*4:][:4]
		binary.NativeEndian.PutUint32(word, binary.NativeEndian.Uint32(word)|1<<(label%32))
	}
	return bits
}
