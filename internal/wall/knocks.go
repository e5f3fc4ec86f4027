package wall

import (
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// knocks handles what the kernel has logged.
type knocks struct{ *sockets }

func (s knocks) Logged(prefix []byte, p packet.Packet, data []byte) {
	w := s.wall
	now := time.Now()
	w.mu.Lock()
	f := w.front
	notice, ok := f.notices[string(prefix)]
	if !ok { // logged by a rule that a reload has taken away
		w.mu.Unlock()
		return
	}
	if notice.Kind == ruleset.Sprayed {
		s.sprayed(f, p, now)
		return
	}
	d := &f.config.Doors[notice.Door]
	e := audit.Event{Time: now, Door: d.Name, Source: d.SourcePrefix.Of(p.Source), Port: p.Port}
	switch notice.Kind {
	case ruleset.Refused:
		f.tallies[notice.Door].refused++
		w.mu.Unlock()
		e.Kind = audit.Refused
		w.trail.Record(e)
	case ruleset.Trapped:
		s.trapped(f, notice.Door, e)
	case ruleset.Password:
		s.password(f, notice.Door, p, data, e)
	default:
		s.knocked(f, notice.Door, p, e)
	}
}

func (s knocks) Lost(n uint32) {
	s.wall.mu.Lock()
	s.wall.lost += uint64(n)
	s.wall.mu.Unlock()
}

func (s knocks) Failed(err error) { s.fail(err) }

// knocked handles a knock. It is called with mu held, and gives it up.
func (s knocks) knocked(f *front, door int, p packet.Packet, e audit.Event) {
	w := s.wall
	t := &f.tallies[door]
	idle := f.tracker.Len() == 0
	heard := s.heardAt(e.Time)
	which, out, over := f.knock(door, p, heard)
	if out.Progress == sequence.Early && s.backlog.IsZero() && !s.log.Drained() {
		s.backlog = heard
	}
	if out.Progress != sequence.Nothing {
		t.knocks++
	}
	if over.reason != sequence.NotEnded {
		t.resets++
	}
	opens := out.Progress == sequence.Completed && !f.locks[which].closes
	if opens {
		w.opening++
	}
	w.mu.Unlock()
	if idle {
		w.nudge()
	}

	if over.reason != sequence.NotEnded {
		reset := e
		reset.Kind, reset.Step, reset.Steps, reset.Reason = audit.Reset, over.step, over.steps, over.reason.String()
		w.trail.Record(reset)
	}
	if out.Progress == sequence.Nothing {
		return
	}
	e.Kind, e.Step, e.Steps = audit.Knock, out.Step, len(f.locks[which].steps)
	if f.locks[which].closes {
		e.Reason = "to close"
	}
	w.trail.Record(e)
	switch {
	case opens:
		w.undone(f, which, e, !s.log.Drained())
		w.mu.Lock()
		w.opening--
		w.mu.Unlock()
	case out.Progress == sequence.Completed:
		w.knockedShut(e)
	}
}

// ending is the end of an attempt that was not complete.
type ending struct {
	reason      sequence.Reason
	step, steps int
}

// knock takes note of a knock at those locks of a door whose it is. It returns which
// of them it has brought furthest, what it did there, and which attempt it has ended.
func (f *front) knock(door int, p packet.Packet, heard time.Time) (which int, out sequence.Outcome, over ending) {
	for _, i := range f.locksOf[door] {
		l := &f.locks[i]
		if !slices.Contains(l.steps, p.Port) {
			continue
		}
		o := f.tracker.Knock(i, p, heard)
		if o.Ended != sequence.NotEnded && f.tellsEnd(l, o.EndedAt) && o.EndedAt >= over.step {
			over = ending{o.Ended, o.EndedAt, len(l.steps)}
		}
		if f.isFurther(i, o, which, out, p) {
			which, out = i, o
		}
	}
	if out.Progress == sequence.Completed {
		// The last knock may be the first of another lock, and was not meant for that.
		for _, i := range f.locksOf[door] {
			if i != which {
				f.tracker.Forget(i, f.config.Doors[door].SourcePrefix.Of(p.Source))
			}
		}
	}
	return which, out, over
}

// isFurther reports whether a knock has done more at lock i than at another. If
// it completes both, as knocks that may overtake each other can, it was meant for
// the one whose order is nearer to that in which they came; if that does not tell,
// for the one that closes.
func (f *front) isFurther(i int, o sequence.Outcome, other int, than sequence.Outcome, p packet.Packet) bool {
	if o.Progress != sequence.Completed || than.Progress != sequence.Completed {
		return o.Progress == sequence.Completed ||
			than.Progress != sequence.Completed && o.Progress != sequence.Nothing && (than.Progress == sequence.Nothing || o.Step > than.Step)
	}
	source := f.config.Doors[f.locks[i].door].SourcePrefix.Of(p.Source)
	swapped, others := f.tracker.Swapped(i, source), f.tracker.Swapped(other, source)
	return swapped < others || swapped == others && f.locks[i].closes
}

// tellsEnd reports whether the end of an attempt is worth telling. At a door with
// several locks, a knock for one of them may look like the beginning at another.
func (f *front) tellsEnd(l *lock, step int) bool {
	return len(f.locksOf[l.door]) == 1 || !l.closes && step > 0
}

// undone opens a door one of whose locks is undone, unless it was by what is good
// once, and was used.
func (w *Wall) undone(f *front, which int, e audit.Event, othersWait bool) {
	l := &f.locks[which]
	d := &f.config.Doors[l.door]
	replay, err := w.useUp(d, l.place, e.Time)
	switch {
	case err != nil:
		w.notOpened(e, err)
	case replay:
		w.replayed(f, l.door, e)
	default:
		w.open(d, e, othersWait)
	}
	if d.OneTime != nil {
		w.turnTo(time.Now()) // to the next sequence of the list
		w.nudge()            // as that may have to be tried again
	}
}

// knockedShut closes the window of who has knocked for that.
func (w *Wall) knockedShut(e audit.Event) {
	if _, err := w.shut(e.Door, e.Source, "it has knocked to close it"); err != nil {
		e.Kind, e.Reason, e.Failed = audit.Closed, err.Error(), true
		w.trail.Record(e)
	}
}

// replayed takes note of what was used once, and came again.
func (w *Wall) replayed(f *front, door int, e audit.Event) {
	w.mu.Lock()
	f.tallies[door].replayed++
	w.mu.Unlock()
	e.Kind, e.Reason, e.Step, e.Steps = audit.Replayed, "", 0, 0
	w.trail.Record(e)
}

// sprayed ends all attempts of who has tried ports that nothing serves, and is trapped
// at all doors by the kernel. It is called with mu held, and gives it up.
func (s knocks) sprayed(f *front, p packet.Packet, now time.Time) {
	var ended []audit.Event
	for i := range f.config.Doors {
		d := &f.config.Doors[i]
		e := audit.Event{Time: now, Kind: audit.Trapped, Door: d.Name, Port: p.Port, Source: d.SourcePrefix.Of(p.Source), Reason: spraying}
		if f.endAttempts(i, &e) {
			f.tallies[i].trapped++
			ended = append(ended, e)
		}
	}
	s.wall.mu.Unlock()
	if len(ended) == 0 {
		source := packet.SourcePrefix{IPv4: 32, IPv6: 128}.Of(p.Source)
		ended = []audit.Event{{Time: now, Kind: audit.Trapped, Port: p.Port, Source: source, Reason: spraying}}
	}
	for _, e := range ended {
		s.wall.trail.Record(e)
	}
}

const spraying = "it tries ports that nothing serves"

// endAttempts forgets the attempts of an event's source at a door, and notes in the event
// how far the one had come that had come furthest. It reports whether one was under way.
func (f *front) endAttempts(door int, e *audit.Event) (underWay bool) {
	for _, l := range f.locksOf[door] {
		a, ok := f.tracker.Forget(l, e.Source)
		if !ok || a.Step == len(f.locks[l].steps) || e.Time.Sub(a.Started) > f.config.Doors[door].SequenceTimeout {
			continue
		}
		underWay = true
		if !f.locks[l].closes && a.Step >= e.Step {
			e.Step, e.Steps = a.Step, len(f.locks[l].steps)
		}
	}
	return underWay
}

// trapped ends the attempts of who has tried a trap. From then on the kernel keeps
// its knocks away. It is called with mu held, and gives it up.
func (s knocks) trapped(f *front, door int, e audit.Event) {
	f.tallies[door].trapped++
	f.endAttempts(door, &e)
	s.wall.mu.Unlock()
	e.Kind = audit.Trapped
	s.wall.trail.Record(e)
}
