package wall

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
		return w.table.table.Name, w.life.err
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
	w.packets.present().retire() // its handlers may still open windows
	w.packets.verifications.finish()
	w.table.begin()        // after the retirement of the sockets of a trial
	w.windows.openQueued() // for knocks until then
	keptErr := w.windows.keep()
	w.table.end()
	if w.table.watch != nil {
		w.table.watch.Close()
	}
	select {
	case <-w.life.down: // Down was called meanwhile
		remove = true
	default:
	}
	code, reason := audit.CodeWallStands, "the wall stays: open windows admit until they end, and "+strangersWithout(w.packets.config().Doors)
	if keptErr != nil {
		reason += "; the next daemon has to ask the kernel for the windows: " + keptErr.Error()
	}
	if remove {
		code, reason = audit.CodeWallRemoved, "the wall is taken down"
		_, err = w.edges.Kernel.Remove(w.table.table.Name)
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

// strangersWithout says what becomes of strangers while no daemon runs.
func strangersWithout(doors []effective.Door) string {
	if len(doors) == 0 {
		return "no door hides a port"
	}
	var open []string
	for _, d := range doors {
		if d.OnFailure == ruleset.FailOpen {
			open = append(open, d.Name)
		}
	}
	switch len(open) {
	case 0:
		return "strangers are refused"
	case len(doors):
		return `strangers get in by on_failure = "open"`
	default:
		return fmt.Sprintf(`strangers get in at %s by on_failure = "open", and are refused elsewhere`, strings.Join(open, ", "))
	}
}

// handOver changes the table to numbers that no process has bound, so that the kernel
// works without the daemon. The packets that are still in the sockets can then be
// handled, and none is refused because it came at this moment. It reports whether the
// table is to be removed.
func (w *Wall) handOver(asked bool, failure error) (remove bool, err error) {
	w.table.begin()
	defer w.table.end()
	w.windows.openQueued() // else the packets that wait for these windows would be refused
	t := w.trials.current()
	w.trials.set(nil)
	if t != nil && t.former != nil && !asked {
		_ = w.rules.restore(t.former, notConfirmed) // if this fails, the rules on trial stay
	}
	if err = w.rules.renumber(); err != nil {
		w.packets.keepNamed()
	}
	w.table.tornDown = true
	onStop := w.packets.config().Wall.OnStop
	return asked || t != nil && t.former == nil || onStop == ruleset.Remove && failure == nil, err
}

// renumber changes the table to the numbers of the other bank, which no process has bound.
// It is called with change held.
func (r *rules) renumber() error {
	f := r.packets.current()
	c := f.config
	n := nft.NumbersOf(c.Wall, 0)
	if overlap(n, r.packets.present().numbers) {
		n = nft.NumbersOf(c.Wall, 1)
	}
	if err := r.inUse(n); err != nil {
		return err
	}
	return r.table.replace(c, n, r.windows.known())
}
