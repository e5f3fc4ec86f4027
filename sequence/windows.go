package sequence

import (
	"container/heap"
	"iter"
	"net/netip"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// Window is a door that stands open for one source.
type Window struct {
	Door        int
	Source      packet.Source
	Opened      time.Time
	Until       time.Time
	Connections int // admitted so far, retransmitted SYNs not counted

	max    int // connections, 0 for no limit
	recent []admitted
	next   int // where in recent the next connection goes
	index  int // in the heap

	standing bool
	repeats  int // how many packets may still be sent round again
}

// connection is enough of a connection's first packet to know it again when it
// is retransmitted.
type connection struct {
	from, to netip.Addr
	fromPort uint16
	port     packet.Port
	sequence uint32
}

func connectionOf(p packet.Packet) connection {
	return connection{p.Source, p.Destination, p.SourcePort, p.Port, p.Sequence}
}

// admitted is a connection that was let in, and what is known of its first packet.
type admitted struct {
	connection
	lost time.Time // when it was found to have been lost since; zero: it was not
}

// remembered is how many connections a window without a limit remembers, and
// maxRepeats how many packets one opening may send round again: more than wait
// in an honest client's case, and few enough that a window which the kernel
// does not know of cannot make packets go round for ever.
const (
	remembered = 8
	maxRepeats = 64
)

// soonest is after how long a SYN that was lost is sent again, at the earliest. Stacks
// wait for a second.
const soonest = 200 * time.Millisecond

// Admission says what becomes of a packet whose source the kernel found in a
// door's set.
type Admission uint8

const (
	// AdmitNew: a connection that was not seen before; it counts.
	AdmitNew Admission = iota
	// AdmitAgain: the first packet of a connection that was admitted already.
	AdmitAgain
	// Replayed: what looks like the first packet of a TCP connection that a window with
	// a limit has admitted, and that was not lost since. If that is sent again, the
	// kernel lets it pass, or drops it; this is another connection, after the end of
	// the first, that is not to be counted.
	Replayed
	// AdmitUnknown: no window is known for it here, but the kernel's word holds.
	AdmitUnknown
	// Exhausted: the window has admitted as many connections as it may.
	Exhausted
)

// Windows are all windows that are open.
type Windows struct {
	byKey map[key]*Window
	order byDeadline
}

// NewWindows returns an empty set of windows.
func NewWindows() *Windows {
	return &Windows{byKey: make(map[key]*Window)}
}

// Open opens a window, or refreshes one that is open: it ends at until then,
// and may admit maxConnections anew (0 for no limit). It reports whether there
// was one that was not spent. The window stands only once [Windows.Stands] says so.
func (w *Windows) Open(door int, source packet.Source, now, until time.Time, maxConnections int) (refreshed bool) {
	k := keyOf(door, source)
	win := w.byKey[k]
	if win == nil {
		win = &Window{Door: door, Source: source, Opened: now, Until: until}
		w.byKey[k] = win
		heap.Push(&w.order, win)
	} else {
		refreshed = !win.Spent()
		if !refreshed {
			win.Opened = now
		}
		win.Until = until
		heap.Fix(&w.order, win.index)
	}
	win.max = maxConnections
	win.Connections = 0
	win.recent = make([]admitted, 0, max(remembered, maxConnections))
	win.next = 0
	win.standing = false
	return refreshed
}

// Stands notes that the kernel has the window, too, and until when.
func (w *Windows) Stands(door int, source packet.Source, until time.Time) {
	if win := w.byKey[keyOf(door, source)]; win != nil {
		win.standing = true
		win.repeats = maxRepeats
		win.Until = until
		heap.Fix(&w.order, win.index)
	}
}

// Close forgets a window. It reports whether there was one.
func (w *Windows) Close(door int, source packet.Source) bool {
	win := w.byKey[keyOf(door, source)]
	if win != nil {
		w.forget(win)
	}
	return win != nil
}

// Expire forgets the windows that are over and hands each of them to ended.
func (w *Windows) Expire(now time.Time, ended func(*Window)) {
	for len(w.order) > 0 && !w.order[0].Until.After(now) {
		win := w.order[0]
		w.forget(win)
		ended(win)
	}
}

// Next returns when the next window is over, and false if none is open.
func (w *Windows) Next() (time.Time, bool) {
	if len(w.order) == 0 {
		return time.Time{}, false
	}
	return w.order[0].Until, true
}

// All iterates over the open windows in no particular order.
func (w *Windows) All() iter.Seq[*Window] {
	return func(yield func(*Window) bool) {
		for _, win := range w.order {
			if !yield(win) {
				return
			}
		}
	}
}

// Get returns a source's window at a door, or nil.
func (w *Windows) Get(door int, source packet.Source) *Window {
	return w.byKey[keyOf(door, source)]
}

// Spent reports whether the window has admitted as many connections as it may.
// The kernel has closed it then; what is left are these notes, by which a SYN
// that is sent again is known.
func (win *Window) Spent() bool { return win.max > 0 && win.Connections >= win.max }

// Repeat reports whether a stranger's packet is worth another round through
// the kernel's rules, because the window that would admit it has come to stand
// since the packet was queued.
func (win *Window) Repeat() bool {
	if !win.standing || win.repeats == 0 {
		return false
	}
	win.repeats--
	return true
}

// Admit takes note of a new connection's first packet.
func (win *Window) Admit(p packet.Packet, now time.Time) Admission {
	c := admitted{connection: connectionOf(p)}
	if known := win.known(p); known != nil {
		if !win.Counts(p) {
			return AdmitAgain
		}
		lost := known.lost
		known.lost = time.Time{}
		// What comes too soon after it was found lost has made it look so, by its
		// coming: conntrack forgets a connection that has ended for its successor.
		if lost.IsZero() || now.Sub(lost) < soonest {
			return Replayed
		}
		return AdmitAgain
	}
	if win.Spent() {
		return Exhausted
	}
	win.Connections++
	if len(win.recent) < cap(win.recent) {
		win.recent = append(win.recent, c)
	} else {
		win.recent[win.next] = c
		win.next = (win.next + 1) % len(win.recent)
	}
	return AdmitNew
}

// Knows reports whether the window has admitted the connection of a first packet.
func (win *Window) Knows(p packet.Packet) bool { return win.known(p) != nil }

// Lost notes that the first packet of a connection that was admitted never arrived, so
// that it may be sent again.
func (win *Window) Lost(p packet.Packet, now time.Time) {
	if known := win.known(p); known != nil {
		known.lost = now
	}
}

// Counts reports whether it matters if a packet is another connection's, or the same
// once more: it does not where there is no limit, and not for datagrams, of which those
// of a flow are all alike.
func (win *Window) Counts(p packet.Packet) bool {
	return win.max > 0 && p.Port.Protocol == packet.TCP
}

func (win *Window) known(p packet.Packet) *admitted {
	c := connectionOf(p)
	for i := range win.recent {
		if win.recent[i].connection == c {
			return &win.recent[i]
		}
	}
	return nil
}

func (w *Windows) forget(win *Window) {
	delete(w.byKey, keyOf(win.Door, win.Source))
	heap.Remove(&w.order, win.index)
}

// byDeadline is a heap of windows, the one that is over first on top.
type byDeadline []*Window

func (h byDeadline) Len() int           { return len(h) }
func (h byDeadline) Less(i, j int) bool { return h[i].Until.Before(h[j].Until) }
func (h byDeadline) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *byDeadline) Push(x any) {
	win := x.(*Window)
	win.index = len(*h)
	*h = append(*h, win)
}
func (h *byDeadline) Pop() any {
	old := *h
	win := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return win
}
