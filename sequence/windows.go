package sequence

import (
	"container/heap"
	"iter"
	"net/netip"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// Window is a door that is open for one source.
type Window struct {
	Door        int // index of the door
	Source      packet.Source
	Opened      time.Time
	Granted     time.Time // when it was opened or refreshed
	Until       time.Time
	Opener      string // who has opened it, in the words of the caller
	Connections int    // admitted since the window was opened or refreshed, without retransmitted SYNs

	max    int        // limit of connections, 0 for none
	recent []admitted // nil before the first connection
	next   int        // index in recent for the next connection
	index  int        // in the heap

	among   *Windows
	counted bool // among them

	standing bool
	repeats  int // how many packets may still get the verdict "repeat"
}

// connection identifies a connection's first packet, so that a retransmission is
// recognized.
type connection struct {
	from, to netip.Addr
	fromPort uint16
	port     packet.Port
	sequence uint32
}

func connectionOf(p packet.Packet) connection {
	return connection{p.Source, p.Destination, p.SourcePort, p.Port, p.Sequence}
}

// admitted is a connection that was admitted, with what became of its first packet.
type admitted struct {
	connection
	lost  time.Time // when its first packet was found lost; zero if it was not
	came  int       // how often its first packet came
	heard time.Time // when it came last
}

// again records that the first packet came again. The network may duplicate a packet, so a
// packet that comes sooner than its sender can repeat it does not count.
func (a *admitted) again(now time.Time) {
	if now.Sub(a.heard) >= soonest {
		a.came++
	}
	a.heard = now
}

// remembered is how many connections a window without a limit remembers. maxRepeats is
// how many packets one opening may send through the rules again. It is more than the
// packets of an honest client that wait, and few enough that packets do not loop for ever
// if the kernel does not have the window.
const (
	remembered = 8
	maxRepeats = 64
)

// soonest is the shortest time after which a lost SYN is sent again. TCP stacks wait for
// a second.
const soonest = 200 * time.Millisecond

// Admission says what becomes of a packet whose source the kernel found in a door's set.
type Admission uint8

const (
	// AdmitNew: the connection was not seen before. It counts.
	AdmitNew Admission = iota
	// AdmitAgain: the packet is the first of a connection that was admitted before.
	AdmitAgain
	// Replayed: the packet looks like the first one of a TCP connection that a window
	// with a limit has admitted, and that packet was not lost. The kernel itself passes
	// or drops a retransmission. So this is another connection, after the end of the
	// first, made so as not to be counted.
	Replayed
	// AdmitUnknown: the daemon knows no window for the packet, but the kernel has one.
	AdmitUnknown
	// Exhausted: the window has admitted as many connections as it may.
	Exhausted
)

// Windows is the set of all open windows. The zero value is not usable: call
// [NewWindows].
type Windows struct {
	byKey  map[key]*Window
	order  byDeadline
	counts map[place]int // without places that have none
}

// place is a network as seen by a door.
type place struct {
	door    int
	network netip.Prefix
}

// NewWindows returns an empty set of windows.
func NewWindows() *Windows {
	return &Windows{byKey: make(map[key]*Window), counts: make(map[place]int)}
}

// Open opens a window for a source at a door, or refreshes it: it then ends at until, and
// may admit maxConnections again (0 for no limit). It reports whether there was a window
// that was not spent. The window stands only after [Windows.Stands].
func (w *Windows) Open(door int, source packet.Source, now, until time.Time, maxConnections int) (refreshed bool) {
	k := keyOf(door, source)
	win := w.byKey[k]
	if win == nil {
		win = &Window{Door: door, Source: source, Opened: now, Until: until, among: w}
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
	win.Granted = now
	w.count(win)
	win.max = maxConnections
	win.Connections = 0
	win.recent = nil // most windows of a door with very many have no connection at a time
	win.next = 0
	win.standing = false
	return refreshed
}

// Stands records that the kernel has the window, too, and until when. It does nothing if
// there is no such window.
func (w *Windows) Stands(door int, source packet.Source, until time.Time) {
	if win := w.byKey[keyOf(door, source)]; win != nil {
		win.standing = true
		win.repeats = maxRepeats
		win.Until = until
		heap.Fix(&w.order, win.index)
	}
}

// Close forgets a window, and reports whether there was one.
func (w *Windows) Close(door int, source packet.Source) bool {
	win := w.byKey[keyOf(door, source)]
	if win != nil {
		w.forget(win)
	}
	return win != nil
}

// Expire forgets the windows that have ended by now, and calls ended with each of them.
func (w *Windows) Expire(now time.Time, ended func(*Window)) {
	for len(w.order) > 0 && !w.order[0].Until.After(now) {
		win := w.order[0]
		w.forget(win)
		ended(win)
	}
}

// Next returns when the next window ends, and false if none is open.
func (w *Windows) Next() (time.Time, bool) {
	if len(w.order) == 0 {
		return time.Time{}, false
	}
	return w.order[0].Until, true
}

// All returns an iterator over the open windows, in no particular order.
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

// Spent reports whether the window has admitted as many connections as it may. The kernel
// has closed it then. The notes stay, so that a retransmitted SYN is recognized.
func (win *Window) Spent() bool { return win.max > 0 && win.Connections >= win.max }

// Repeat reports whether a packet of a source without a window should go through the
// kernel's rules again, because the window that admits it stands since the packet was
// queued. Each true counts against a limit of 64 for each opening.
func (win *Window) Repeat() bool {
	if !win.standing || win.repeats == 0 {
		return false
	}
	win.repeats--
	return true
}

// Admit records a new connection's first packet, and returns what becomes of it.
func (win *Window) Admit(p packet.Packet, now time.Time) Admission {
	c := admitted{connection: connectionOf(p), came: 1, heard: now}
	if known := win.known(p); known != nil {
		if !win.Counts(p) {
			known.again(now)
			return AdmitAgain
		}
		lost := known.lost
		known.lost = time.Time{}
		// A packet that comes too soon after the loss was found has caused that finding
		// itself: conntrack forgets an ended connection when its successor comes.
		if lost.IsZero() || now.Sub(lost) < soonest {
			return Replayed
		}
		known.again(now)
		return AdmitAgain
	}
	if win.Spent() {
		return Exhausted
	}
	win.Connections++
	if win.Spent() {
		win.among.uncount(win)
	}
	if win.recent == nil {
		win.recent = make([]admitted, 0, max(remembered, win.max))
	}
	if len(win.recent) < cap(win.recent) {
		win.recent = append(win.recent, c)
	} else {
		win.recent[win.next] = c
		win.next = (win.next + 1) % len(win.recent)
	}
	return AdmitNew
}

// Knows reports whether the window has admitted the connection that a first packet
// belongs to.
func (win *Window) Knows(p packet.Packet) bool { return win.known(p) != nil }

// Lost records that the first packet of an admitted connection never arrived, so that it
// may be sent again.
func (win *Window) Lost(p packet.Packet, now time.Time) {
	if known := win.known(p); known != nil {
		known.lost = now
	}
}

// Repeated returns the port of the TCP connection whose first packet came last, and how
// often it came. More than once means that something behind the wall drops it: the kernel
// does not queue a repetition of a packet that was delivered. The number is 0 if there is
// no such connection.
func (win *Window) Repeated() (port packet.Port, times int) {
	var heard time.Time
	for i := range win.recent {
		if c := &win.recent[i]; c.port.Protocol == packet.TCP && !c.heard.Before(heard) {
			port, times, heard = c.port, c.came, c.heard
		}
	}
	return port, times
}

// Counts reports whether it matters if a packet is a retransmission or another
// connection. It does not matter in a window without a limit, nor for UDP, because the
// datagrams of a flow are all alike.
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

// Count returns how many windows of a door have a source in a network: one that [NetworkOf]
// returns, or 0.0.0.0/0 or ::/0 for all of an IP version but the link-local ones. Spent
// windows do not count.
func (w *Windows) Count(door int, network netip.Prefix) int { return w.counts[place{door, network}] }

// Total returns how many windows a door has open.
func (w *Windows) Total(door int) (n int) {
	for _, all := range allVersions {
		n += w.Count(door, all)
	}
	return n
}

// The leading bits of an address that its network has: about what one owner can have.
const (
	networkBits4 = 16
	networkBits6 = 32
)

// NetworkOf returns the network that a source belongs to. A source that is larger than
// that is its own network.
func NetworkOf(source packet.Source) netip.Prefix {
	bits := networkBits6
	if source.Addr().Is4() {
		bits = networkBits4
	}
	return netip.PrefixFrom(source.Addr(), min(bits, source.Bits())).Masked()
}

// linkLocal are the link-local IPv6 addresses (RFC 4291, section 2.4).
var linkLocal = netip.MustParsePrefix("fe80::/10")

// allVersions are the networks that versionOf returns.
var allVersions = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0), linkLocal}

// versionOf returns the network of all addresses that have the IP version of a source.
// Link-local sources have a set of their own in the kernel, and so count apart.
func versionOf(source packet.Source) netip.Prefix {
	if source.Link != 0 {
		return linkLocal
	}
	return netip.PrefixFrom(source.Addr(), 0).Masked()
}

func (w *Windows) count(win *Window) {
	if win.counted {
		return
	}
	win.counted = true
	for _, p := range placesOf(win) {
		w.counts[p]++
	}
}

func (w *Windows) uncount(win *Window) {
	if !win.counted {
		return
	}
	win.counted = false
	for _, p := range placesOf(win) {
		if w.counts[p]--; w.counts[p] == 0 {
			delete(w.counts, p)
		}
	}
}

// placesOf returns the places in which a window counts.
func placesOf(win *Window) [2]place {
	return [2]place{{win.Door, NetworkOf(win.Source)}, {win.Door, versionOf(win.Source)}}
}

func (w *Windows) forget(win *Window) {
	w.uncount(win)
	delete(w.byKey, keyOf(win.Door, win.Source))
	heap.Remove(&w.order, win.index)
}

// byDeadline is a heap of windows. The one that ends first is on top.
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
