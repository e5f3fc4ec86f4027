package wall

import (
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/ruleset"
)

// The times and numbers that the tests are about.
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

// TurnTo puts the sequences in force that are good at a time, as if a clock said so.
func (w *Wall) TurnTo(now time.Time) { w.applyEffective(now) }

// Locked reports whether somebody holds the lock on the wall's notes.
func (w *Wall) Locked() bool {
	if !w.mu.TryLock() {
		return true
	}
	w.mu.Unlock()
	return false
}

// OpenedAtTheEnd runs what a door's on_open names for an event when no more commands are
// run, and tells record what becomes of it.
func OpenedAtTheEnd(store Store, record func(audit.Event), d *ruleset.Door, e audit.Event) {
	c := newCommands(store, record)
	c.close()
	c.opened(&effective.Door{Door: d}, e)
}

// EndedAtTheEnd tells record what becomes of an event's on_open that the daemon interrupts.
func EndedAtTheEnd(store Store, record func(audit.Event), e audit.Event) {
	newCommands(store, record).ended(command.Result{Job: command.Job{For: task{name: "on_open", event: e}}, Err: command.ErrClosed})
}
