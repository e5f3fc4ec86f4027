package wall

import (
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// knocks handles what the kernel has logged.
type knocks struct{ *sockets }

// Logged judges a packet with mu held, and then, without it, writes the events and opens
// or closes what the packet opens or closes.
func (s knocks) Logged(prefix []byte, p packet.Packet, data []byte) {
	w := s.wall
	now := time.Now()
	var v decision
	w.mu.Lock()
	f := w.policy
	reason, ok := f.reasons[string(prefix)] // else a reload has removed the rule
	switch {
	case !ok:
	case reason.Kind == nft.Sprayed:
		v.sprayed = f.sprayed(p, now)
	default:
		d := &f.config.Doors[reason.Door]
		v.door = reason.Door
		v.base = audit.Event{Time: now, Door: d.Name, Source: d.SourcePrefix.Of(p.Source), Port: p.Port}
		switch reason.Kind {
		case nft.Refused:
			f.refused(&v)
		case nft.Trapped:
			f.trapped(&v)
		case nft.Datagram:
			f.datagram(&v, reason.Method, p, data)
		default:
			s.knocked(f, &v, p)
		}
	}
	if v.opens {
		w.opening++
	}
	w.mu.Unlock()
	s.carryOut(f, &v)
}

// decision is what a logged packet comes to.
type decision struct {
	door    int
	base    audit.Event    // what the events below have in common
	events  [2]audit.Event // to be written, in this order
	n       int            // how many of them there are
	sprayed []audit.Event  // likewise
	begins  bool           // the first attempt that is remembered
	opens   bool           // it opens the door, by
	lock    int            // this lock, or by a datagram
	once    method.Meaning // a datagram's, which is good once; Action tells whether there is one
	closes  bool           // it closes the door
}

// add adds an event.
func (v *decision) add(e audit.Event) {
	v.events[v.n] = e
	v.n++
}

// carryOut does what a decision says. It is called without mu.
func (s knocks) carryOut(f *policy, v *decision) {
	w := s.wall
	if v.begins {
		w.wakeHousekeeping()
	}
	for _, e := range v.sprayed {
		w.trail.Record(e)
	}
	for _, e := range v.events[:v.n] {
		w.trail.Record(e)
	}
	switch {
	case v.once.Action != method.Nothing:
		s.useDatagram(f, v)
	case v.opens:
		w.openCompleted(f, v.lock, v.base, !s.log.Drained())
	case v.closes:
		w.closeByKnock(v.base)
	}
	if v.opens {
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

// refused counts a packet that the closed door has answered. It is called with mu held, as
// are those below that judge a packet.
func (f *policy) refused(v *decision) {
	f.tallies[v.door].Add(audit.Refused)
	e := v.base
	e.Kind, e.Code = audit.Refused, audit.CodeNoWindow
	v.add(e)
}

// knocked judges a knock.
func (s knocks) knocked(f *policy, v *decision, p packet.Packet) {
	t := &f.tallies[v.door]
	v.begins = f.tracker.Len() == 0
	arrived := s.arrivalOf(v.base.Time)
	meant := f.knock(v.door, p, arrived, v.base.Time)
	out, over := meant.out, meant.over
	if meant.early && s.backlog.IsZero() && !s.log.Drained() {
		s.backlog = arrived
	}
	if over.reason != sequence.NotEnded {
		t.Add(audit.Reset)
		reset := v.base
		reset.Kind, reset.Step, reset.Steps = audit.Reset, over.step, over.steps
		reset.Code, reset.Reason = endCodes[over.reason], over.reason.String()
		v.add(reset)
	}
	l := &f.locks[meant.lock]
	if out.Progress != sequence.Nothing {
		t.Add(audit.Knock)
		e := &v.base
		e.Kind, e.Code, e.Step, e.Steps = audit.Knock, audit.CodeSequence, out.Step, len(l.steps)
		if l.closes {
			e.Code, e.Reason = audit.CodeCloseSequence, "to close"
		}
		v.add(*e)
	}
	v.opens, v.lock = out.Progress == sequence.Completed && !l.closes, meant.lock
	v.closes = meant.closesDoor
}

// datagram judges a datagram that may open the door by itself.
func (f *policy) datagram(v *decision, by int, p packet.Packet, data []byte) {
	check := f.verifiers[v.door][by]
	if check == nil { // the secret cannot be read
		return
	}
	meant := check.Verify(data, p.Source, v.base.Time)
	e := v.base
	e.Kind, e.Code, e.Reason = audit.Reset, meant.Code, meant.Reason
	if meant.Action != method.Nothing {
		e.Kind = audit.Knock
		v.base.Kind, v.base.Code = e.Kind, e.Code
		v.opens, v.once = true, meant
	}
	f.tallies[v.door].Add(e.Kind)
	v.add(e)
}

// useDatagram opens or closes a door by a datagram, unless it was used before.
func (s knocks) useDatagram(f *policy, v *decision) {
	w := s.wall
	d := &f.config.Doors[v.door]
	replay, err := w.replayGuard.take(d.Name, v.once.Once, v.base.Time)
	switch {
	case err != nil:
		w.notOpened(v.base, codeOfUse(err), err)
	case replay:
		w.replayed(f, v.door, v.base)
	case v.once.Action == method.Close:
		w.closeByKnock(v.base)
	default:
		w.open(d, v.base, !s.log.Drained())
	}
}

// endCodes are the codes of attempts that are over before they were complete.
var endCodes = [...]audit.Code{sequence.WrongOrder: audit.CodeWrongOrder, sequence.TooLate: audit.CodeTooLate}

// ending is the end of an attempt that was not complete.
type ending struct {
	reason      sequence.Reason
	step, steps int
}

// meaning is what a knock at a door was meant for.
type meaning struct {
	lock       int              // that it was meant for
	out        sequence.Outcome // what it did there
	over       ending           // the attempt that it has ended
	early      bool             // it was early at any lock
	closesDoor bool             // it was the last of those that close the door, which may be open
}

// knock takes note of a knock at those locks of a door whose it is.
//
// A sequence that closes is often the opening turned round, and so the knocks of the
// one are heard at the other, too. Where the door is not open, it means nothing that
// such a sequence is complete.
func (f *policy) knock(door int, p packet.Packet, heard, now time.Time) (m meaning) {
	source := f.config.Doors[door].SourcePrefix.Of(p.Source)
	closes, closing := -1, sequence.Outcome{}
	known := false // by a lock at which it is no progress
	var wrong ending
	for _, i := range f.locksOf[door] {
		l := &f.locks[i]
		if !slices.Contains(l.steps, p.Port) {
			continue
		}
		o := f.tracker.Knock(i, p, heard)
		m.early = m.early || o.Progress == sequence.Early
		known = known || o.Progress == sequence.Nothing && o.Ended == sequence.NotEnded
		end := ending{o.Ended, o.EndedAt, len(l.steps)}
		if o.Ended != sequence.NotEnded && f.reportsEnd(l, o.EndedAt) && o.EndedAt >= m.over.step {
			m.over = end
		}
		if o.Ended != sequence.NotEnded && !l.closes {
			wrong = end
		}
		if l.closes {
			closes, closing = i, o
		} else if f.isFurther(i, o, m.lock, m.out, source) {
			m.lock, m.out = i, o
		}
	}
	open := closing.Progress != sequence.Nothing && f.isOpen(door, source, now)
	completes := m.out.Progress == sequence.Completed
	switch {
	case closing.Progress == sequence.Completed && !(completes && f.isMeantToOpen(closes, m.lock, source, open)):
		f.closedFor(door, closes, p, heard, open)
		m.closesDoor = open || now.Before(f.wall.uncertainUntil)
		if open {
			m.lock, m.out = closes, closing
		} else if a, ok := f.tracker.Of(m.lock, source); completes || !ok || a.Doubted {
			m.out = sequence.Outcome{}
		}
	case completes:
		// The last knock may be the first of another lock, and was not meant for that.
		for _, i := range f.locksOf[door] {
			if i != m.lock {
				f.tracker.Forget(i, source)
			}
		}
	case closing.Progress == sequence.Nothing:
	case m.out.Progress == sequence.Nothing, closing.Step > m.out.Step && (open || m.out.Progress != sequence.Advanced):
		m.lock, m.out = closes, closing
	}
	if m.out.Progress == sequence.Nothing && m.over.reason == sequence.NotEnded && !known {
		m.over = wrong // or nobody would hear of a knock that was wrong at each lock
	}
	return m
}

// isFurther reports whether a knock has done more at lock i than at another. If
// it completes both, as knocks that may overtake each other can, it was meant for
// the one whose order is nearer to that in which they came.
func (f *policy) isFurther(i int, o sequence.Outcome, other int, than sequence.Outcome, source packet.Source) bool {
	if o.Progress != sequence.Completed || than.Progress != sequence.Completed {
		return o.Progress == sequence.Completed ||
			than.Progress != sequence.Completed && o.Progress != sequence.Nothing && (than.Progress == sequence.Nothing || o.Step > than.Step)
	}
	return f.tracker.Swapped(i, source) < f.tracker.Swapped(other, source)
}

// isMeantToOpen reports whether a knock that completes both a close and a lock that opens
// was meant for the latter: if the order of that one is nearer to that in which they
// came. If that does not tell, an open door is to be closed.
func (f *policy) isMeantToOpen(closes, opens int, source packet.Source, open bool) bool {
	swapped, others := f.tracker.Swapped(opens, source), f.tracker.Swapped(closes, source)
	return swapped < others || swapped == others && !open
}

// closedFor takes note of a complete close at the attempts to open the door. It ends none
// of those that are in the exact order: who goes on opens the door. But what was swapped
// more than the close was meant to close, or who closes a door twice would open it. The
// last knock of the close may still be the first of an opening.
//
// Attempts that are no more than the close, as it seems, are doubted.
func (f *policy) closedFor(door, closes int, p packet.Packet, heard time.Time, wasOpen bool) {
	source := f.config.Doors[door].SourcePrefix.Of(p.Source)
	for _, i := range f.locksOf[door] {
		l := &f.locks[i]
		a, ok := f.tracker.Of(i, source)
		if l.closes || !ok || a.Step == len(l.steps) {
			continue
		}
		first := l.steps[0] == p.Port
		if f.tracker.Swapped(i, source) > f.tracker.Swapped(closes, source) {
			f.tracker.Forget(i, source)
			if !first {
				continue
			}
			f.tracker.Knock(i, p, heard)
			a.Step = 1
		}
		if wasOpen || first && a.Step == 1 {
			f.tracker.Doubt(i, source)
		}
	}
}

// isOpen reports whether a door is open for a source, or about to be, as far as is
// known. It is called with mu held.
func (f *policy) isOpen(door int, source packet.Source, now time.Time) bool {
	win := f.wall.windows.Get(f.ids[door], source)
	return win != nil && !win.Spent() && win.Until.After(now) ||
		slices.ContainsFunc(f.wall.openings, func(o *opening) bool { return o.source == source && o.door == f.config.Doors[door].Name })
}

// tellsEnd reports whether the end of an attempt is worth telling. At a door with
// several locks, a knock for one of them may look like the beginning at another.
func (f *policy) reportsEnd(l *lock, step int) bool {
	return len(f.locksOf[l.door]) == 1 || !l.closes && step > 0
}

// openCompleted opens a door one of whose locks is undone, unless it was by what is good
// once, and was used.
func (w *Wall) openCompleted(f *policy, which int, e audit.Event, othersWait bool) {
	l := &f.locks[which]
	d := &f.config.Doors[l.door]
	replay, err := w.useUp(d, l.place, e.Time)
	switch {
	case err != nil:
		w.notOpened(e, codeOfUse(err), err)
	case replay:
		w.replayed(f, l.door, e)
	default:
		w.open(d, e, othersWait)
	}
	if d.Methods[d.Knocking()].Traits().Consumes {
		w.applyEffective(time.Now()) // to the next sequence
		w.wakeHousekeeping()         // as that may have to be tried again
	}
}

// closeByKnock closes the window of who has knocked for that.
func (w *Wall) closeByKnock(e audit.Event) {
	if _, err := w.closeWindow(e.Door, e.Source, e.Code, "it has knocked to close it"); err != nil {
		e.Kind, e.Code, e.Reason, e.Failed = audit.Closed, audit.CodeNotClosed, err.Error(), true
		w.trail.Record(e)
	}
}

// replayed takes note of what was used once, and came again.
func (w *Wall) replayed(f *policy, door int, e audit.Event) {
	w.mu.Lock()
	f.tallies[door].Add(audit.Replayed)
	w.mu.Unlock()
	e.Kind, e.Reason, e.Step, e.Steps = audit.Replayed, "", 0, 0
	w.trail.Record(e)
}

// sprayed ends all attempts of a source that has tried ports that nothing serves. The
// kernel has trapped it at all doors.
func (f *policy) sprayed(p packet.Packet, now time.Time) (ended []audit.Event) {
	e := audit.Event{Time: now, Kind: audit.Trapped, Port: p.Port, Code: audit.CodeSpray, Reason: sprayReason}
	for i := range f.config.Doors {
		d := &f.config.Doors[i]
		at := e
		at.Door, at.Source = d.Name, d.SourcePrefix.Of(p.Source)
		if f.endAttempts(i, &at) {
			f.tallies[i].Add(audit.Trapped)
			ended = append(ended, at)
		}
	}
	if len(ended) == 0 {
		e.Source = packet.SourcePrefix{IPv4: 32, IPv6: 128}.Of(p.Source)
		ended = []audit.Event{e}
	}
	return ended
}

// spraying is the reason of events with the code of a spray.
const sprayReason = "it tries ports that nothing serves"

// endAttempts forgets the attempts of an event's source at a door, and notes in the event
// how far the one had come that had come furthest. It reports whether one was under way.
func (f *policy) endAttempts(door int, e *audit.Event) (underWay bool) {
	for _, l := range f.locksOf[door] {
		a, ok := f.tracker.Forget(l, e.Source)
		if !ok || a.Step == len(f.locks[l].steps) || e.Time.Sub(a.Started) > f.config.Doors[door].SequenceTimeout {
			continue
		}
		underWay = true
		if !a.Doubted && !f.locks[l].closes && a.Step >= e.Step {
			e.Step, e.Steps = a.Step, len(f.locks[l].steps)
		}
	}
	return underWay
}

// trapped ends the attempts of a source that has tried a trap. The kernel keeps its knocks
// away from then on.
func (f *policy) trapped(v *decision) {
	f.tallies[v.door].Add(audit.Trapped)
	e := v.base
	f.endAttempts(v.door, &e)
	e.Kind, e.Code = audit.Trapped, audit.CodeTrap
	v.add(e)
}

// useUp remembers that the sequence at a place of a door was completed, and reports whether
// it is good once and was completed before.
func (w *Wall) useUp(d *effective.Door, place int, now time.Time) (replay bool, err error) {
	at := d.Knocking()
	return d.Methods[at].(method.Sequences).Use(d.States[at], place, now, func(u method.Use, now time.Time) (bool, error) {
		return w.replayGuard.take(d.Name, u, now)
	})
}
