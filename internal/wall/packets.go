package wall

import (
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// packets decides about the packets that the kernel logs and queues: knocks, and the first
// packets of connections. Its handlers are in knocks.go and verdicts.go.
type packets struct {
	edges         *Edges
	trail         *audit.Summer
	metrics       *metrics
	windows       *windows
	replays       *replayGuard
	losses        *losses
	verifications *verifications
	doors         *doorIDs
	wake          func()      // housekeeping
	consumed      func()      // a sequence that is valid once was used
	fail          func(error) // packets cannot be read any more

	// mu is held while packets get their verdicts, so that the verdicts are given in order
	// and agree with the policy. It guards the fields below it, and what is in a policy or
	// in sockets.
	mu      sync.Mutex
	policy  *policy   // nil before the first Apply; writers hold change, too
	sockets *sockets  // those that the table names; likewise
	tallies []tally   // by the id of a door
	since   time.Time // when the wall was installed
	evicted uint64    // attempts that former policies dropped for newer ones
}

// tally counts the events at one door.
type tally struct {
	audit.Counts          // by kind; refusals: only of sources without a window
	exhausted      uint64 // refusals of sources with a window
	held, released uint64 // packets of sources without a window
	ahead          uint64 // packets that were accepted before the kernel had the window
}

// current returns the policy in force, nil before the first Apply.
func (ps *packets) current() *policy {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.policy
}

// config returns the configuration in force. There must be one.
func (ps *packets) config() *effective.Config { return ps.current().config }

// door returns a door of the rules in force, nil if there is none of that name.
func (ps *packets) door(name string) *effective.Door {
	f := ps.current()
	if i := f.doorNamed(name); i >= 0 {
		return &f.config.Doors[i]
	}
	return nil
}

// present returns the sockets that the table names, nil before the first Apply.
func (ps *packets) present() *sockets {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.sockets
}

// use makes next the policy that decides about packets, with the attempts of the former
// one.
func (ps *packets) use(next *policy) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.policy != nil {
		next.inherit(ps.policy)
	}
	ps.policy = next
}

// substitute makes next the policy that decides about packets. It shares its tracker with
// the former one, whose locks it has.
func (ps *packets) substitute(next *policy) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for i, l := range next.locks {
		if !slices.Equal(l.steps, ps.policy.locks[i].steps) {
			next.tracker.Replace(i, l.steps)
		}
	}
	ps.policy = next
}

// isStale reports whether installing the configuration of a policy has failed.
func (ps *packets) isStale(f *policy) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return f.stale
}

// markStale records that installing the configuration of a policy has failed.
func (ps *packets) markStale(f *policy) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	f.stale = true
}

// giveUp goes back to the former policy, nil if there was none, after its successor could
// not be installed. It keeps the attempts that the successor has seen.
func (ps *packets) giveUp(former *policy, now time.Time) {
	var back *policy
	if former != nil {
		back = ps.newPolicy(former.config, now)
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if back != nil {
		back.stale = former.stale
		back.inherit(ps.policy)
	}
	ps.policy = back
}

// exchange makes s the sockets that the table names, and returns the former ones if they
// are others. The former policy, nil if there was none, has ended now.
func (ps *packets) exchange(s *sockets, former *policy, now time.Time) (retired *sockets) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	s.hold.SetWait(ps.policy.config.Wall.Hold)
	if ps.sockets != nil && ps.sockets != s {
		retired = ps.sockets
		s.former = retired
		retired.former = nil // the one before is closed
	}
	ps.sockets = s
	kept := make([]tally, len(ps.tallies)) // a door that is removed loses its counts
	for _, id := range ps.policy.ids {
		kept[id] = ps.tallies[id]
	}
	ps.tallies = kept
	if former == nil {
		ps.since = now
	} else {
		ps.evicted += former.tracker.Evicted()
	}
	return retired
}

// keepNamed records that the rules go on to use the numbers of the present sockets.
func (ps *packets) keepNamed() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.sockets.stillNamed = true
}

