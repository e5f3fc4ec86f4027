package sequence

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// Window is a door that is open for one source, as a set of windows knows it. It can be used
// until the window is closed or has ended. The zero value is no window.
type Window struct {
	among *Windows
	at    int32 // in among.records
}

// State is what is known of a window at a moment.
type State struct {
	Opened      time.Time
	Granted     time.Time // when it was opened or refreshed
	Until       time.Time
	Opener      string // who has opened it, in the words of the caller
	Connections int    // admitted since the window was opened or refreshed, without retransmitted SYNs
	Spent       bool   // it has admitted as many connections as it may
}

// windowRecord is what the set stores of a window. There may be millions, so it is small, and
// has no pointers that the garbage collector would have to follow. Times are after the epoch
// of the set.
type windowRecord struct {
	opened, granted, until time.Duration
	key
	place       int32  // in the heap; none: the record is free
	chain       int32  // the next window with that hash, or the next free record
	opener      uint32 // in openers
	connections uint32
	max         uint16 // limit of connections, 0 for none
	repeats     uint8  // how many packets may still get the verdict "repeat"
	standing    bool
}

// admissions are the connections that a window has admitted, as far as they are remembered.
type admissions struct {
	recent []admitted
	next   int // index in recent for the next connection
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
	seed     maphash.Seed
	epoch    time.Time // of the first window; all times are stored as distances from it
	records  windowRecords
	byHash   map[uint32]int32 // the first window with that hash of its key
	order    []int32          // a heap: the window that ends first is on top
	admitted map[int32]*admissions
	openers  texts
	counts   map[place]int32 // without places that have none
}

// NewWindows returns an empty set of windows.
func NewWindows() *Windows {
	w := &Windows{seed: maphash.MakeSeed()}
	w.clear()
	return w
}

// clear forgets everything, and the memory for it.
func (w *Windows) clear() {
	w.records = windowRecords{free: none}
	w.byHash = map[uint32]int32{}
	w.order = nil
	w.admitted = map[int32]*admissions{}
	w.openers = newTexts()
	w.counts = map[place]int32{}
}

// Open opens a window for a source at a door, or refreshes it: it then ends at until, and
// may admit maxConnections again (0 for no limit). It reports whether there was a window
// that was not spent. The window stands only after [Windows.Stands].
func (w *Windows) Open(door int, source packet.Source, now, until time.Time, maxConnections int) (refreshed bool) {
	if w.epoch.IsZero() {
		w.epoch = now
	}
	k := keyOf(door, source)
	i := w.find(k)
	if i == none {
		i = w.add(k)
		w.count(i, 1)
		w.records.at(i).opened = w.since(now)
	} else {
		delete(w.admitted, i) // most windows of a door with very many have no connection at a time
		refreshed = !w.records.at(i).isSpent()
		if !refreshed {
			w.count(i, 1)
			w.records.at(i).opened = w.since(now)
		}
	}
	r := w.records.at(i)
	r.granted = w.since(now)
	r.max = uint16(maxConnections)
	r.connections = 0
	r.standing = false
	w.endAt(i, until)
	return refreshed
}

// Stands records that the kernel has the window, too, and until when. It does nothing if
// there is no such window.
func (w *Windows) Stands(door int, source packet.Source, until time.Time) {
	if win := w.Get(door, source); !win.IsNone() {
		win.Stands(until)
	}
}

// Stands records that the kernel has the window, too, and until when.
func (win Window) Stands(until time.Time) {
	r := win.record()
	r.standing = true
	r.repeats = maxRepeats
	win.among.endAt(win.at, until)
}

// Close forgets a window, and reports whether there was one.
func (w *Windows) Close(door int, source packet.Source) bool {
	i := w.find(keyOf(door, source))
	if i != none {
		w.forget(i)
	}
	return i != none
}

// Expire forgets windows that have ended by now, the first ones first, and at most that many.
// It calls ended with each of them before.
func (w *Windows) Expire(now time.Time, most int, ended func(Window)) {
	for ; most > 0 && len(w.order) > 0; most-- {
		i := w.order[0]
		if w.time(w.records.at(i).until).After(now) {
			return
		}
		ended(Window{w, i})
		w.forget(i)
	}
}

