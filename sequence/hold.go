package sequence

import (
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// Hold is the queue of first packets from sources without a window, which wait for a
// knock that may be on its way. A knock and the SYN after it reach the daemon through two
// sockets, and the SYN is often first. As all packets wait equally long, the queue is
// first in, first out, and one verdict refuses all that are due.
type Hold struct {
	wait time.Duration
	ring []Held
	head int // the oldest
	n    int
}

// Held is a packet that waits in the kernel's NFQUEUE under an id.
type Held struct {
	ID     uint32
	Packet packet.Packet
	Since  time.Time

	released bool
}

// NewHold returns a Hold for at most size packets, each of which waits for wait.
func NewHold(wait time.Duration, size int) *Hold {
	return &Hold{wait: wait, ring: make([]Held, size)}
}

// Add makes a packet wait. It reports false if there is no room. Add the packets in the
// order of their ids, which is the order in which the kernel queued them.
func (h *Hold) Add(id uint32, p packet.Packet, now time.Time) bool {
	if h.n == len(h.ring) {
		return false
	}
	*h.at(h.n) = Held{ID: id, Packet: p, Since: now}
	h.n++
	return true
}

// Release ends the wait of all packets that match, and calls released with each of them,
// in the order in which they came.
func (h *Hold) Release(match func(packet.Packet) bool, released func(Held)) {
	for i := range h.n {
		held := h.at(i)
		if !held.released && match(held.Packet) {
			held.released = true
			released(*held)
		}
	}
}

// Due removes the packets that have waited for their time, and calls refused with those
// that were not released. It returns the id of the last one; ok is false if there was
// none. Then no verdict is needed.
func (h *Hold) Due(now time.Time, refused func(Held)) (last uint32, ok bool) {
	for h.n > 0 {
		held := h.at(0)
		if !held.released {
			if now.Sub(held.Since) < h.wait {
				break
			}
			refused(*held)
			last, ok = held.ID, true
		}
		h.head = (h.head + 1) % len(h.ring)
		h.n--
	}
	return last, ok
}

// Clear ends the wait of all packets, and returns the id of the last one; ok is false if
// none waited.
func (h *Hold) Clear() (last uint32, ok bool) {
	for i := range h.n {
		if held := h.at(i); !held.released {
			last, ok = held.ID, true
		}
	}
	h.n = 0
	return last, ok
}

// SetWait changes how long packets wait, those included that already wait.
func (h *Hold) SetWait(wait time.Duration) { h.wait = wait }

// Next returns when the oldest packet is due, and false if none waits.
func (h *Hold) Next() (time.Time, bool) {
	if h.n == 0 {
		return time.Time{}, false
	}
	return h.at(0).Since.Add(h.wait), true
}

// Len returns how many packets wait.
func (h *Hold) Len() int {
	n := 0
	for i := range h.n {
		if !h.at(i).released {
			n++
		}
	}
	return n
}

// at returns the i-th oldest packet.
func (h *Hold) at(i int) *Held { return &h.ring[(h.head+i)%len(h.ring)] }
