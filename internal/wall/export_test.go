package wall

import (
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/ruleset"
)

// Constants for the tests.
const (
	SweepInterval    = sweepInterval
	MaxRefusalDelay  = maxRefusalDelay
	StrangersWaiting = strangersQueueLen
	KeptUsed         = keepUsed
	MostUsed         = maxUsed
	Worthless        = useLifetime
	LookAtClock      = clockInterval
	MaxOpenings      = maxOpenings
	MaxTogether      = maxBatch
	MaxEnded         = maxEnded
)

// TurnTo installs the configuration that is effective at now, as if the clock said so.
func (w *Wall) TurnTo(now time.Time) { w.applyEffective(now) }

// Locked reports whether mu is locked.
func (w *Wall) Locked() bool {
	if !w.mu.TryLock() {
		return true
	}
	w.mu.Unlock()
	return false
}

// OpenedAtTheEnd runs a door's on_open when no more commands are run, and records the
// result.
func OpenedAtTheEnd(store Store, record func(audit.Event), d *ruleset.Door, e audit.Event) {
	c := newCommands(store, record)
	c.close()
	c.opened(&effective.Door{Door: d}, e)
}

// EndedAtTheEnd records the result of an on_open that the stopping daemon interrupts.
func EndedAtTheEnd(store Store, record func(audit.Event), e audit.Event) {
	newCommands(store, record).ended(command.Result{Job: command.Job{For: task{name: "on_open", event: e}}, Err: command.ErrClosed})
}
