package wall

import (
	"errors"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
)

// Errors of trials.
var (
	ErrOnTrial     = errors.New("the rules in force are on trial: confirm them with `knockwall confirm` first, or end the trial with `knockwall revert`")
	ErrNoTrial     = errors.New("no trial is under way: none has begun, or it has ended: see `knockwall status`")
	errTableExists = errors.New("a wall is installed already, and a trial that replaces it could not restore it: " +
		"start without --confirm and try new rules with `knockwall reload --confirm`, or remove the wall first with `knockwall down`")
	ErrNotConfirmed = errors.New("the wall was not confirmed in time and is removed")
)

// trials returns the wall to its former state unless its rules are confirmed.
type trials struct {
	rules *rules
	table *installation
	trail *audit.Summer
	fail  func(error) // ends Run
	wake  func()      // housekeeping

	// Writers hold change, too.
	mu    sync.Mutex
	trial *trial // nil: none is under way
}

// trial is a wall that returns to its former state unless it is confirmed.
type trial struct {
	former *ruleset.Config // nil: there was no wall
	until  time.Time
	over   bool // its time is up, and the former state is being restored; guarded by change
}

// current returns the trial that is under way, nil if none is.
func (ts *trials) current() *trial {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.trial
}

// set records that a trial is under way; nil: none is.
func (ts *trials) set(t *trial) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.trial = t
}

// try applies rules for a trial. It is called with change held.
func (ts *trials) try(c *ruleset.Config, former *policy, within time.Duration) error {
	t := &trial{until: time.Now().Add(within)}
	if former != nil {
		t.former = former.config.Written
	}
	if err := ts.rules.apply(c, t.former == nil, cause{audit.CodeTrial, "on trial for " + printable.Time(within) + "; "}); err != nil {
		return err
	}
	ts.set(t)
	ts.wake()
	return nil
}

// confirm ends a trial: its rules stay.
func (ts *trials) confirm() error {
	ts.table.change.Lock()
	defer ts.table.change.Unlock()
	if ts.table.tornDown {
		return ErrStopping
	}
	if t := ts.current(); t == nil || t.over {
		return ErrNoTrial
	}
	if err := ts.table.makeLasting(); err != nil {
		return err
	}
	ts.set(nil)
	ts.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Reloaded, Code: audit.CodeConfirmed, Reason: "the rules on trial are confirmed"})
	return nil
}

// revert ends a trial: the former rules return. It reports whether there were none. It is
// called with change held.
func (ts *trials) revert() (first bool, err error) {
	t := ts.current()
	switch {
	case ts.table.tornDown:
		return false, ErrStopping
	case t == nil || t.over:
		return false, ErrNoTrial
	case t.former == nil:
		return true, nil
	}
	if err := ts.rules.restore(t.former, reverted); err != nil {
		return false, err
	}
	ts.set(nil)
	return false, nil
}

// restoreInterval is how often restoring the former rules is retried.
const restoreInterval = 5 * time.Second

// end restores the former state when the time of a trial is up.
func (ts *trials) end(now time.Time) (next time.Time, ok bool) {
	t := ts.current()
	if t == nil {
		return time.Time{}, false
	}
	if t.until.After(now) {
		return t.until, true
	}
	ts.table.begin()
	defer ts.table.end()
	switch {
	case ts.current() != t: // it was confirmed since the check above
	case t.former != nil:
		t.over = true
		if err := ts.rules.restore(t.former, notConfirmed); err != nil {
			ts.trail.Record(audit.Event{Time: now, Kind: audit.Reloaded, Code: audit.CodeNotPutBack, Failed: true,
				Reason: "the former rules cannot be put back yet: " + err.Error()})
			return now.Add(restoreInterval), true
		}
		ts.set(nil)
	case !t.over:
		t.over = true
		ts.fail(ErrNotConfirmed)
	}
	return time.Time{}, false
}

// restore puts former rules in force again, and closes the windows of persons whom only the
// rules on trial admitted. If that fails, it uses the present numbers,
// because another process may have bound the former ones. It is called with change held.
func (r *rules) restore(former *ruleset.Config, why cause) error {
	if err := r.apply(former, false, why); err != nil {
		present := r.packets.config().Wall
		moved := *former
		moved.Wall.LogGroup, moved.Wall.Queue = present.LogGroup, present.Queue
		if r.apply(&moved, false, why) != nil {
			return err
		}
	}
	r.windows.closeUnadmittedHeld(time.Now())
	return nil
}
