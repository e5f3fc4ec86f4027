package sequence_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

const hold = 200 * time.Millisecond

func due(h *sequence.Hold) (refused []uint32, last uint32, ok bool) {
	last, ok = h.Due(time.Now(), func(held sequence.Held) { refused = append(refused, held.ID) })
	return refused, last, ok
}

// expectDue compares what is due with the wanted ids.
func expectDue(t *testing.T, h *sequence.Hold, want ...uint32) {
	t.Helper()
	refused, last, ok := due(h)
	if diff := cmp.Diff(want, refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	var wantLast uint32
	if len(want) > 0 {
		wantLast = want[len(want)-1]
	}
	if ok != (len(want) > 0) || last != wantLast {
		t.Errorf("Due = %d, %t, want %d", last, ok, wantLast)
	}
}

func release(h *sequence.Hold, match func(packet.Packet) bool) (released []uint32) {
	h.Release(match, func(held sequence.Held) { released = append(released, held.ID) })
	return released
}

func from(n int) func(packet.Packet) bool {
	return func(p packet.Packet) bool { return p == connection(n) }
}

func anyPacket(packet.Packet) bool { return true }

func TestHoldIsFirstInFirstOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := sequence.NewHold(hold, 8)
		if _, ok := h.Next(); ok {
			t.Error("Next of nothing")
		}
		expectDue(t, h)
		start := time.Now()
		for id := range uint32(4) {
			if !h.Add(10+id, connection(int(id)), time.Now()) {
				t.Errorf("no room for %d", id)
			}
			time.Sleep(hold / 8)
		}
		if next, ok := h.Next(); !ok || next.Sub(start) != hold {
			t.Errorf("Next = %v, %t, want %v", next.Sub(start), ok, hold)
		}
		time.Sleep(hold/2 - 1)
		expectDue(t, h)
		time.Sleep(time.Nanosecond)
		expectDue(t, h, 10)
		// The packets that are due by now are refused by one verdict.
		time.Sleep(hold / 4)
		expectDue(t, h, 11, 12)
		if next, ok := h.Next(); !ok || next.Sub(start) != hold*3/8+hold || h.Len() != 1 {
			t.Errorf("Next = %v, %t, %d wait", next.Sub(start), ok, h.Len())
		}
		time.Sleep(time.Second)
		expectDue(t, h, 13)
		expectDue(t, h)
	})
}

func TestHeldPacketsThatAreReleasedAreNotRefused(t *testing.T) {
	for _, tt := range []struct {
		name     string
		released []int
		refused  []uint32
	}{
		{"first", []int{0}, []uint32{11, 12, 13}},
		{"middle", []int{1}, []uint32{10, 12, 13}},
		// The verdict on all up to 12 must not come over 13, which has its own.
		{"last", []int{3}, []uint32{10, 11, 12}},
		{"some", []int{2, 0}, []uint32{11, 13}},
		{"all", []int{0, 1, 2, 3}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := sequence.NewHold(hold, 8)
				for id := range uint32(4) {
					h.Add(10+id, connection(int(id)), time.Now())
				}
				for i, n := range tt.released {
					if diff := cmp.Diff([]uint32{10 + uint32(n)}, release(h, from(n))); diff != "" {
						t.Errorf("released (-want +got):\n%s", diff)
					}
					if got := release(h, from(n)); got != nil {
						t.Errorf("released twice: %d", got)
					}
					if want := 4 - (i + 1); h.Len() != want {
						t.Errorf("%d wait, want %d", h.Len(), want)
					}
				}
				time.Sleep(hold)
				expectDue(t, h, tt.refused...)
				if _, ok := h.Next(); ok || h.Len() != 0 {
					t.Errorf("%d still wait", h.Len())
				}
			})
		})
	}
}

func TestHoldReleasesAllThatMatchInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := sequence.NewHold(hold, 8)
		for id, n := range []int{1, 2, 1, 2, 1} {
			h.Add(uint32(id), connection(n), time.Now())
		}
		if diff := cmp.Diff([]uint32{0, 2, 4}, release(h, from(1))); diff != "" {
			t.Errorf("released (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]uint32{1, 3}, release(h, anyPacket)); diff != "" {
			t.Errorf("released (-want +got):\n%s", diff)
		}
	})
}

// Packets that were released make room before their time.
func TestReleasedPacketsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := sequence.NewHold(hold, 2)
		h.Add(1, connection(1), time.Now())
		h.Add(2, connection(2), time.Now())
		if h.Add(3, connection(3), time.Now()) {
			t.Error("there is room for more than there is room for")
		}
		release(h, anyPacket)
		expectDue(t, h)
		for id := range uint32(2) {
			if !h.Add(4+id, connection(4), time.Now()) {
				t.Errorf("no room for %d", 4+id)
			}
		}
		time.Sleep(hold)
		expectDue(t, h, 4, 5)
	})
}

func TestHoldWrapsAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 5
		h := sequence.NewHold(hold, size)
		added, refused := uint32(0), uint32(0)
		for round := range 4 * size {
			// Fill the hold. Released packets are found across the wrap.
			for h.Add(added, connection(int(added)), time.Now()) {
				added++
				time.Sleep(time.Millisecond)
			}
			if added-refused != size {
				t.Fatalf("round %d: %d wait, want %d", round, added-refused, size)
			}
			released := added - 2
			if diff := cmp.Diff([]uint32{released}, release(h, from(int(released)))); diff != "" {
				t.Fatalf("round %d: released (-want +got):\n%s", round, diff)
			}
			// All but the last are due one millisecond earlier.
			time.Sleep(hold - 2*time.Millisecond)
			var want []uint32
			for id := refused; id < released; id++ {
				want = append(want, id)
			}
			expectDue(t, h, want...)
			time.Sleep(2 * time.Millisecond)
			expectDue(t, h, added-1)
			refused = added
			h.Add(added, connection(int(added)), time.Now()) // begin the next round elsewhere
			added++
			time.Sleep(hold)
			expectDue(t, h, added-1)
			refused = added
		}
	})
}

func TestHoldWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := sequence.NewHold(hold, 0)
		if h.Add(1, connection(1), time.Now()) {
			t.Error("there is room")
		}
		expectDue(t, h)
	})
}

func TestHoldHandsBackThePacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := sequence.NewHold(hold, 2)
		h.Add(1, connection(1), time.Now())
		h.Add(2, connection(2), time.Now())
		h.Release(from(2), func(held sequence.Held) {
			if held.ID != 2 || held.Packet != connection(2) {
				t.Errorf("released: %+v", held)
			}
		})
		time.Sleep(hold)
		h.Due(time.Now(), func(held sequence.Held) {
			if held.ID != 1 || held.Packet != connection(1) {
				t.Errorf("refused: %+v", held)
			}
		})
	})
}

func TestClearedHoldIsEmptyAndNamesTheLastThatWaited(t *testing.T) {
	for _, tt := range []struct {
		name     string
		added    int
		released []int
		want     uint32
		ok       bool
	}{
		{"nothing", 0, nil, 0, false},
		{"some", 4, nil, 13, true},
		{"the last is released", 4, []int{3}, 12, true},
		{"only the first waits", 4, []int{1, 2, 3}, 10, true},
		{"all are released", 4, []int{0, 1, 2, 3}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := sequence.NewHold(hold, 5)
				// So that it wraps around.
				h.Add(1, connection(1), time.Now())
				h.Add(2, connection(2), time.Now())
				time.Sleep(hold)
				expectDue(t, h, 1, 2)
				for id := range tt.added {
					h.Add(10+uint32(id), connection(id), time.Now())
				}
				for _, n := range tt.released {
					release(h, from(n))
				}
				if last, ok := h.Clear(); last != tt.want || ok != tt.ok {
					t.Errorf("Clear = %d, %t, want %d, %t", last, ok, tt.want, tt.ok)
				}
				if _, ok := h.Next(); ok || h.Len() != 0 {
					t.Errorf("%d wait", h.Len())
				}
				if got := release(h, anyPacket); got != nil {
					t.Errorf("released: %d", got)
				}
				if last, ok := h.Clear(); ok {
					t.Errorf("Clear, once more: %d", last)
				}
				for id := range uint32(5) {
					if !h.Add(20+id, connection(5), time.Now()) {
						t.Errorf("no room for %d", id)
					}
				}
				time.Sleep(hold)
				expectDue(t, h, 20, 21, 22, 23, 24)
			})
		})
	}
}

func TestHoldMayChangeHowLongPacketsWait(t *testing.T) {
	for _, wait := range []time.Duration{hold / 2, hold * 2} {
		synctest.Test(t, func(t *testing.T) {
			h := sequence.NewHold(hold, 8)
			start := time.Now()
			h.Add(1, connection(1), time.Now())
			time.Sleep(hold / 4)
			h.Add(2, connection(2), time.Now())
			h.SetWait(wait)
			if next, ok := h.Next(); !ok || next.Sub(start) != wait {
				t.Errorf("Next = %s, %t, want %s", next.Sub(start), ok, wait)
			}
			time.Sleep(wait - hold/4 - 1)
			expectDue(t, h)
			time.Sleep(time.Nanosecond)
			expectDue(t, h, 1)
			h.Add(3, connection(3), time.Now())
			time.Sleep(hold / 4)
			expectDue(t, h, 2)
			time.Sleep(wait - hold/4 - 1)
			expectDue(t, h)
			time.Sleep(time.Nanosecond)
			expectDue(t, h, 3)
		})
	}
}
