package wall

import (
	"cmp"
	"container/heap"
	"fmt"
	"iter"
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
	uncertainUntil time.Time             // until then the kernel may hold a window that is not recorded
	crowded        map[doorSet]time.Time // sets of which a network has its share, and when a client of it came last
	unreadUntil    time.Time             // until then the kernel may hold windows of before the start that were not read
	announcing     bool                  // windows are being opened, and the observers do not know yet
	refusing       bool                  // the kernel has refused the last window
	postponed      []audit.Event         // events of sources that the kernel has admitted meanwhile
	undelivered    []windowEvent         // events for the observers, in order

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
// before, then one that is not spent. The packet may go through another one: by which door,
// and whether by any, the kernel decides. It is called with mu held.
func (ws *windows) doorFor(f *policy, p packet.Packet) (door int, source packet.Source, win sequence.Window) {
	door = -1
	for _, i := range f.config.At(p.Port) {
		d := &f.config.Doors[i]
		if !guardsDestination(d, p) {
			continue
		}
		s := d.SourcePrefix.Of(p.Source)
		w := ws.record.Get(f.ids[i], s)
		if !w.IsNone() && w.Spent() && w.Knows(p) {
			return i, s, w
		}
		if door < 0 || !w.IsNone() && (win.IsNone() || win.Spent() && !w.Spent()) {
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
	spent   bool            // the window has now admitted max_connections
	unsure  sequence.Window // the window that has to know whether the packet is delivered, if any
	person  method.Person   // who has opened the window

	packet  packet.Packet
	event   audit.Event
	audited bool // the event is to be recorded
}

// isRefused reports whether the packet is refused.
func (a *admission) isRefused() bool {
	return a.outcome == sequence.Exhausted || a.outcome == sequence.Replayed
}

// admit records the first packet of a source that has a window in the kernel.
func (ws *windows) admit(f *policy, p packet.Packet, now time.Time) (a admission) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var win sequence.Window
	a.door, a.source, win = ws.doorFor(f, p)
	if win.IsNone() {
		a.outcome = sequence.AdmitUnknown
		return a
	}
	a.by(win, p, now)
	return a
}

// by records that the packet goes through a window. It is called with the mu of windows held.
func (a *admission) by(win sequence.Window, p packet.Packet, now time.Time) {
	a.outcome = win.Admit(p, now)
	a.spent = win.Spent()
	a.person = method.ParseOpener(win.Opener()).Person
	if win.Counts(p) && !a.isRefused() {
		a.unsure = win
	}
}

// admitAhead records the first packet of a source whose window is being opened, if it need not
// wait until the kernel has the window; else it returns nil. It does in one step what recognize
// and admit do in two, as the window may be gone in between.
func (ws *windows) admitAhead(f *policy, p packet.Packet, now time.Time) *admission {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	door, source, win := ws.doorFor(f, p)
	return ws.ahead(f, door, source, win, p, now)
}

// ahead is admitAhead for the window that doorFor has found. It is called with mu held.
//
// It must be certain that the kernel's rules will let the packet through that window. So the
// packet waits if several doors guard where it goes, because it does not tell by which
// interface it came, and whether it is for this host: another door may have queued it. All
// wait while a source has ended sessions, whose marks are cleared when the window is open, and
// after the kernel has refused a window.
func (ws *windows) ahead(f *policy, door int, source packet.Source, win sequence.Window, p packet.Packet, now time.Time) *admission {
	if win.IsNone() || !win.Opens(p, now) || ws.refusing || !f.isGuardedOnce(p) || ws.sessions.any() {
		return nil
	}
	a := &admission{door: door, source: source}
	a.by(win, p, now)
	return a
}

// recognition is what the record says about the first packet of a source that had no
// window in the kernel.
type recognition struct {
	door   int             // to which the packet is attributed; -1: none
	again  bool            // a retransmission of a connection that a spent window admitted
	opened bool            // a window that admits the packet was opened meanwhile
	unsure sequence.Window // the window that has to know whether the packet is delivered, if any
	ahead  *admission      // through a window that is being opened; nil: the packet is not accepted by that
}

// recognize looks for a window of a source that had none in the kernel.
func (ws *windows) recognize(f *policy, p packet.Packet, now time.Time) (r recognition) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var source packet.Source
	var win sequence.Window
	r.door, source, win = ws.doorFor(f, p)
	if r.ahead = ws.ahead(f, r.door, source, win, p, now); r.ahead != nil {
		return r
	}
	switch {
	case win.IsNone():
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
func (ws *windows) checkDelivered(win sequence.Window, p packet.Packet) {
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
	if win, known := ws.get(f.ids[door], source); known && !win.Spent && win.Until.After(now) {
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
func (ws *windows) get(door int, source packet.Source) (win sequence.State, known bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if recorded := ws.record.Get(door, source); !recorded.IsNone() {
		return recorded.State(), true
	}
	return win, false
}

// repeated returns the port to which a source has tried to connect last, through its window
// at a door, and how often its SYN came. More than once means that something behind the wall
// drops it.
func (ws *windows) repeated(door string, source packet.Source) (port packet.Port, times int) {
	id := ws.doors.id(door)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if win := ws.record.Get(id, source); !win.IsNone() {
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

// known returns the windows that are open according to the record, each with the time that it
// has left when it is asked for.
func (ws *windows) known() iter.Seq[nft.Window] {
	return ws.knownWith(func(string, packet.Source) bool { return true })
}

// knownWith returns those of the known windows whose door and source are wanted.
func (ws *windows) knownWith(wanted func(door string, source packet.Source) bool) iter.Seq[nft.Window] {
	return func(yield func(nft.Window) bool) {
		inChunks(ws, knownWindow, func(w nft.Window) bool { return !wanted(w.Door, w.Source) || yield(w) })
	}
}

// inChunks calls yield with what of makes of each known window, until it returns false. It
// calls of with mu held, and yield without.
func inChunks[T any](ws *windows, of func(door string, win sequence.Window, left time.Duration) T, yield func(T) bool) {
	var some []T
	ws.inParts(func(part int) (next int) {
		some = some[:0]
		next = ws.part(part, func(door string, win sequence.Window, left time.Duration) { some = append(some, of(door, win, left)) })
		for _, w := range some {
			if !yield(w) {
				return 0
			}
		}
		return next
	})
}

func knownWindow(door string, win sequence.Window, left time.Duration) nft.Window {
	return nft.Window{Door: door, Source: win.Source(), Left: left, Opener: method.ParseOpener(win.Opener())}
}

// openedBy returns the open windows with such a door and opener. There are few openers of
// many windows, and each is asked about once, without mu.
func (ws *windows) openedBy(wanted func(door string, by method.Opener) bool) (all []nft.Window) {
	type opening struct{ door, opener string }
	asked := map[opening]bool{}
	ws.each(func(door string, win sequence.Window, _ time.Duration) {
		if opener := win.Opener(); opener != "" {
			asked[opening{door, opener}] = false
		}
	})
	found := false
	for by := range asked {
		asked[by] = wanted(by.door, method.ParseOpener(by.opener))
		found = found || asked[by]
	}
	if !found {
		return nil
	}
	ws.each(func(door string, win sequence.Window, left time.Duration) {
		if asked[opening{door, win.Opener()}] {
			all = append(all, knownWindow(door, win, left))
		}
	})
	return all
}

// count returns how many windows are open.
func (ws *windows) count() (n int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for id := range ws.doors.len() {
		n += ws.record.Total(id)
	}
	return n
}

// windowsCheck is the check of the findings about doors with max_windows.
const windowsCheck = "windows"

// crowdedFor is how long a door is said to be crowded after a client got no window.
const crowdedFor = time.Minute

// findings returns a finding for each door that has as many windows of an IP version as it
// can have, or has no room for the clients of some network.
func (ws *windows) findings(f *policy) (found []doctor.Finding) {
	if f == nil {
		return nil
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now := time.Now()
	limit := f.config.Wall.MaxWindows
	for i := range f.config.Doors {
		door := f.config.Doors[i].Name
		for version, all := range map[int]netip.Addr{4: netip.IPv4Unspecified(), 6: netip.IPv6Unspecified()} {
			open := ws.record.Count(f.ids[i], netip.PrefixFrom(all, 0))
			finding := doctor.Finding{Check: windowsCheck, Severity: doctor.Error, Door: door, IPVersion: version}
			switch {
			case open >= limit:
				finding.Problem = fmt.Sprintf("The door has %d open windows for IPv%d, as many as max_windows allows. A client that knocks now gets none.", limit, version)
				finding.Cure = "Wait until windows end, close some, or write a larger max_windows into the wall block."
			case now.Before(ws.crowded[doorSet{door, version == 4}].Add(crowdedFor)):
				finding.Severity = doctor.Warning
				finding.Problem = fmt.Sprintf("The door has %d open windows for IPv%d, of %d that max_windows allows. "+
					"So many are of clients of one network that others of that network get none: the rest is kept for other networks.", open, version, limit)
				finding.Cure = "Look where they come from with `knockwall status --door " + door + "`. If all are yours, write a larger max_windows into the wall block."
			default:
				continue
			}
			found = append(found, finding)
		}
	}
	slices.SortStableFunc(found, func(a, b doctor.Finding) int { return cmp.Or(cmp.Compare(a.Door, b.Door), a.IPVersion-b.IPVersion) })
	if now.Before(ws.unreadUntil) {
		found = append(found, doctor.Finding{Check: windowsCheck, Severity: doctor.Warning,
			Problem: "The daemon before this one did not stop in order, and had more windows than can be read in a moment. " +
				"Those that were not read admit until they end, and the status does not show them.",
			Cure: "Wait until they end."})
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

// status returns the open windows that are wanted, sorted by door and source, and the place of
// the last of them if there are more.
func (ws *windows) status(wanted WindowQuery) (all []WindowStatus, next WindowPlace) {
	first := lastOnTop{}
	more := false
	ws.each(func(door string, win sequence.Window, left time.Duration) {
		place := WindowPlace{door, win.Source()}
		if !wanted.has(place) {
			return
		}
		full := wanted.Limit > 0 && len(first) == wanted.Limit
		more = more || full
		if full && place.compare(first[0].place()) > 0 {
			return
		}
		s := WindowStatus{Door: door, Source: place.Source, LeftSeconds: seconds(left), Connections: win.Connections()}
		by := method.ParseOpener(win.Opener())
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
	if more {
		next = first[len(first)-1].place()
	}
	return first, next
}

// lastOnTop is a heap of windows with the last one, by door and source, on top.
type lastOnTop []WindowStatus

func (h lastOnTop) Len() int           { return len(h) }
func (h lastOnTop) Less(i, j int) bool { return compareWindows(h[i], h[j]) > 0 }
func (h lastOnTop) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lastOnTop) Push(x any)        { *h = append(*h, x.(WindowStatus)) }
func (h *lastOnTop) Pop() any          { panic("the heap only grows") }

// withPerson returns an event with the person who has opened a window.
func withPerson(e audit.Event, opener string) audit.Event {
	p := method.ParseOpener(opener)
	e.Person, e.Key = p.Name, p.Key
	return e
}

// partSize is how many windows are looked at before others get mu. First packets wait for it.
const partSize = 1024

// inParts calls do with where to go on, until that is at the end.
func (*windows) inParts(do func(part int) (next int)) {
	for part := do(0); part != 0; part = do(part) {
	}
}

// part calls f with the next windows that are open according to the record, and with the time
// that each has left, and returns where to go on. It holds mu meanwhile.
func (ws *windows) part(from int, f func(door string, win sequence.Window, left time.Duration)) (next int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now := time.Now()
	return ws.record.Part(from, partSize, func(win sequence.Window) {
		if left := win.Until().Sub(now); left > 0 && !win.Spent() {
			f(ws.doors.name(win.Door()), win, left)
		}
	})
}

// each calls f with each window that is open according to the record, and with the time that
// it has left. It holds mu during each call, and not between some of them.
func (ws *windows) each(f func(door string, win sequence.Window, left time.Duration)) {
	ws.inParts(func(part int) int { return ws.part(part, f) })
}

// start forgets what an apply that has failed has recorded.
func (ws *windows) start() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.record = sequence.NewWindows()
}

// adoptFound records a window that was found in the kernel, unless it is recorded already.
func (ws *windows) adoptFound(win nft.Window, f *policy) {
	// While the kernel still enlarges a set, a listing may lack some elements.
	ws.doubt()
	kept := KeptWindow{Door: win.Door, Source: win.Source, Opener: win.Opener.Text(), Left: win.Left}
	if i := f.doorNamed(win.Door); i >= 0 {
		// It does not tell when a window was opened: most are for the door's time.
		kept.Age = max(0, f.config.Doors[i].Window-win.Left)
	}
	ws.adopt(kept, f)
}

// adopt records a window that is in the kernel, unless it is recorded already. Its door may be
// gone or have changed: then the next table does not have it.
func (ws *windows) adopt(win KeptWindow, f *policy) {
	now := time.Now()
	maxConnections := 0
	if i := f.doorNamed(win.Door); i >= 0 {
		maxConnections = f.config.Doors[i].MaxConnections
	}
	id := ws.doors.id(win.Door)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.record.Get(id, win.Source).IsNone() {
		ws.record.Open(id, win.Source, now, now.Add(win.Left), maxConnections)
		recorded := ws.record.Get(id, win.Source)
		recorded.Stands(now.Add(win.Left))
		recorded.Grant(win.Opener, now.Add(-win.Age))
	}
}

// putBack records that the kernel has the windows again, after another process had
// deleted them, and returns how many they are. It now ends them a little later than recorded.
func (ws *windows) putBack() (n int) {
	ws.doubt()
	ws.each(func(_ string, win sequence.Window, _ time.Duration) {
		win.Stands(win.Until())
		n++
	})
	return n
}

// doubt records that the kernel may have windows that are not recorded, or have them for
// longer.
func (ws *windows) doubt() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.uncertainUntil = time.Now().Add(ruleset.MaxWindow)
}

// miss records that not all windows were read at the start.
func (ws *windows) miss() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.unreadUntil = time.Now().Add(ruleset.MaxWindow)
}

// forgetSpent forgets a spent window, so that none of its packets is recognized as a
// retransmission.
func (ws *windows) forgetSpent(door int, source packet.Source) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if win := ws.record.Get(door, source); !win.IsNone() && win.Spent() {
		ws.record.Close(door, source)
	}
}

// closeOthers deletes the recorded windows that are not wanted, as a new table does not have
// them. Of those from before the start there is nothing to tell.
func (ws *windows) closeOthers(wanted func(door string, source packet.Source) bool, now time.Time, tell bool) {
	var gone []windowKey
	ws.each(func(door string, win sequence.Window, _ time.Duration) {
		if !wanted(door, win.Source()) {
			gone = append(gone, windowKey{door, win.Source()})
		}
	})
	ws.mu.Lock()
	for _, key := range gone {
		id := ws.doors.id(key.door)
		win := ws.record.Get(id, key.source)
		if win.IsNone() {
			continue // it has just ended
		}
		e := withPerson(audit.Event{Time: now, Kind: audit.Closed, Door: key.door, Source: key.source,
			Code: audit.CodeNewRules, Reason: "the new rules have no such door, or its source_prefix has changed"}, win.Opener())
		ws.record.Close(id, key.source)
		if tell {
			ws.undelivered = append(ws.undelivered, windowEvent{Event: e})
		}
	}
	ws.mu.Unlock()
	ws.notify()
}