// countWindow is an observer: it counts the event of a window at its door.
func (ps *packets) countWindow(e windowEvent) {
	if e.Failed || e.wasSpent {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.tallies[ps.doors.id(e.Door)].Add(e.Kind)
}

// release sends the held packets of sources whose windows are open now through the rules
// again.
func (ps *packets) release(openings []*opening) {
	open := make(map[windowKey]bool, len(openings))
	for _, o := range openings {
		if o.err == nil {
			open[o.key()] = true
		}
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	f := ps.policy
	if f == nil {
		return
	}
	ps.sockets.release(func(p packet.Packet) bool {
		for _, i := range f.config.At(p.Port) {
			d := &f.config.Doors[i]
			if guardsDestination(d, p) && open[windowKey{d.Name, d.SourcePrefix.Of(p.Source)}] {
				f.tally(i).released++
				return true
			}
		}
		return false
	})
}

// releaseAhead accepts the held packets of sources whose windows are recorded and about to be
// opened. So the client that has knocked does not wait for the kernel, which takes longer than
// everything else. Some wait nevertheless: see windows.ahead. It is called with change held, so
// that the handler of the strangers' queue must not take change.
func (ps *packets) releaseAhead(openings []*opening) {
	if len(openings) == 0 {
		return
	}
	now := time.Now()
	var ahead []*admission
	ps.mu.Lock()
	strangers := ps.sockets.strangers
	ps.sockets.accept(func(p packet.Packet) bool {
		a := ps.windows.admitAhead(ps.policy, p, now)
		if a == nil {
			return false
		}
		ps.policy.tally(a.door).released++
		ps.accountAhead(a, p, now)
		ahead = append(ahead, a)
		return true
	})
	ps.mu.Unlock()
	for _, a := range ahead {
		ps.finish(a)
	}
	if len(ahead) == 0 {
		strangers.ReadNow() // mostly, the packet has come after the knock
	}
}

// accountAhead is account for a packet that is accepted before the kernel has the window.
func (ps *packets) accountAhead(a *admission, p packet.Packet, now time.Time) {
	ps.account(a, p, now)
	ps.policy.tally(a.door).ahead++
}

const (
	// sweepInterval is the shortest time between two sweeps of the hold, so that a flood
	// of packets is refused in batches.
	sweepInterval = 10 * time.Millisecond
	// drainedFor is how long the log must have been drained, after it was not, before
	// packets are refused: a knock may have been logged right after the check.
	drainedFor = 10 * time.Millisecond
	// maxRefusalDelay is how long refusals wait at most until the log is drained.
	maxRefusalDelay = 2 * time.Second
	// forgetInterval is how often attempts are checked for their timeout.
	forgetInterval = time.Second
)

// refuseDue refuses held packets whose knock did not come in time. The kernel logs a
// knock before it queues a later packet. So no knock is missed if the log has been
// drained, and nothing is refused before that. In a flood, however, the log may keep
// messages back for a batch, for 10 ms at most; every longer hold outlasts that.
func (ps *packets) refuseDue(now time.Time) (next time.Time, ok bool) {
	var events []audit.Event
	defer func() { ps.record(events) }()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	f, s := ps.policy, ps.sockets
	due, waiting := s.hold.Next()
	if !waiting {
		return time.Time{}, false
	}
	if at := s.swept.Add(sweepInterval); due.Before(at) {
		due = at
	}
	if due.After(now) {
		return due, true
	}
	if now.Sub(due) < maxRefusalDelay {
		// A transaction may be waiting for another process's transaction.
		if ps.windows.queue.isBusy() || !s.log.Progress().Idle || s.former.hasUnhandledLog() || ps.verifications.waitSince(due) {
			s.refuseAfter = now.Add(drainedFor)
		}
		if s.refuseAfter.After(now) {
			return now.Add(time.Millisecond), true
		}
	}
	last, any := s.hold.Due(now, func(h sequence.Held) {
		if door, source := ps.windows.attribute(f, h.Packet); door >= 0 {
			f.tally(door).Add(audit.Refused)
			ps.metrics.strangers.Observe(now.Sub(h.Since).Seconds())
			events = append(events, audit.Event{
				Time: now, Kind: audit.Refused, Door: f.config.Doors[door].Name, Source: source, Port: h.Packet.Port,
				Code: audit.CodeNoWindow,
			})
		}
	})
	if any {
		// This is one verdict for all. Packets that were released have had their verdict.
		_ = s.strangers.RefuseUpTo(last)
	}
	s.swept = now
	return s.hold.Next()
}

// expireAttempts ends the attempts whose time is up.
func (ps *packets) expireAttempts(now time.Time) (next time.Time, ok bool) {
	var events []audit.Event
	defer func() { ps.record(events) }()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	f := ps.policy
	f.tracker.Expire(now, func(a sequence.Attempt) {
		l := &f.locks[a.Lock]
		if !f.reportsEnd(l, a.Step) {
			return
		}
		f.tally(l.door).Add(audit.Reset)
		events = append(events, audit.Event{
			Time: now, Kind: audit.Reset, Door: f.config.Doors[l.door].Name, Source: a.Source,
			Step: a.Step, Steps: len(l.steps), Code: endCodes[a.Reason()], Reason: a.Reason().String(),
		})
	})
	return now.Add(forgetInterval), f.tracker.Len() > 0
}

// record records events that were collected while mu was held.
func (ps *packets) record(events []audit.Event) {
	for _, e := range events {
		ps.trail.Record(e)
	}
}

// countLosses counts the packets that the queues have lost since the last check.
func (ps *packets) countLosses() {
	ps.mu.Lock()
	lost := ps.sockets.lossesSince()
	ps.mu.Unlock()
	ps.losses.add(lost)
}
