package wall

import (
	"context"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
)

// housekeeping runs the periodic tasks of the daemon.
type housekeeping struct {
	tasks []*periodicTask
	wakes chan struct{}

	mu   sync.Mutex
	last time.Time // when the last round was completed; zero: none has begun
}

// periodicTask is a task with the time of its next run.
type periodicTask struct {
	// run does what is due, and returns when it wants to run again. If ok is false, it
	// needs no time of its own.
	run  func(now time.Time) (next time.Time, ok bool)
	next time.Time
}

func newHousekeeping() *housekeeping { return &housekeeping{wakes: make(chan struct{}, 1)} }

// add adds a task. It is called before run.
func (h *housekeeping) add(run func(now time.Time) (next time.Time, ok bool)) {
	h.tasks = append(h.tasks, &periodicTask{run: run})
}

// every adds a task that runs once in each interval, and not when others are woken.
func (h *housekeeping) every(interval time.Duration, do func(now time.Time)) {
	var next time.Time
	h.add(func(now time.Time) (time.Time, bool) {
		if !next.After(now) {
			next = now.Add(interval)
			do(now)
		}
		return next, true
	})
}

// wake makes all tasks run now.
func (h *housekeeping) wake() {
	select {
	case h.wakes <- struct{}{}:
	default:
	}
}

// run runs each task when it is due, and at least every [audit.SumInterval], until ctx
// ends.
func (h *housekeeping) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	h.complete()
	for {
		woken := false
		select {
		case <-ctx.Done():
			return
		case <-h.wakes:
			woken = true
		case <-timer.C:
		}
		now := time.Now()
		next := now.Add(audit.SumInterval)
		for _, t := range h.tasks {
			if woken || !t.next.After(now) {
				t.next = now.Add(audit.SumInterval)
				if at, ok := t.run(now); ok && at.Before(t.next) {
					t.next = at
				}
			}
			if t.next.Before(next) {
				next = t.next
			}
		}
		h.complete()
		timer.Reset(next.Sub(now))
	}
}

// complete records that a round is completed.
func (h *housekeeping) complete() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Now()
}

// completed returns when the last round was completed. It is zero if none has begun.
func (h *housekeeping) completed() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}
