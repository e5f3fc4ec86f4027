package wall

import (
	"iter"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
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
