//go:build linux

package nft

import (
	"encoding/binary"
	"testing"
)

// A label is the number of a bit in an array of longs.
func TestLabelBits(t *testing.T) {
	for n := range 128 {
		bits := placeLabels(8, []int{n})
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
	for n := range 128 {
		bits := placeLabels(4, []int{n})
		for i := range 4 {
			want := uint32(0)
			if n/32 == i {
				want = 1 << (n % 32)
			}
			if got := binary.NativeEndian.Uint32(bits[4*i:]); got != want {
				t.Errorf("label %d: word %d of 32 bits is %#x, want %#x", n, i, got, want)
			}
		}
	}
	both := placeLabels(8, []int{EndedLabel, JudgedLabel, JudgedLabel})
	if got := binary.NativeEndian.Uint64(both[8:]); got != 0xc<<60 {
		t.Errorf("both labels are %#x", got)
	}
}