// Next returns when the next window ends, and false if none is open.
func (w *Windows) Next() (time.Time, bool) {
	if len(w.order) == 0 {
		return time.Time{}, false
	}
	return w.time(w.records.at(w.order[0]).until), true
}

// Part calls each with at most that many of the windows, in no particular order, and returns
// where to go on, and 0 after the last. Who begins at 0 and goes on to the end sees each
// window that stays open meanwhile once.
func (w *Windows) Part(from, most int, each func(Window)) (next int) {
	end := min(from+most, w.records.used)
	for i := from; i < end; i++ {
		if w.records.at(int32(i)).place != none {
			each(Window{w, int32(i)})
		}
	}
	if end >= w.records.used {
		return 0
	}
	return end
}

// Get returns a source's window at a door, or none.
func (w *Windows) Get(door int, source packet.Source) Window {
	if i := w.find(keyOf(door, source)); i != none {
		return Window{w, i}
	}
	return Window{}
}

// IsNone reports whether this is no window.
func (win Window) IsNone() bool { return win.among == nil }

func (win Window) record() *windowRecord { return win.among.records.at(win.at) }

// Door returns the index of the door.
func (win Window) Door() int { return int(win.record().key.at) }

// Source returns the source for which the door is open.
func (win Window) Source() packet.Source { return win.record().sourceOf() }

// Until returns when the window ends.
func (win Window) Until() time.Time { return win.among.time(win.record().until) }

// Granted returns when the window was opened or refreshed.
func (win Window) Granted() time.Time { return win.among.time(win.record().granted) }

// Opener returns who has opened the window, as [Window.Grant] has it.
func (win Window) Opener() string { return win.among.openers.text(win.record().opener) }

// State returns what is known of the window now.
func (win Window) State() State {
	w, r := win.among, win.record()
	return State{
		Opened: w.time(r.opened), Granted: w.time(r.granted), Until: w.time(r.until),
		Opener: win.Opener(), Connections: int(r.connections), Spent: r.isSpent(),
	}
}

// Grant records who has opened or refreshed the window, and when.
func (win Window) Grant(opener string, granted time.Time) {
	r := win.record()
	win.among.openers.release(r.opener)
	r.opener = win.among.openers.hold(opener)
	r.granted = win.among.since(granted)
}

// Resume records that the window has admitted some connections already.
func (win Window) Resume(connections int) {
	r := win.record()
	wasSpent := r.isSpent()
	r.connections = uint32(connections)
	if r.isSpent() && !wasSpent {
		win.among.count(win.at, -1)
	}
}

// Connections returns how many connections the window has admitted since it was opened or
// refreshed.
func (win Window) Connections() int { return int(win.record().connections) }

// Spent reports whether the window has admitted as many connections as it may. The kernel
// has closed it then. The notes stay, so that a retransmitted SYN is recognized.
func (win Window) Spent() bool { return win.record().isSpent() }

func (r *windowRecord) isSpent() bool { return r.max > 0 && r.connections >= uint32(r.max) }

// Repeat reports whether a packet of a source without a window should go through the
// kernel's rules again, because the window that admits it stands since the packet was
// queued. Each true counts against a limit of 64 for each opening.
func (win Window) Repeat() bool {
	r := win.record()
	if !r.standing || r.repeats == 0 {
		return false
	}
	r.repeats--
	return true
}

// Opens reports whether the window does not stand yet, and the kernel's rules will do no more
// with the packet than accept it: it is of TCP, and the window has no limit of connections. A
// window whose time is up before it stands opens for nobody.
func (win Window) Opens(p packet.Packet, now time.Time) bool {
	r := win.record()
	return !r.standing && r.max == 0 && p.Port.Protocol == packet.TCP && win.Until().After(now)
}

