package wall

import (
	"context"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/sequence"
)

const (
	// sweepInterval is the shortest time between two sweeps of the hold, so that a flood
	// of packets is refused in batches.
	sweepInterval = 10 * time.Millisecond
	// drainedFor is how long the log must have been drained, after it was not, before
	// packets are refused: a knock may have been logged right after the check.
	drainedFor = 10 * time.Millisecond
	// maxRefusalDelay is how long refusals wait at most until the log is drained.
	maxRefusalDelay = 2 * time.Second
	// lossEndsAfter is how long after the last loss an overload ends.
	lossEndsAfter = time.Minute
	// forgetInterval is how often attempts are checked for their timeout.
	forgetInterval = time.Second
)

// housekeep runs the periodic tasks when they are due, until ctx ends.
func (w *Wall) housekeep(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	w.mu.Lock()
	w.lastHousekeeping = time.Now()
	w.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		now := time.Now()
		next := now.Add(audit.SumInterval)
		for _, task := range []func(time.Time) (time.Time, bool){w.windows.expire, w.refuseDue, w.expireAttempts, w.reportLosses, w.endTrial, w.reresolve, w.checkHost, w.examine, w.watchUsage} {
			if at, ok := task(now); ok && at.Before(next) {
				next = at
			}
		}
		w.mu.Lock()
		w.lastHousekeeping = time.Now()
		w.mu.Unlock()
		timer.Reset(next.Sub(now))
	}
}

// refuseDue refuses held packets whose knock did not come in time. The kernel logs a
// knock before it queues a later packet. So no knock is missed if the log has been
// drained, and nothing is refused before that. In a flood, however, the log may keep
// messages back for a batch, for 10 ms at most; every longer hold outlasts that.
func (w *Wall) refuseDue(now time.Time) (next time.Time, ok bool) {
	var events []audit.Event
	defer func() { w.record(events) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	f, s := w.policy, w.sockets
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
		if w.windows.queue.isBusy() || !s.log.Progress().Idle || s.former.hasUnhandledLog() {
			s.refuseAfter = now.Add(drainedFor)
		}
		if s.refuseAfter.After(now) {
			return now.Add(time.Millisecond), true
		}
	}
	last, any := s.hold.Due(now, func(h sequence.Held) {
		if door, source := w.windows.attribute(f, h.Packet); door >= 0 {
			f.tally(door).Add(audit.Refused)
			w.metrics.strangers.Observe(now.Sub(h.Since).Seconds())
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
func (w *Wall) expireAttempts(now time.Time) (next time.Time, ok bool) {
	var events []audit.Event
	defer func() { w.record(events) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.policy
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
func (w *Wall) record(events []audit.Event) {
	for _, e := range events {
		w.trail.Record(e)
	}
}

// reportLosses writes summed events, and reports lost packets: once when losses begin,
// and once when they are over.
func (w *Wall) reportLosses(now time.Time) (next time.Time, ok bool) {
	w.mu.Lock()
	if next = w.reports.swept.Add(audit.SumInterval); next.After(now) {
		w.mu.Unlock()
		return next, true
	}
	r := &w.reports
	r.swept = now
	w.sockets.countLosses()
	e := audit.Event{Time: now, Kind: audit.Overloaded, Count: int(w.lost - r.lost)}
	begins := e.Count > 0 && !r.overloaded
	if e.Count > 0 && (begins || w.lost != r.counted) {
		r.lately = now
	}
	r.counted = w.lost
	ends := r.overloaded && now.Sub(r.lately) >= lossEndsAfter
	if begins || ends {
		r.overloaded = begins
		r.lost = w.lost
	}
	w.mu.Unlock()
	w.trail.Flush()
	switch {
	case begins:
		e.Code, e.Reason = audit.CodePacketsLost, "packets come faster than they can be read"
		w.trail.Record(e)
	case ends && e.Count > 0:
		e.Code, e.Reason = audit.CodeLossOver, "packets came faster than they could be read, until "+r.lately.Format(time.TimeOnly)
		w.trail.Record(e)
	}
	return now.Add(audit.SumInterval), true
}
