package wall

import (
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/sequence"
)

// policy is what judges the packets: a configuration, as it is at a time, and what is
// known of those who knock by it. A reload makes a new one; when the time has come
// for other sequences there is one that shares all but these.
type policy struct {
	wall    *Wall
	config  *effective.Config
	reasons map[string]nft.LogReason
	ids     []int // of its doors, by which their windows are noted
	locks   []lock
	locksOf [][]int // of each door

	// Guarded by the wall's mu.
	stale     bool                // the table could not be made to agree with the configuration
	tracker   *sequence.Tracker   // whose locks are numbered as these
	verifiers [][]method.Verifier // by door and method; nil where a method hears no datagrams
	tallies   []tally             // by door
}

// lock is a sequence that opens or closes a door.
type lock struct {
	door   int
	closes bool
	place  int // in the door's Sequences, if it opens
	steps  []packet.Port
}

// tally counts what happened at one door.
type tally struct {
	audit.Counts          // the events of each kind; of refusals only those of strangers
	exhausted      uint64 // refusals of sources that have a window
	held, released uint64 // strangers' packets
}

// newPolicy makes a front of a configuration as it is now.
func (w *Wall) newPolicy(c *effective.Config, now time.Time) *policy {
	f := &policy{
		wall:      w,
		config:    c,
		reasons:   nft.LogReasons(c),
		verifiers: make([][]method.Verifier, len(c.Doors)),
		tallies:   make([]tally, len(c.Doors)),
	}
	f.locks, f.locksOf = locksOf(c)
	tracked := make([]sequence.Lock, len(f.locks))
	for i, l := range f.locks {
		d := &c.Doors[l.door]
		tracked[i] = sequence.Lock{Steps: l.steps, Timeout: d.SequenceTimeout, Prefix: d.SourcePrefix, Strict: len(d.CloseSequence) > 0}
		if !l.closes && d.Methods[d.Knocking()].Traits().Consumes { // the next one may be longer
			tracked[i].Room = sequence.MaxSteps
		}
	}
	f.tracker = sequence.NewTracker(tracked, c.Wall.Reorder, c.Wall.MaxSources, now)
	for i, d := range c.Doors {
		for _, m := range d.Methods {
			var v method.Verifier
			if listener, ok := m.(method.Listener); ok {
				v = listener.Verifier()
			}
			f.verifiers[i] = append(f.verifiers[i], v)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range c.Doors {
		f.ids = append(f.ids, w.doorID(d.Name))
	}
	return f
}

// locksOf returns the locks of all doors, and which of them each has.
func locksOf(c *effective.Config) (locks []lock, of [][]int) {
	of = make([][]int, len(c.Doors))
	add := func(l lock) {
		of[l.door] = append(of[l.door], len(locks))
		locks = append(locks, l)
	}
	for i, d := range c.Doors {
		for place, steps := range d.Sequences {
			add(lock{door: i, place: place, steps: steps})
		}
		if len(d.CloseSequence) > 0 {
			add(lock{door: i, closes: true, steps: d.CloseSequence})
		}
	}
	return locks, of
}

// inherit goes on counting where the former front has stopped, and follows the
// attempts at those locks that are the same.
func (f *policy) inherit(former *policy) {
	for i, d := range former.config.Doors {
		if door := f.doorNamed(d.Name); door >= 0 {
			f.tallies[door] = former.tallies[i]
		}
	}
	f.tracker.Inherit(former.tracker, func(lock int) int {
		was := &former.locks[lock]
		door := &former.config.Doors[was.door]
		i := f.doorNamed(door.Name)
		if i < 0 || f.config.Doors[i].SourcePrefix != door.SourcePrefix {
			return -1
		}
		at := slices.IndexFunc(f.locksOf[i], func(l int) bool {
			is := &f.locks[l]
			return is.closes == was.closes && is.place == was.place && slices.Equal(is.steps, was.steps)
		})
		if at < 0 {
			return -1
		}
		return f.locksOf[i][at]
	})
}

// attemptAt returns a source's attempt to open a door which has come furthest, and
// how many steps there are, if one is remembered.
func (f *policy) attemptAt(door int, source packet.Source) (furthest sequence.Attempt, steps int, known bool) {
	for _, l := range f.locksOf[door] {
		a, ok := f.tracker.Of(l, source)
		if ok && !f.locks[l].closes && (!known || a.Step > furthest.Step) {
			furthest, steps, known = a, len(f.locks[l].steps), true
		}
	}
	return furthest, steps, known
}

// carriedOver returns those windows of a table that was read a while ago which
// stay open in this front: their doors still stand, and tell sources apart as
// they did, so that nobody inherits another's window.
func (f *policy) keptWindows(found []nft.Window, ago time.Duration) []nft.Window {
	var windows []nft.Window
	for _, win := range found {
		win.Left -= ago
		if win.Left > 0 && f.hasSource(win.Door, win.Source) {
			windows = append(windows, win)
		}
	}
	return windows
}

// tells reports whether there is a door of that name, to which the source is one.
func (f *policy) hasSource(door string, source packet.Source) bool {
	i := f.doorNamed(door)
	return i >= 0 && f.config.Doors[i].SourcePrefix.Covers(source) && (source.Link != 0) == isLinkLocal(source.Addr())
}

// isLinkLocal reports whether an address is another host on each link.
func isLinkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

func (f *policy) doorNamed(name string) int { return f.config.Index(name) }

func (f *policy) guardsAny(s sessions.Session) bool { return len(f.config.At(s.Port)) > 0 }

// doorFor returns the door that a new connection is reckoned to: of those
// before its port the one where the source has a window, else the first. Of
// several windows it is the one that has admitted this very packet before, else
// one that is not spent. Which of the doors let it in is the kernel's decision,
// made already.
func (f *policy) doorFor(p packet.Packet) (door int, source packet.Source, win *sequence.Window) {
	door = -1
	for _, i := range f.config.At(p.Port) {
		d := &f.config.Doors[i]
		if !guardsDestination(d, p) {
			continue
		}
		s := d.SourcePrefix.Of(p.Source)
		w := f.wall.windows.Get(f.ids[i], s)
		if w != nil && w.Spent() && w.Knows(p) {
			return i, s, w
		}
		if door < 0 || w != nil && (win == nil || win.Spent() && !w.Spent()) {
			door, source, win = i, s, w
		}
	}
	return door, source, win
}

// standsBefore reports whether a door that guards a packet's port guards its destination,
// as far as a packet tells: not at which interface it came in, nor which addresses are this
// host's own.
func guardsDestination(d *effective.Door, p packet.Packet) bool {
	return d.GuardsAt(p.Destination, true)
}

// admitted handles new connections of sources that have a window.
type admitted struct{ *sockets }

func (s admitted) Queued(id uint32, p packet.Packet) {
	w := s.wall
	now := time.Now()
	admission := sequence.AdmitUnknown
	w.mu.Lock()
	f := w.policy
	door, source, win := f.doorFor(p)
	if win != nil {
		admission = win.Admit(p, now)
	}
	spent := win != nil && win.Spent()
	refused := admission == sequence.Exhausted || admission == sequence.Replayed
	if door >= 0 {
		if refused {
			f.tallies[door].exhausted++
		} else if admission != sequence.AdmitAgain {
			f.tallies[door].Add(audit.Accepted)
		}
	}
	matters := !refused && win != nil && win.Counts(p)
	if refused {
		_ = s.sockets.admitted.Refuse(id)
	} else {
		_ = s.sockets.admitted.Accept(id)
	}
	e := audit.Event{Time: now, Kind: audit.Accepted, Code: audit.CodeWindow, Source: source, Port: p.Port}
	if door >= 0 {
		e.Door = f.config.Doors[door].Name
	}
	switch admission {
	case sequence.Exhausted:
		e.Kind, e.Code, e.Reason = audit.Refused, audit.CodeMaxConnections, "max_connections is reached"
	case sequence.Replayed:
		e.Kind, e.Code, e.Reason = audit.Refused, audit.CodeDuplicate, "a connection that looks the same was let in before"
	}
	audited := door >= 0 && admission != sequence.AdmitAgain
	later := audited && w.announcing && len(w.pending) < maxPending
	if later {
		w.pending = append(w.pending, e)
	}
	w.mu.Unlock()
	w.metrics.admitted.Observe(time.Since(now).Seconds())
	if matters {
		w.checkDelivered(win, p)
	}
	if !audited {
		return
	}
	if !later {
		w.trail.Record(e)
	}
	if spent && admission == sequence.AdmitNew {
		w.spend(e.Door, source)
	}
}

// arrived finds out whether a packet was delivered that was let in by a window, as that
// decides what it is if it comes again. Other people's rules may have dropped it.
func (w *Wall) checkDelivered(win *sequence.Window, p packet.Packet) {
	if tracked, err := w.edges.Tracked(p); err != nil || tracked {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	win.Lost(p, time.Now())
}

// maxPending is of how many who were let in it is told later, so that what has
// happened is told in its order. There is seldom one.
const maxPending = 1000

func (s admitted) Unreadable(id uint32) {
	s.wall.mu.Lock()
	defer s.wall.mu.Unlock()
	_ = s.sockets.admitted.Refuse(id)
}

func (s admitted) Failed(err error) { s.fail(err) }

// strangers handles everybody else's new connections.
type strangers struct{ *sockets }

func (s strangers) Queued(id uint32, p packet.Packet) {
	if win := s.judge(id, p); win != nil {
		s.wall.checkDelivered(win, p)
	}
}

// judge returns the window by which a packet was let in, if it was, and if it matters
// whether it arrives.
func (s strangers) judge(id uint32, p packet.Packet) *sequence.Window {
	w := s.wall
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.retired && s.stillNamed {
		_ = s.sockets.strangers.Refuse(id)
		return nil
	}
	if s.retired {
		_ = s.sockets.strangers.Repeat(id)
		return nil
	}
	f := w.policy
	door, _, win := f.doorFor(p)
	if win != nil && win.Spent() && win.Knows(p) && win.Admit(p, now) == sequence.AdmitAgain {
		// Of a connection with which the window was spent, sent again, as it was lost
		// behind the wall: else the kernel would have let it pass.
		_ = s.sockets.strangers.Accept(id)
		if win.Counts(p) {
			return win
		}
		return nil
	}
	if win != nil && !win.Spent() && win.Repeat() {
		_ = s.sockets.strangers.Repeat(id)
		return nil
	}
	_, waiting := s.hold.Next()
	if !s.hold.Add(id, p, now) {
		_ = s.sockets.strangers.Refuse(id)
		if door >= 0 {
			f.tallies[door].Add(audit.Refused)
		}
		return nil
	}
	if door >= 0 {
		f.tallies[door].held++
	}
	if !waiting {
		w.wakeHousekeeping()
	}
	return nil
}

func (s strangers) Unreadable(id uint32) {
	s.wall.mu.Lock()
	defer s.wall.mu.Unlock()
	_ = s.sockets.strangers.Refuse(id)
}

func (s strangers) Failed(err error) { s.fail(err) }