// Admit records a new connection's first packet, and returns what becomes of it.
func (win Window) Admit(p packet.Packet, now time.Time) Admission {
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
	r := win.record()
	r.connections++
	if r.isSpent() {
		win.among.count(win.at, -1)
	}
	a := win.among.admitted[win.at]
	if a == nil {
		a = &admissions{recent: make([]admitted, 0, remembered)}
		win.among.admitted[win.at] = a
	}
	if len(a.recent) < max(remembered, int(r.max)) { // most windows have few connections
		a.recent = append(a.recent, c)
	} else {
		a.recent[a.next] = c
		a.next = (a.next + 1) % len(a.recent)
	}
	return AdmitNew
}

// Knows reports whether the window has admitted the connection that a first packet
// belongs to.
func (win Window) Knows(p packet.Packet) bool { return win.known(p) != nil }

// Lost records that the first packet of an admitted connection never arrived, so that it
// may be sent again.
func (win Window) Lost(p packet.Packet, now time.Time) {
	if known := win.known(p); known != nil {
		known.lost = now
	}
}

// Repeated returns the port of the TCP connection whose first packet came last, and how
// often it came. More than once means that something behind the wall drops it: the kernel
// does not queue a repetition of a packet that was delivered. The number is 0 if there is
// no such connection.
func (win Window) Repeated() (port packet.Port, times int) {
	a := win.among.admitted[win.at]
	if a == nil {
		return port, 0
	}
	var heard time.Time
	for i := range a.recent {
		if c := &a.recent[i]; c.port.Protocol == packet.TCP && !c.heard.Before(heard) {
			port, times, heard = c.port, c.came, c.heard
		}
	}
	return port, times
}

// Counts reports whether it matters if a packet is a retransmission or another
// connection. It does not matter in a window without a limit, nor for UDP, because the
// datagrams of a flow are all alike.
func (win Window) Counts(p packet.Packet) bool {
	return win.record().max > 0 && p.Port.Protocol == packet.TCP
}

func (win Window) known(p packet.Packet) *admitted {
	a := win.among.admitted[win.at]
	if a == nil {
		return nil
	}
	c := connectionOf(p)
	for i := range a.recent {
		if a.recent[i].connection == c {
			return &a.recent[i]
		}
	}
	return nil
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

// place is a network as seen by a door. No network has more than 32 bits.
type place struct {
	network uint32 // the leading bits
	door    uint16
	bits    uint8
	is4     bool
}

func placeOf(door int, network netip.Prefix) place {
	leading := network.Addr().AsSlice()
	return place{binary.BigEndian.Uint32(leading), uint16(door), uint8(network.Bits()), network.Addr().Is4()}
}

// Count returns how many windows of a door have a source in a network: one that [NetworkOf]
// returns, or 0.0.0.0/0 or ::/0 for all of an IP version but the link-local ones. Spent
// windows do not count.
func (w *Windows) Count(door int, network netip.Prefix) int {
	return int(w.counts[placeOf(door, network)])
}

// CountVersion returns how many windows a door has of the IP version of a source. Link-local
// sources are like a third version. Spent windows do not count.
func (w *Windows) CountVersion(door int, source packet.Source) int {
	return w.Count(door, versionOf(source))
}

// Most returns how many windows a door has of the IP version of which it has the most.
func (w *Windows) Most(door int) (n int) {
	for _, all := range allVersions {
		n = max(n, w.Count(door, all))
	}
	return n
}

// Total returns how many windows a door has open. Spent windows do not count.
func (w *Windows) Total(door int) (n int) {
	for _, all := range allVersions {
		n += w.Count(door, all)
	}
	return n
}

// count adds to the numbers of windows in the places in which a window counts.
func (w *Windows) count(i, by int32) {
	k := w.records.at(i).key
	source := k.sourceOf()
	in := [...]place{placeOf(int(k.at), NetworkOf(source)), placeOf(int(k.at), versionOf(source))}
	for n, p := range in {
		if n > 0 && p == in[0] { // a door that takes all link-local addresses for one source
			break
		}
		if w.counts[p] += by; w.counts[p] == 0 {
			delete(w.counts, p)
		}
	}
}
