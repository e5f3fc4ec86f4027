package wall

import (
	"errors"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/ruleset"
)

// trial is a wall that has to be confirmed, or else the former state returns.
type trial struct {
	former *ruleset.Config // nil: no wall
	until  time.Time
	over   bool // and the former state is on its way
}

// Why a trial, or the end of one, cannot be.
var (
	ErrOnTrial     = errors.New("the rules in force are on trial: confirm them with `knockwall confirm` first, or wait until the former ones are back")
	ErrNoTrial     = errors.New("nothing waits to be confirmed: no trial is under way, or its time was up")
	errTableExists = errors.New("a wall stands already, which a trial would take the place of and could not bring back: " +
		"start without --confirm and try new rules with `knockwall reload --confirm`, or take the wall down first with `knockwall down`")
	ErrNotConfirmed = errors.New("the wall was not confirmed in time and is taken down")
)

// cause is why rules come into force: the code and the beginning of the reason of the
// event that tells of it.
type cause struct {
	code  audit.Code
	prose string
}

// The causes but a trial, whose prose names its length.
var (
	requested    = cause{code: audit.CodeRules}
	notConfirmed = cause{audit.CodeNotConfirmed, "the new rules were not confirmed, and the former ones are back; "}
)

// Try puts up a wall as [Wall.Apply] does. Unless [Wall.Confirm] is called within
// the time given, the former one returns; where there was none, Run ends with
// [ErrNotConfirmed]. If Run ends before, for whatever reason, the former state
// returns, too; and if the daemon is killed, a wall that none stood before goes
// where the kernel can see to that (Linux 6.9).
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
		if err := w.edges.Kernel.Install(&lasting, w.knownWindows(), ""); err != nil {
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

// endTrial brings the former state back when a trial's time is up.
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
	confirmed := w.trial != t // meanwhile
	t.over = true
	w.mu.Unlock()
	switch {
	case confirmed:
	case t.former == nil:
		w.fail(ErrNotConfirmed)
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

// goBackInterval is how often it is tried to put the former rules back.
const restoreInterval = 5 * time.Second

// goBack puts the former rules in force again, if need be with the numbers of the
// present ones, as somebody else may have taken those that they had.
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
