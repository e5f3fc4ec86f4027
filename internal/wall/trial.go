package wall

import (
	"errors"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/ruleset"
)

// trial is a wall that returns to its former state unless it is confirmed.
type trial struct {
	former *ruleset.Config // nil: there was no wall
	until  time.Time
	over   bool // its time is up, and the former state is being restored
}

// Errors of trials.
var (
	ErrOnTrial     = errors.New("the rules in force are on trial: confirm them with `knockwall confirm` first, or wait until the former ones are back")
	ErrNoTrial     = errors.New("nothing waits to be confirmed: no trial is under way, or its time was up")
	errTableExists = errors.New("a wall is installed already, and a trial that replaces it could not restore it: " +
		"start without --confirm and try new rules with `knockwall reload --confirm`, or remove the wall first with `knockwall down`")
	ErrNotConfirmed = errors.New("the wall was not confirmed in time and is removed")
)

// cause is why rules come into force: the code of the event, and the beginning of its
// reason.
type cause struct {
	code  audit.Code
	prose string
}

// The causes except a trial, whose prose has its duration.
var (
	requested    = cause{code: audit.CodeRules}
	notConfirmed = cause{audit.CodeNotConfirmed, "the new rules were not confirmed, and the former ones are back; "}
)

// Try installs a wall as [Wall.Apply] does. Unless [Wall.Confirm] is called within the
// given time, the former wall returns. If there was none, Run ends with
// [ErrNotConfirmed]. If Run ends earlier, the former state returns, too. If the daemon is
// killed and there was no wall before, the kernel removes the wall where it can (Linux
// 6.9).
func (w *Wall) Try(c *ruleset.Config, within time.Duration) error {
	w.lockAfterRetirement()
	defer w.change.Unlock()
	if w.OnTrial() {
		return ErrOnTrial
	}
	t := &trial{until: time.Now().Add(within)}
	if former := w.current(); former != nil {
		t.former = former.config.Written
	}
	if err := w.apply(c, t.former == nil, cause{audit.CodeTrial, "on trial for " + within.String() + "; "}); err != nil {
		return err
	}
	w.mu.Lock()
	w.trial = t
	w.mu.Unlock()
	w.wakeHousekeeping()
	return nil
}

// Confirm ends a trial: its rules stay.
func (w *Wall) Confirm() error {
	w.change.Lock()
	defer w.change.Unlock()
	if w.tornDown {
		return ErrStopping
	}
	w.mu.Lock()
	t := w.trial
	w.mu.Unlock()
	if t == nil || t.over {
		return ErrNoTrial
	}
	if w.table.Trial {
		lasting := *w.table
		lasting.Trial = false
		if err := w.edges.Kernel.Install(&lasting, w.windows.known(), ""); err != nil {
			return err
		}
		w.table = &lasting
	}
	w.mu.Lock()
	w.trial = nil
	w.mu.Unlock()
	w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Reloaded, Code: audit.CodeConfirmed, Reason: "the rules on trial are confirmed"})
	return nil
}

// OnTrial reports whether rules are on trial.
func (w *Wall) OnTrial() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trial != nil
}

// endTrial restores the former state when the time of a trial is up.
func (w *Wall) endTrial(now time.Time) (next time.Time, ok bool) {
	w.mu.Lock()
	t := w.trial
	w.mu.Unlock()
	switch {
	case t == nil, t.over && t.former == nil:
		return time.Time{}, false
	case t.until.After(now):
		return t.until, true
	}

	w.lockAfterRetirement()
	defer w.change.Unlock()
	w.mu.Lock()
	confirmed := w.trial != t // since the check above
	t.over = true
	w.mu.Unlock()
	switch {
	case confirmed:
	case t.former == nil:
		w.life.fail(ErrNotConfirmed)
	default:
		if err := w.restoreFormer(t.former); err != nil {
			w.trail.Record(audit.Event{Time: now, Kind: audit.Reloaded, Code: audit.CodeNotPutBack, Failed: true,
				Reason: "the former rules cannot be put back yet: " + err.Error()})
			return now.Add(restoreInterval), true
		}
		w.mu.Lock()
		w.trial = nil
		w.mu.Unlock()
	}
	return time.Time{}, false
}

// restoreInterval is how often restoring the former rules is retried.
const restoreInterval = 5 * time.Second

// restoreFormer puts the former rules in force again. If that fails, it uses the present
// numbers, because another process may have bound the former ones.
func (w *Wall) restoreFormer(former *ruleset.Config) error {
	err := w.apply(former, false, notConfirmed)
	if err == nil {
		return nil
	}
	present := w.policy.config.Wall
	moved := *former
	moved.Wall.LogGroup, moved.Wall.Queue = present.LogGroup, present.Queue
	if w.apply(&moved, false, notConfirmed) != nil {
		return err
	}
	return nil
}
