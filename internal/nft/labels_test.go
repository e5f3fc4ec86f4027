//go:build linux

package nft

import (
	"encoding/binary"
	"testing"
)

// The kernel takes a label for the bit of that number of an array of longs.
func TestLabelBits(t *testing.T) {
	for n := range 128 {
		bits := LabelBits(n)
		for i := range 2 {
			want := uint64(0)
			if n/64 == i {
				want = 1 << (n % 64)
			}
			if got := binary.NativeEndian.Uint64(bits[8*i:]); got != want {
				t.Errorf("label %d: word %d is %#x, want %#x", n, i, got, want)
			}
		}
	}
	both := LabelBits(EndedLabel, JudgedLabel, JudgedLabel)
	if got := binary.NativeEndian.Uint64(both[8:]); got != 0xc<<60 {
		t.Errorf("both labels are %#x", got)
	}
}
