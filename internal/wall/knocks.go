package wall

import (
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// knocks handles packets that the kernel has logged.
type knocks struct{ *sockets }

// Logged decides about a packet with mu held. Then, without mu, it writes the events and
// opens or closes the door.
func (s knocks) Logged(prefix []byte, p packet.Packet, data []byte) {
	ps := s.packets
	now := time.Now()
	var v decision
	ps.mu.Lock()
	f := ps.policy
	reason, ok := f.reasons[string(prefix)] // if not, a reload has removed the rule
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
			s.datagram(f, &v, reason.Method, p, data)
		default:
			s.knocked(f, &v, p)
		}
	}
	if v.opens {
		ps.windows.queue.complete()
	}
	ps.mu.Unlock()
	s.carryOut(f, &v)
}

// decision is the result of a logged packet.
type decision struct {
	door    int
	base    audit.Event    // the fields that the events have in common
	events  [2]audit.Event // to write, in this order
	n       int            // number of events
	sprayed []audit.Event  // to write, too
	begins  bool           // it may begin the only attempt of the tracker
	opens   bool           // it opens the door
	lock    int            // the lock that it completes, unless it is a datagram
	meant   method.Meaning // of a datagram; no Action: it opens and closes nothing
	closes  bool           // it closes the door
}

// add adds an event.
func (v *decision) add(e audit.Event) {
	v.events[v.n] = e
	v.n++
}

// carryOut does what a decision says. It is called without mu.
func (s knocks) carryOut(f *policy, v *decision) {
	ps := s.packets
	if v.begins {
		ps.wake()
	}
	for _, e := range v.sprayed {
		ps.trail.Record(e)
	}
	switch {
	case v.meant.Action != method.Nothing:
		s.useDatagram(f, v)
	case v.opens:
		ps.openCompleted(f, v, !s.log.Drained())
	default:
		ps.record(v.events[:v.n])
		if v.closes {
			ps.closeByKnock(v.base)
		}
	}
	if v.opens {
		ps.windows.queue.settle()
	}
}

func (s knocks) Lost(n uint32) {
	s.packets.losses.add(uint64(n))
}

func (s knocks) Failed(err error) { s.fail(err) }

// refused counts a packet that the rules of a closed door have refused. Like the methods
// below that decide about a packet, it is called with mu held.
func (f *policy) refused(v *decision) {
	f.tally(v.door).Add(audit.Refused)
	e := v.base
	e.Kind, e.Code = audit.Refused, audit.CodeNoWindow
	v.add(e)
}

// knocked decides about a knock.
func (s knocks) knocked(f *policy, v *decision, p packet.Packet) {
	t := f.tally(v.door)
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
		} else if out.Progress == sequence.Early {
			e.Reason = earlyReason
		}
		v.add(*e)
	}
	v.opens, v.lock = out.Progress == sequence.Completed && !l.closes, meant.lock
	v.closes = meant.closesDoor
}

// datagram decides about a datagram that may open or close the door by itself, or leaves
// that to a goroutine that verifies it.
func (s knocks) datagram(f *policy, v *decision, by int, p packet.Packet, data []byte) {
	check := f.verifiers[v.door][by]
	if check == nil { // the secret is unreadable
		return
	}
	slow, isSlow := check.(method.SlowVerifier)
	if !isSlow {
		f.judge(v, check.Verify(data, p.Source, v.base.Time))
		return
	}
	if slow.Screen(data) {
		s.packets.verifications.add(s, f, slow, v, p.Source, data)
	}
}

// judge decides about a datagram by its meaning.
func (f *policy) judge(v *decision, meant method.Meaning) {
	if meant.Code == "" {
		return
	}
	v.base.Person, v.base.Key = meant.Person.Name, meant.Person.Key
	if meant.Source.IsValid() {
		v.base.Source = f.config.Doors[v.door].SourcePrefix.Of(meant.Source)
	}
	e := v.base
	e.Kind, e.Code, e.Reason = audit.Reset, meant.Code, meant.Reason
	if meant.Action != method.Nothing {
		e.Kind = audit.Knock
		v.base.Kind, v.base.Code = e.Kind, e.Code
		v.opens, v.meant = true, meant
	}
	f.tally(v.door).Add(e.Kind)
	v.add(e)
}

// useDatagram opens or closes a door by a datagram, unless the datagram was used before.
func (s knocks) useDatagram(f *policy, v *decision) {
	ps := s.packets
	d := &f.config.Doors[v.door]
	replay, err := ps.replays.take(d.Name, v.meant.Once, v.base.Time)
	if err != nil || replay || v.meant.Action == method.Close {
		ps.record(v.events[:v.n])
	}
	switch {
	case err != nil:
		ps.trail.Record(notOpened(v.base, codeOfUse(err), err))
		return
	case replay:
		ps.replayed(f, v.door, v.base)
		return
	}
	if v.meant.Once.Ordered {
		ps.windows.changes.use(v.meant.Once)
	}
	if v.meant.Action == method.Close {
		ps.closeByKnock(v.base)
		return
	}
	ps.windows.open(&opening{door: d.Name, source: v.base.Source, length: windowOf(d, v.meant), opener: method.Opener{Person: v.meant.Person},
		knock: slices.Clone(v.events[:v.n]), why: v.base}, !s.log.Drained())
}

