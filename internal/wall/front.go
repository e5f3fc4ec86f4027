package wall

import (
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// front is what judges the packets: a configuration, and what is known of those
// who knock by it. A reload makes a new one.
type front struct {
	wall    *Wall
	config  *ruleset.Config
	notices map[string]ruleset.Notice
	ids     []int // of its doors, by which their windows are noted

	// Guarded by the wall's mu.
	tracker *sequence.Tracker
	tallies []tally // by door
}

// tally counts what happened at one door.
type tally struct {
	knocks, resets, opened, refreshed, closed, expired uint64
	accepted, exhausted, refused, held, released       uint64
}

func (w *Wall) newFront(c *ruleset.Config) *front {
	doors := make([]sequence.Door, len(c.Doors))
	for i, d := range c.Doors {
		doors[i] = sequence.Door{Steps: d.Sequence, Timeout: d.SequenceTimeout, Prefix: d.SourcePrefix}
	}
	f := &front{
		wall:    w,
		config:  c,
		notices: c.Notices(),
		tracker: sequence.NewTracker(doors, c.Wall.Reorder, c.Wall.MaxSources, time.Now()),
		tallies: make([]tally, len(c.Doors)),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range c.Doors {
		f.ids = append(f.ids, w.doorID(d.Name))
	}
	return f
}

// inherit goes on counting where the former front has stopped, and follows the
// attempts at those doors whose sequence is the same.
func (f *front) inherit(former *front) {
	for i, d := range former.config.Doors {
		if door := f.doorNamed(d.Name); door >= 0 {
			f.tallies[door] = former.tallies[i]
		}
	}
	f.tracker.Inherit(former.tracker, func(door int) int {
		was := &former.config.Doors[door]
		i := f.doorNamed(was.Name)
		if i < 0 {
			return -1
		}
		is := &f.config.Doors[i]
		if !slices.Equal(is.Sequence, was.Sequence) || is.SourcePrefix != was.SourcePrefix {
			return -1
		}
		return i
	})
}

// carriedOver returns those windows of a table that was read a while ago which
// stay open in this front: their doors still stand, and tell sources apart as
// they did, so that nobody inherits another's window.
func (f *front) carriedOver(found []ruleset.Window, ago time.Duration) []ruleset.Window {
	var windows []ruleset.Window
	for _, win := range found {
		win.Left -= ago
		if win.Left > 0 && f.tells(win.Door, win.Source) {
			windows = append(windows, win)
		}
	}
	return windows
}

// tells reports whether there is a door of that name, to which the source is one.
func (f *front) tells(door string, source packet.Source) bool {
	i := f.doorNamed(door)
	return i >= 0 && f.config.Doors[i].SourcePrefix.Of(source.Addr()) == source
}

func (f *front) doorNamed(name string) int {
	return slices.IndexFunc(f.config.Doors, func(d ruleset.Door) bool { return d.Name == name })
}

func (f *front) guardsAny(s sessions.Session) bool {
	return slices.ContainsFunc(f.config.Doors, func(d ruleset.Door) bool { return d.Guards(s.Port) })
}

// doorFor returns the door that a new connection is reckoned to: of those
// before its port the one where the source has a window, else the first. Of
// several windows it is the one that has admitted this very packet before, else
// one that is not spent. Which of the doors let it in is the kernel's decision,
// made already.
func (f *front) doorFor(p packet.Packet) (door int, source packet.Source, win *sequence.Window) {
	door = -1
	for i := range f.config.Doors {
		d := &f.config.Doors[i]
		if !guards(d, p) {
			continue
		}
		s := d.SourcePrefix.Of(p.Source)
		w := f.wall.windows.Get(f.ids[i], s)
		if w != nil && w.Spent() && w.Admit(p) == sequence.AdmitAgain {
			return i, s, w
		}
		if door < 0 || w != nil && (win == nil || win.Spent() && !w.Spent()) {
			door, source, win = i, s, w
		}
	}
	return door, source, win
}

// guards reports whether a door stands before where a packet goes, as far as a
// packet tells: not at which interface it came in, nor which addresses are this
// host's own.
func guards(d *ruleset.Door, p packet.Packet) bool {
	return d.Guards(p.Port) &&
		(len(d.To) == 0 || contains(d.To, p.Destination))
}

// knocks handles what the kernel has logged.
type knocks struct{ *sockets }

func (s knocks) Logged(prefix string, p packet.Packet) {
	w := s.wall
	now := time.Now()
	w.mu.Lock()
	f := w.front
	notice, ok := f.notices[prefix]
	if !ok { // logged by a rule that a reload has taken away
		w.mu.Unlock()
		return
	}
	d := &f.config.Doors[notice.Door]
	t := &f.tallies[notice.Door]
	e := audit.Event{Time: now, Door: d.Name, Source: d.SourcePrefix.Of(p.Source), Port: p.Port}
	if notice.Refused {
		t.refused++
		w.mu.Unlock()
		e.Kind = audit.Refused
		w.trail.Record(e)
		return
	}

	idle := f.tracker.Len() == 0
	heard := s.heardAt(now)
	out := f.tracker.Knock(notice.Door, p, heard)
	if out.Progress == sequence.Early && s.backlog.IsZero() && !s.log.Drained() {
		s.backlog = heard
	}
	if out.Progress != sequence.Nothing {
		t.knocks++
	}
	if out.Ended != sequence.NotEnded {
		t.resets++
	}
	if out.Progress == sequence.Completed {
		w.opening++
	}
	w.mu.Unlock()
	if idle {
		w.nudge()
	}

	e.Steps = len(d.Sequence)
	if out.Ended != sequence.NotEnded {
		reset := e
		reset.Kind, reset.Step, reset.Reason = audit.Reset, out.EndedAt, out.Ended.String()
		w.trail.Record(reset)
	}
	if out.Progress == sequence.Nothing {
		return
	}
	e.Kind, e.Step = audit.Knock, out.Step
	w.trail.Record(e)
	if out.Progress == sequence.Completed {
		if w.open(d.Name, e.Source, d.Window, e) == nil { // else the trail says why
			w.metrics.opening.Observe(time.Since(now).Seconds())
		}
		w.mu.Lock()
		w.opening--
		w.mu.Unlock()
	}
}

func (s knocks) Lost(n uint32) {
	s.wall.mu.Lock()
	s.wall.lost += uint64(n)
	s.wall.mu.Unlock()
}

func (s knocks) Failed(err error) { s.fail(err) }

// admitted handles new connections of sources that have a window.
type admitted struct{ *sockets }

func (s admitted) Queued(id uint32, p packet.Packet) {
	w := s.wall
	now := time.Now()
	admission := sequence.AdmitUnknown
	w.mu.Lock()
	f := w.front
	door, source, win := f.doorFor(p)
	if win != nil {
		admission = win.Admit(p)
	}
	spent := win != nil && win.Spent()
	if door >= 0 {
		if admission == sequence.Exhausted {
			f.tallies[door].exhausted++
		} else if admission != sequence.AdmitAgain {
			f.tallies[door].accepted++
		}
	}
	if admission == sequence.Exhausted {
		_ = s.sockets.admitted.Refuse(id)
	} else {
		_ = s.sockets.admitted.Accept(id)
	}
	w.mu.Unlock()
	w.metrics.admitted.Observe(time.Since(now).Seconds())
	if door < 0 || admission == sequence.AdmitAgain {
		return
	}
	e := audit.Event{Time: now, Kind: audit.Accepted, Door: f.config.Doors[door].Name, Source: source, Port: p.Port}
	if admission == sequence.Exhausted {
		e.Kind, e.Reason = audit.Refused, "max_connections is reached"
	}
	w.trail.Record(e)
	if spent && admission == sequence.AdmitNew {
		w.spend(e.Door, source)
	}
}

func (s admitted) Unreadable(id uint32) {
	s.wall.mu.Lock()
	defer s.wall.mu.Unlock()
	_ = s.sockets.admitted.Refuse(id)
}

func (s admitted) Failed(err error) { s.fail(err) }

// strangers handles everybody else's new connections.
type strangers struct{ *sockets }

func (s strangers) Queued(id uint32, p packet.Packet) {
	w := s.wall
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.retired && s.stillNamed {
		_ = s.sockets.strangers.Refuse(id)
		return
	}
	if s.retired {
		_ = s.sockets.strangers.Repeat(id)
		return
	}
	f := w.front
	door, _, win := f.doorFor(p)
	if win != nil && win.Spent() && win.Admit(p) == sequence.AdmitAgain {
		// The SYN of a connection with which the window was spent, sent again.
		_ = s.sockets.strangers.Accept(id)
		return
	}
	if win != nil && !win.Spent() && win.Repeat() {
		_ = s.sockets.strangers.Repeat(id)
		return
	}
	_, waiting := s.hold.Next()
	if !s.hold.Add(id, p, now) {
		_ = s.sockets.strangers.Refuse(id)
		if door >= 0 {
			f.tallies[door].refused++
		}
		return
	}
	if door >= 0 {
		f.tallies[door].held++
	}
	if !waiting {
		w.nudge()
	}
}

func (s strangers) Unreadable(id uint32) {
	s.wall.mu.Lock()
	defer s.wall.mu.Unlock()
	_ = s.sockets.strangers.Refuse(id)
}

func (s strangers) Failed(err error) { s.fail(err) }
