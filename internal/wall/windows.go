package wall

import (
	"container/heap"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// windows opens and closes windows, and has the daemon's record of them. The sets in the
// kernel decide which sources have a window. The record counts connections, and has what
// must be put back if another process deletes the sets.
type windows struct {
	edges    *Edges
	trail    *audit.Summer
	doors    *doorIDs
	table    *installation
	packets  *packets
	sessions *endedSessions
	wake     func() // housekeeping

	queue   openingQueue // the windows to open
	changes *changeLog   // for followers

	// mu may be taken with the mu of packets held.
	mu             sync.Mutex
	record         *sequence.Windows
	uncertainUntil time.Time     // until then the kernel may hold a window that is not recorded
	announcing     bool          // windows are being opened, and the observers do not know yet
	postponed      []audit.Event // events of sources that the kernel has admitted meanwhile
	undelivered    []windowEvent // events for the observers, in order

	observing sync.Mutex // held while the observers see events; taken before mu
	observers []observer // does not change after New
}

// windowKey identifies a window.
type windowKey struct {
	door   string
	source packet.Source
}

// doorSet is all windows of a door for one IP version.
type doorSet struct {
	door string
	is4  bool
}

// doorFor returns the door to which a new connection is attributed. Of the doors that
// guard its port, it is the first where the source has a window, else the first of all;
// -1 if there is none. Of several windows it prefers the one that has admitted this packet
// before, then one that is not spent. This is for counting and events only: the kernel has
// already decided which door admits the packet. It is called with mu held.
func (ws *windows) doorFor(f *policy, p packet.Packet) (door int, source packet.Source, win *sequence.Window) {
	door = -1
	for _, i := range f.config.At(p.Port) {
		d := &f.config.Doors[i]
		if !guardsDestination(d, p) {
			continue
		}
		s := d.SourcePrefix.Of(p.Source)
		w := ws.record.Get(f.ids[i], s)
		if w != nil && w.Spent() && w.Knows(p) {
			return i, s, w
		}
		if door < 0 || w != nil && (win == nil || win.Spent() && !w.Spent()) {
			door, source, win = i, s, w
		}
	}
	return door, source, win
}

// attribute returns the door to which a new connection is attributed, as doorFor does.
func (ws *windows) attribute(f *policy, p packet.Packet) (door int, source packet.Source) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	door, source, _ = ws.doorFor(f, p)
	return door, source
}

// admission is what the record says about the first packet of a source that has a window
// in the kernel.
type admission struct {
	door    int // to which the packet is attributed; -1: none
	source  packet.Source
	outcome sequence.Admission
	spent   bool             // the window has now admitted max_connections
	unsure  *sequence.Window // the window that has to know whether the packet is delivered; nil: none
	person  method.Person    // who has opened the window
}

// isRefused reports whether the packet is refused.
func (a *admission) isRefused() bool {
	return a.outcome == sequence.Exhausted || a.outcome == sequence.Replayed
}

// admit records the first packet of a source that has a window in the kernel.
func (ws *windows) admit(f *policy, p packet.Packet, now time.Time) (a admission) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var win *sequence.Window
	a.door, a.source, win = ws.doorFor(f, p)
	if win == nil {
		a.outcome = sequence.AdmitUnknown
		return a
	}
	a.outcome = win.Admit(p, now)
	a.spent = win.Spent()
	a.person = method.ParseOpener(win.Opener).Person
	if win.Counts(p) && !a.isRefused() {
		a.unsure = win
	}
	return a
}

// recognition is what the record says about the first packet of a source that had no
// window in the kernel.
type recognition struct {
	door   int              // to which the packet is attributed; -1: none
	again  bool             // a retransmission of a connection that a spent window admitted
	opened bool             // a window that admits the packet was opened meanwhile
	unsure *sequence.Window // the window that has to know whether the packet is delivered; nil: none
}

// recognize looks for a window of a source that had none in the kernel.
func (ws *windows) recognize(f *policy, p packet.Packet, now time.Time) (r recognition) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var win *sequence.Window
	r.door, _, win = ws.doorFor(f, p)
	switch {
	case win == nil:
	case !win.Spent():
		r.opened = win.Repeat()
	case win.Knows(p) && win.Admit(p, now) == sequence.AdmitAgain:
		// The packet was lost behind the wall, or the kernel would have accepted it by
		// conntrack.
		r.again = true
		if win.Counts(p) {
			r.unsure = win
		}
	}
	return r
}