// windowOf returns how long the window for a datagram is open.
func windowOf(d *effective.Door, meant method.Meaning) time.Duration {
	most := meant.Most
	if most == 0 {
		most = d.Window
	}
	if meant.Window == 0 {
		return most
	}
	return max(min(meant.Window, most), ruleset.MinWindow)
}

// endCodes are the audit codes of attempts that ended before they were complete.
var endCodes = [...]audit.Code{sequence.WrongOrder: audit.CodeWrongOrder, sequence.TooLate: audit.CodeTooLate}

// ending is the end of an incomplete attempt.
type ending struct {
	reason      sequence.Reason
	step, steps int
}

// meaning is the result of a knock at a door.
type meaning struct {
	lock       int              // the lock to which the knock is attributed
	out        sequence.Outcome // its effect on that lock
	over       ending           // the attempt that it ended
	early      bool             // it came before its turn at any lock
	closesDoor bool             // it completes the close sequence, and the door may be open
}

// knock gives a knock to those locks of a door whose sequence has its port, and decides
// to which lock it is attributed.
//
// A close sequence is often the reverse of the opening one, so the knocks of one count at
// the other, too. A complete close sequence means nothing where the door is not open.
func (f *policy) knock(door int, p packet.Packet, heard, now time.Time) meaning {
	source := f.config.Doors[door].SourcePrefix.Of(p.Source)
	m := f.distribute(door, p, source, heard)
	closing := m.closing.Progress != sequence.Nothing
	open := closing && f.packets.windows.isOpen(f, door, source, now)
	completes := m.out.Progress == sequence.Completed
	switch {
	case m.closing.Progress == sequence.Completed && !(completes && f.isMeantToOpen(m.closes, m.lock, source, open)):
		f.closedFor(door, m.closes, p, heard, open)
		m.closesDoor = open || f.packets.windows.isUncertain(now)
		if open {
			m.lock, m.out = m.closes, m.closing
		} else if a, ok := f.tracker.Of(m.lock, source); completes || !ok || a.Doubted {
			m.out = sequence.Outcome{}
		}
	case completes:
		// The last knock may also begin the sequence of another lock. It was not meant
		// for that.
		for _, i := range f.locksOf[door] {
			if i != m.lock {
				f.tracker.Forget(i, source)
			}
		}
	case !closing:
	case m.out.Progress == sequence.Nothing, m.closing.Step > m.out.Step && (open || m.out.Progress != sequence.Advanced):
		m.lock, m.out = m.closes, m.closing
	}
	if m.out.Progress == sequence.Nothing && m.over.reason == sequence.NotEnded && !m.known {
		m.over = m.wrong // else no event would say that the knock was wrong at every lock
	}
	return m.meaning
}

// effects are what a knock has done at the locks of a door. Its meaning is as if there
// were no close sequence.
type effects struct {
	meaning
	closes  int              // the lock that closes the door, if the knock is of its sequence
	closing sequence.Outcome // the effect on that lock
	known   bool             // a lock has the knock already: no progress, and no error
	wrong   ending           // the attempt to open the door that it ended
}

// distribute gives a knock to the locks of a door that have its port.
func (f *policy) distribute(door int, p packet.Packet, source packet.Source, heard time.Time) (m effects) {
	for _, i := range f.locksOf[door] {
		l := &f.locks[i]
		if !slices.Contains(l.steps, p.Port) {
			continue
		}
		o := f.tracker.Knock(i, p, heard)
		m.early = m.early || o.Progress == sequence.Early
		m.known = m.known || o.Progress == sequence.Nothing && o.Ended == sequence.NotEnded
		end := ending{o.Ended, o.EndedAt, len(l.steps)}
		if o.Ended != sequence.NotEnded && f.reportsEnd(l, o.EndedAt) && o.EndedAt >= m.over.step {
			m.over = end
		}
		if o.Ended != sequence.NotEnded && !l.closes {
			m.wrong = end
		}
		if l.closes {
			m.closes, m.closing = i, o
		} else if f.isFurther(i, o, m.lock, m.out, source) {
			m.lock, m.out = i, o
		}
	}
	return m
}

// isFurther reports whether a knock has had more effect at lock i than at another one.
// Knocks that may overtake each other can complete both. Then it is attributed to the
// lock whose order is nearer to the order of arrival.
func (f *policy) isFurther(i int, o sequence.Outcome, other int, than sequence.Outcome, source packet.Source) bool {
	if o.Progress != sequence.Completed || than.Progress != sequence.Completed {
		return o.Progress == sequence.Completed ||
			than.Progress != sequence.Completed && o.Progress != sequence.Nothing && (than.Progress == sequence.Nothing || o.Step > than.Step)
	}
	return f.tracker.Swapped(i, source) < f.tracker.Swapped(other, source)
}

