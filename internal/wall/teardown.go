package wall

import (
	"context"
	"errors"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/ruleset"
)

// downTimeout is how long Down waits for Run to end once the table is gone: commands may
// take longer than who asks has patience.
const downTimeout = 3 * time.Second

// Down takes the wall down, whatever the rule files say of that, and ends Run, which may
// go on for as long as commands run: [Wall.Ended] tells. It returns the name of the table
// that is gone.
func (w *Wall) Down(ctx context.Context) (table string, err error) {
	select {
	case w.down <- struct{}{}:
	default: // somebody else has asked
	}
	select {
	case <-w.teardownDone:
		select {
		case <-w.ended:
		case <-time.After(downTimeout):
		}
		if !w.removed && w.endErr == nil {
			return "", ErrStopping // for another reason, by which the wall stays
		}
		return w.table.Name, w.endErr
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Ended reports whether Run has ended.
func (w *Wall) Ended() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// teardown ends the daemon's part of the wall. The whole wall goes if that is asked
// for, if the rule files want it and nothing has failed, or if it is on trial.
func (w *Wall) teardown(asked bool, failure error) {
	remove, err := w.handOver(asked, failure)
	w.sockets.retire()      // whose handlers may still open windows
	w.lockAfterRetirement() // after a trial's
	w.openQueued()          // for who has knocked until then
	w.change.Unlock()
	if w.watch != nil {
		w.watch.Close()
	}
	select {
	case <-w.down: // meanwhile
		remove = true
	default:
	}
	code, reason := audit.CodeWallStands, "the wall stands: open windows admit until their time is up, strangers get in as on_failure says"
	if remove {
		code, reason = audit.CodeWallRemoved, "the wall is taken down"
		_, err = w.edges.Kernel.Remove(w.table.Name)
		w.removed = err == nil
		if err != nil {
			code, reason = audit.CodeWallNotRemoved, "the wall could not be taken down: "+err.Error()
		} else {
			w.commands.closedAll()
		}
	}
	w.endErr = errors.Join(failure, err)
	close(w.teardownDone)
	w.commands.close()
	w.trail.Flush()
	w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Stopped, Code: code, Reason: reason, Failed: failure != nil || err != nil})
}

// handOver gives the table numbers that nobody listens to, so that the kernel
// goes on alone; what is in the sockets still can be judged then, and nobody is
// turned away for having come this very moment. It says whether the wall is to
// be removed.
func (w *Wall) handOver(asked bool, failure error) (remove bool, err error) {
	w.lockAfterRetirement()
	defer w.change.Unlock()
	w.openQueued() // or those who wait for it would be refused
	defer func() { w.tornDown = true }()
	w.mu.Lock()
	trial := w.trial
	w.trial = nil
	w.mu.Unlock()
	if trial != nil && trial.former != nil && !asked {
		_ = w.restoreFormer(trial.former) // else the wall stays as it is
	}
	c := w.policy.config
	if err = w.renumberTable(c); err != nil {
		w.mu.Lock()
		w.sockets.stillNamed = true
		w.mu.Unlock()
	}
	return asked || trial != nil && trial.former == nil || c.Wall.OnStop == ruleset.Remove && failure == nil, err
}

// idle puts the numbers of the other turn into the table, to which nobody listens.
func (w *Wall) renumberTable(c *effective.Config) error {
	n := nft.NumbersOf(c.Wall, 0)
	if overlap(n, w.sockets.numbers) {
		n = nft.NumbersOf(c.Wall, 1)
	}
	if err := w.inUse(n); err != nil {
		return err
	}
	windows := w.knownWindows()
	if s, err := w.edges.Kernel.Standing(c.Wall.Table); err == nil && s != nil {
		windows = w.policy.keptWindows(s.Windows, 0)
	}
	return w.install(c, n, windows)
}
