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

// downTimeout is how long Down waits for Run to end after the table is removed. Commands
// may run longer than the caller wants to wait.
const downTimeout = 3 * time.Second

// Down removes the wall, whatever on_stop says in the rule files, and ends Run. Run may
// last as long as commands run; see [Wall.Ended]. Down returns the name of the removed
// table.
func (w *Wall) Down(ctx context.Context) (table string, err error) {
	w.life.askDown()
	select {
	case <-w.life.teardownDone:
		select {
		case <-w.life.ended:
		case <-time.After(downTimeout):
		}
		if !w.life.removed && w.life.err == nil {
			return "", ErrStopping // it stops for another reason and keeps the wall
		}
		return w.table.Name, w.life.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Ended reports whether Run has ended.
func (w *Wall) Ended() bool { return w.life.hasEnded() }

// teardown stops the daemon. The table is removed if asked, if on_stop says so and
// nothing has failed, or if it is on trial and there was none before.
func (w *Wall) teardown(asked bool, failure error) {
	remove, err := w.handOver(asked, failure)
	w.sockets.retire()      // its handlers may still open windows
	w.lockAfterRetirement() // after the retirement of the sockets of a trial
	w.windows.openQueued()  // for knocks until then
	w.change.Unlock()
	if w.watch != nil {
		w.watch.Close()
	}
	select {
	case <-w.life.down: // Down was called meanwhile
		remove = true
	default:
	}
	code, reason := audit.CodeWallStands, "the wall stays: open windows admit until they end, and on_failure decides about other sources"
	if remove {
		code, reason = audit.CodeWallRemoved, "the wall is taken down"
		_, err = w.edges.Kernel.Remove(w.table.Name)
		w.life.removed = err == nil
		if err != nil {
			code, reason = audit.CodeWallNotRemoved, "the wall could not be taken down: "+err.Error()
		} else {
			w.commands.closedAll()
		}
	}
	w.life.err = errors.Join(failure, err)
	close(w.life.teardownDone)
	w.commands.close()
	w.trail.Flush()
	w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Stopped, Code: code, Reason: reason, Failed: failure != nil || err != nil})
}

// handOver changes the table to numbers that no process has bound, so that the kernel
// works without the daemon. The packets that are still in the sockets can then be
// handled, and none is refused because it came at this moment. It reports whether the
// table is to be removed.
func (w *Wall) handOver(asked bool, failure error) (remove bool, err error) {
	w.lockAfterRetirement()
	defer w.change.Unlock()
	w.windows.openQueued() // else the packets that wait for these windows would be refused
	defer func() { w.tornDown = true }()
	w.mu.Lock()
	trial := w.trial
	w.trial = nil
	w.mu.Unlock()
	if trial != nil && trial.former != nil && !asked {
		_ = w.restoreFormer(trial.former) // if this fails, the rules on trial stay
	}
	c := w.policy.config
	if err = w.renumberTable(c); err != nil {
		w.mu.Lock()
		w.sockets.stillNamed = true
		w.mu.Unlock()
	}
	return asked || trial != nil && trial.former == nil || c.Wall.OnStop == ruleset.Remove && failure == nil, err
}

// renumberTable changes the table to the numbers of the other bank, which no process has
// bound.
func (w *Wall) renumberTable(c *effective.Config) error {
	n := nft.NumbersOf(c.Wall, 0)
	if overlap(n, w.sockets.numbers) {
		n = nft.NumbersOf(c.Wall, 1)
	}
	if err := w.inUse(n); err != nil {
		return err
	}
	windows := w.windows.known()
	if s, err := w.edges.Kernel.Standing(c.Wall.Table); err == nil && s != nil {
		windows = w.policy.keptWindows(s.Windows, 0)
	}
	return w.install(c, n, windows)
}
