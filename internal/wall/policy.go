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

// policy decides about packets: a configuration, as it is effective at a time, with the
// attempts and counters at its doors. A reload makes a new policy. When only the
// sequences change with time, the new policy shares everything else with the former one.
type policy struct {
	wall    *Wall
	config  *effective.Config
	reasons map[string]nft.LogReason
	ids     []int // by door: its id in Wall.windows
	locks   []lock
	locksOf [][]int // by door: indexes in locks

	// Guarded by the wall's mu.
	stale     bool                // installing the configuration has failed; to be retried
	tracker   *sequence.Tracker   // its locks have the indexes of locks
	verifiers [][]method.Verifier // by door and method; nil where a method takes no datagrams
	tallies   []tally             // by door
}

// lock is a sequence that opens or closes a door.
type lock struct {
	door   int
	closes bool
	place  int // index in the door's Sequences, if it opens
	steps  []packet.Port
}

// tally counts the events at one door.
type tally struct {
	audit.Counts          // by kind; refusals: only of sources without a window
	exhausted      uint64 // refusals of sources with a window
	held, released uint64 // packets of sources without a window
}

// newPolicy returns the policy for a configuration that is effective at now.
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
		if !l.closes && d.Methods[d.Knocking()].Traits().Consumes { // the next sequence may be longer
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

// locksOf returns the locks of all doors, and the indexes of those of each door.
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

// inherit takes over the counters of the former policy, and its attempts at locks that
// are the same.
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

// attemptAt returns a source's furthest attempt to open a door, and the number of steps
// of that sequence. Known is false if there is no attempt.
func (f *policy) attemptAt(door int, source packet.Source) (furthest sequence.Attempt, steps int, known bool) {
	for _, l := range f.locksOf[door] {
		a, ok := f.tracker.Of(l, source)
		if ok && !f.locks[l].closes && (!known || a.Step > furthest.Step) {
			furthest, steps, known = a, len(f.locks[l].steps), true
		}
	}
	return furthest, steps, known
}

// keptWindows returns the windows of a table, which was read ago before, that stay open
// under this policy. Their door must still exist and divide addresses into sources as
// before, so that no source gets the window of another.
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

// hasSource reports whether there is a door of that name at which source is one source.
func (f *policy) hasSource(door string, source packet.Source) bool {
	i := f.doorNamed(door)
	return i >= 0 && f.config.Doors[i].SourcePrefix.Covers(source) && (source.Link != 0) == isLinkLocal(source.Addr())
}

// isLinkLocal reports whether an address means another host on each link.
func isLinkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

func (f *policy) doorNamed(name string) int { return f.config.Index(name) }

func (f *policy) guardsAny(s sessions.Session) bool { return len(f.config.At(s.Port)) > 0 }

// doorFor returns the door to which a new connection is attributed. Of the doors that
// guard its port, it is the first where the source has a window, else the first of all.
// Of several windows it prefers the one that has admitted this packet before, then one
// that is not spent. This is for counting and events only: the kernel has already decided
// which door admits the packet.
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

// guardsDestination reports whether a door that guards a packet's port also guards its
// destination address. A packet does not tell its incoming interface, nor which addresses
// are local to this host.
func guardsDestination(d *effective.Door, p packet.Packet) bool {
	return d.GuardsAt(p.Destination, true)
}

// admitted handles first packets of sources with an open window.
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
		e.Kind, e.Code, e.Reason = audit.Refused, audit.CodeDuplicate, "the same connection was admitted before"
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

// checkDelivered tells a window that an admitted packet was not delivered, which decides
// how a retransmission is treated. Rules of other tables may have dropped the packet.
func (w *Wall) checkDelivered(win *sequence.Window, p packet.Packet) {
	if tracked, err := w.edges.Tracked(p); err != nil || tracked {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	win.Lost(p, time.Now())
}

// maxPending is how many events of admitted sources are delayed to keep events in order.
// There is seldom more than one.
const maxPending = 1000

func (s admitted) Unreadable(id uint32) {
	s.wall.mu.Lock()
	defer s.wall.mu.Unlock()
	_ = s.sockets.admitted.Refuse(id)
}

func (s admitted) Failed(err error) { s.fail(err) }

// strangers handles first packets of sources without an open window.
type strangers struct{ *sockets }

func (s strangers) Queued(id uint32, p packet.Packet) {
	if win := s.judge(id, p); win != nil {
		s.wall.checkDelivered(win, p)
	}
}

// judge gives or delays the verdict on a packet. If a window admits the packet and it
// matters whether the packet is delivered, judge returns that window.
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
		// This is a retransmission of a connection that the spent window admitted: the
		// packet was lost behind the wall, or the kernel would have accepted it by
		// conntrack.
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