// checkDelivered tells a window that an admitted packet was not delivered, which decides
// how a retransmission is treated. Rules of other tables may have dropped the packet.
func (ws *windows) checkDelivered(win *sequence.Window, p packet.Packet) {
	if tracked, err := ws.edges.Tracked(p); err != nil || tracked {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	win.Lost(p, time.Now())
}

// isOpen reports whether a door is open for a source, or about to be opened, as far as
// the daemon knows.
func (ws *windows) isOpen(f *policy, door int, source packet.Source, now time.Time) bool {
	if win, known := ws.get(f.ids[door], source); known && !win.Spent() && win.Until.After(now) {
		return true
	}
	return ws.queue.has(f.config.Doors[door].Name, source)
}

// isUncertain reports whether the kernel may have windows that are not recorded.
func (ws *windows) isUncertain(now time.Time) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return now.Before(ws.uncertainUntil)
}

// get returns what is recorded of the window of a source at a door.
func (ws *windows) get(door int, source packet.Source) (win sequence.Window, known bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if recorded := ws.record.Get(door, source); recorded != nil {
		return *recorded, true
	}
	return sequence.Window{}, false
}

// repeated returns the port to which a source has tried to connect last, through its window
// at a door, and how often its SYN came. More than once means that something behind the wall
// drops it.
func (ws *windows) repeated(door string, source packet.Source) (port packet.Port, times int) {
	id := ws.doors.id(door)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if win := ws.record.Get(id, source); win != nil {
		return win.Repeated()
	}
	return packet.Port{}, 0
}

// admits reports whether a source needs no knock at a port now, because it has a window or
// is trusted.
func (ws *windows) admits(s sessions.Session) bool {
	f := ws.packets.current()
	for _, i := range f.config.At(s.Port) {
		d := &f.config.Doors[i]
		_, hasWindow := ws.get(f.ids[i], d.SourcePrefix.Of(s.Remote))
		if hasWindow || packet.Among(s.Remote, f.config.Wall.Trusted) || packet.Among(s.Remote, d.Trusted) {
			return true
		}
	}
	return false
}

// known returns the windows that are open according to the record.
func (ws *windows) known() []nft.Window {
	var all []nft.Window
	ws.each(func(door string, win *sequence.Window, left time.Duration) {
		all = append(all, nft.Window{Door: door, Source: win.Source, Left: left, Opener: method.ParseOpener(win.Opener)})
	})
	return all
}

// count returns how many windows are open.
func (ws *windows) count() (n int) {
	ws.each(func(string, *sequence.Window, time.Duration) { n++ })
	return n
}

// windowsCheck is the check of the findings about doors with max_windows.
const windowsCheck = "windows"

// findings returns a finding for each door that has as many windows of an IP version as it
// can have.
func (ws *windows) findings(f *policy) (found []doctor.Finding) {
	if f == nil {
		return nil
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	limit := f.config.Wall.MaxWindows
	for i := range f.config.Doors {
		for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if ws.record.Count(f.ids[i], netip.PrefixFrom(all, 0)) < limit {
				continue
			}
			version := 6
			if all.Is4() {
				version = 4
			}
			found = append(found, doctor.Finding{Check: windowsCheck, Severity: doctor.Error, Door: f.config.Doors[i].Name, IPVersion: version,
				Problem: fmt.Sprintf("The door has %d open windows for IPv%d, as many as max_windows allows. A client that knocks now gets none.", limit, version),
				Cure:    "Wait until windows end, close some, or write a larger max_windows into the wall block."})
		}
	}
	return found
}

// openAt returns how many windows each door has open.
func (ws *windows) openAt(f *policy) map[string]int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	open := make(map[string]int, len(f.ids))
	for i := range f.config.Doors {
		open[f.config.Doors[i].Name] = ws.record.Total(f.ids[i])
	}
	return open
}