// isMeantToOpen reports whether a knock that completes both the close lock and an opening
// lock was meant to open: whether the opening order is nearer to the order of arrival. If
// both are equally near, an open door is to be closed.
func (f *policy) isMeantToOpen(closes, opens int, source packet.Source, open bool) bool {
	swapped, others := f.tracker.Swapped(opens, source), f.tracker.Swapped(closes, source)
	return swapped < others || swapped == others && !open
}

// closedFor updates the attempts to open a door after a complete close sequence. Attempts
// in the exact order go on, so that a client that continues opens the door. Attempts with
// more swapped knocks than the close sequence are forgotten: they were meant to close,
// and a client that closes a door twice would open it otherwise. The last knock of the
// close sequence may still be the first of an opening.
//
// Attempts that seem to consist of the close sequence only are marked as doubted.
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

// reportsEnd reports whether the end of an attempt is worth an event. At a door with
// several locks, a knock for one of them may look like the beginning at another.
func (f *policy) reportsEnd(l *lock, step int) bool {
	return len(f.locksOf[l.door]) == 1 || !l.closes && step > 0
}

// openCompleted opens a door after a lock of it was completed, unless its sequence is
// valid once and was used before.
func (ps *packets) openCompleted(f *policy, v *decision, othersWait bool) {
	l, e := &f.locks[v.lock], v.base
	d := &f.config.Doors[l.door]
	replay, err := ps.useUp(d, l.place, e.Time)
	if err != nil || replay {
		ps.record(v.events[:v.n])
	}
	switch {
	case err != nil:
		ps.trail.Record(notOpened(e, codeOfUse(err), err))
	case replay:
		ps.replayed(f, l.door, e)
	default:
		ps.windows.open(&opening{door: d.Name, source: e.Source, length: d.Window, knock: slices.Clone(v.events[:v.n]), why: e}, othersWait)
	}
	if d.Methods[d.Knocking()].Traits().Consumes {
		ps.consumed() // the next sequence comes into force
	}
}

// closeByKnock closes the window of a source that has knocked to close it.
func (ps *packets) closeByKnock(e audit.Event) {
	if _, err := ps.windows.close(e.Door, e.Source, audit.Event{Code: e.Code, Reason: "it has knocked to close it"}); err != nil {
		e.Kind, e.Code, e.Reason, e.Failed = audit.Closed, audit.CodeNotClosed, err.Error(), true
		ps.trail.Record(e)
	}
}

// replayed records that a used password or sequence came again.
func (ps *packets) replayed(f *policy, door int, e audit.Event) {
	ps.mu.Lock()
	f.tally(door).Add(audit.Replayed)
	ps.mu.Unlock()
	e.Kind, e.Reason, e.Step, e.Steps = audit.Replayed, "", 0, 0
	ps.trail.Record(e)
}

// sprayed ends all attempts of a source that has tried ports without a service. The
// kernel has trapped it at all doors already.
func (f *policy) sprayed(p packet.Packet, now time.Time) (ended []audit.Event) {
	e := audit.Event{Time: now, Kind: audit.Trapped, Port: p.Port, Code: audit.CodeSpray, Reason: sprayReason}
	for i := range f.config.Doors {
		d := &f.config.Doors[i]
		at := e
		at.Door, at.Source = d.Name, d.SourcePrefix.Of(p.Source)
		if f.endAttempts(i, &at) {
			f.tally(i).Add(audit.Trapped)
			ended = append(ended, at)
		}
	}
	if len(ended) == 0 {
		e.Source = packet.SourcePrefix{IPv4: 32, IPv6: 128}.Of(p.Source)
		ended = []audit.Event{e}
	}
	return ended
}

// earlyReason is the reason of events of knocks that came before their turn. They count if the
// others follow within reorder.
const earlyReason = "before its turn"

// sprayReason is the reason of events with [audit.CodeSpray].
const sprayReason = "it tries ports that nothing serves"

// endAttempts forgets the attempts of an event's source at a door. It sets the steps of
// the event to those of the furthest attempt, and reports whether one was under way.
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

// trapped ends the attempts of a source that has tried a trap. From then on the kernel
// drops its knocks.
func (f *policy) trapped(v *decision) {
	f.tally(v.door).Add(audit.Trapped)
	e := v.base
	f.endAttempts(v.door, &e)
	e.Kind, e.Code = audit.Trapped, audit.CodeTrap
	v.add(e)
}

// useUp records that the sequence at a place of a door was completed. It reports whether
// that sequence is valid once and was completed before.
func (ps *packets) useUp(d *effective.Door, place int, now time.Time) (replay bool, err error) {
	at := d.Knocking()
	return d.Methods[at].(method.Sequences).Use(d.States[at], place, now, func(u method.Use, now time.Time) (bool, error) {
		return ps.replays.take(d.Name, u, now)
	})
}