// status returns the open windows that are wanted, sorted by door and source.
func (ws *windows) status(wanted WindowQuery) []WindowStatus {
	first := lastOnTop{}
	ws.each(func(door string, win *sequence.Window, left time.Duration) {
		if !wanted.has(door, win.Source) {
			return
		}
		s := WindowStatus{Door: door, Source: win.Source, LeftSeconds: seconds(left), Connections: win.Connections}
		full := wanted.Limit > 0 && len(first) == wanted.Limit
		if full && compareWindows(s, first[0]) > 0 {
			return
		}
		by := method.ParseOpener(win.Opener)
		s.Person, s.Key, s.Origin = by.Name, by.Key, by.Origin
		switch {
		case full:
			first[0] = s
			heap.Fix(&first, 0)
		case wanted.Limit > 0:
			heap.Push(&first, s)
		default:
			first = append(first, s)
		}
	})
	slices.SortFunc(first, compareWindows)
	return first
}

// lastOnTop is a heap of windows with the last one, by door and source, on top.
type lastOnTop []WindowStatus

func (h lastOnTop) Len() int           { return len(h) }
func (h lastOnTop) Less(i, j int) bool { return compareWindows(h[i], h[j]) > 0 }
func (h lastOnTop) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lastOnTop) Push(x any)        { *h = append(*h, x.(WindowStatus)) }
func (h *lastOnTop) Pop() any          { panic("the heap only grows") }

// withPerson returns an event with the person who has opened a window.
func withPerson(e audit.Event, win *sequence.Window) audit.Event {
	p := method.ParseOpener(win.Opener)
	e.Person, e.Key = p.Name, p.Key
	return e
}

// each calls f with each window that is open according to the record, and with the time
// that it has left. It holds mu meanwhile.
func (ws *windows) each(f func(door string, win *sequence.Window, left time.Duration)) {
	now := time.Now()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for win := range ws.record.All() {
		if left := win.Until.Sub(now); left > 0 && !win.Spent() {
			f(ws.doors.name(win.Door), win, left)
		}
	}
}

// adopt records windows that were found in the kernel. Those that are recorded already
// keep their connection counts.
func (ws *windows) adopt(found []nft.Window, f *policy) {
	now := time.Now()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, win := range found {
		i := f.doorNamed(win.Door)
		if ws.record.Get(f.ids[i], win.Source) == nil {
			ws.record.Open(f.ids[i], win.Source, now, now.Add(win.Left), f.config.Doors[i].MaxConnections)
			ws.record.Stands(f.ids[i], win.Source, now.Add(win.Left))
			recorded := ws.record.Get(f.ids[i], win.Source)
			recorded.Opener = win.Opener.Text()
			// The kernel does not tell when a window was opened: most are for the door's time.
			recorded.Granted = now.Add(-max(0, f.config.Doors[i].Window-win.Left))
		}
	}
}

// putBack records that the kernel has the windows again, after another process had
// deleted them. It now ends them a little later than recorded.
func (ws *windows) putBack(windows []nft.Window) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.uncertainUntil = time.Now().Add(ruleset.MaxWindow)
	for _, win := range windows {
		if noted := ws.record.Get(ws.doors.id(win.Door), win.Source); noted != nil {
			ws.record.Stands(noted.Door, noted.Source, noted.Until)
		}
	}
}

// forgetSpent forgets a spent window, so that none of its packets is recognized as a
// retransmission.
func (ws *windows) forgetSpent(door int, source packet.Source) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if win := ws.record.Get(door, source); win != nil && win.Spent() {
		ws.record.Close(door, source)
	}
}

// reconcileWith deletes the recorded windows that a new table does not have. The table's
// windows were read a while ago, so it may end them later than recorded.
func (ws *windows) reconcileWith(table []nft.Window, now time.Time) {
	open := make(map[windowKey]bool, len(table))
	for _, win := range table {
		open[windowKey{win.Door, win.Source}] = true
	}
	ws.mu.Lock()
	if len(table) > 0 {
		ws.uncertainUntil = now.Add(ruleset.MaxWindow)
	}
	var gone []*sequence.Window
	for win := range ws.record.All() {
		if !win.Spent() && !open[windowKey{ws.doors.name(win.Door), win.Source}] {
			gone = append(gone, win)
		}
	}
	for _, win := range gone {
		ws.record.Close(win.Door, win.Source)
		ws.undelivered = append(ws.undelivered, windowEvent{Event: withPerson(audit.Event{
			Time: now, Kind: audit.Closed, Door: ws.doors.name(win.Door), Source: win.Source,
			Code: audit.CodeNewRules, Reason: "the new rules have no such door, or its source_prefix has changed"}, win)})
	}
	ws.mu.Unlock()
	ws.notify()
}
