package wall

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Sequences that are not the same for ever turn: a rolling one with the clock, and
// one of a list when it is used. The table turns with them, in one transaction that
// leaves its hook and its sets as they are.

// lookAtClock is how often the clock is looked at, which somebody may set.
const lookAtClock = time.Second

// turn puts the sequences in force that are good now, if they are others than those
// that are.
func (w *Wall) turn(now time.Time) (next time.Time, ok bool) {
	f := w.current()
	if next, ok = f.config.Turns(now); !ok {
		return next, false
	}
	if !slices.Equal(f.config.Steps(now), f.steps) {
		w.turnNow()
	}
	return now.Add(min(next.Sub(now), lookAtClock)), true
}

// turnNow puts the sequences in force that are good now.
func (w *Wall) turnNow() {
	w.change.Lock()
	defer w.change.Unlock()
	if w.lowered {
		return
	}
	now := time.Now()
	f := w.current()
	c, err := f.config.At(now, w.listening())
	next := *f
	next.config, next.steps = c, c.Steps(now)
	next.locks, next.locksOf = locksOf(c)
	// From before the rules change: the other way round a knock that only the new
	// sequences have could be missed.
	w.mu.Lock()
	for i, l := range next.locks {
		if !slices.Equal(l.steps, f.locks[i].steps) {
			next.tracker.Replace(i, l.steps)
		}
	}
	w.front = &next
	w.mu.Unlock()
	installed := w.install(c)
	if installed != nil {
		w.mu.Lock()
		next.steps = nil // to be tried again
		w.mu.Unlock()
	}
	if err = errors.Join(err, installed); err != nil && f.steps != nil {
		w.trail.Record(audit.Event{Time: now, Kind: audit.Reloaded, Failed: true, Reason: "the next sequences are not in force: " + err.Error()})
	}
	w.tellLow(c)
}

// install puts the table in place that a configuration comes to now, with the
// numbers that there are.
func (w *Wall) install(c *ruleset.Config) error {
	table := ruleset.NewTable(c, w.sockets.numbers)
	table.Trial = w.table.Trial
	if err := w.edges.Kernel.Install(table, w.noted(), ""); err != nil {
		return err
	}
	w.table = table
	return nil
}

// tellLow warns of doors with few one-time sequences left, once for each that is
// used.
func (w *Wall) tellLow(c *ruleset.Config) {
	for _, d := range c.Doors {
		if d.OneTime == nil || d.LinesLeft > ruleset.FewLeft || w.toldLow[d.Name] == d.LinesLeft+1 {
			continue
		}
		w.toldLow[d.Name] = d.LinesLeft + 1 // as 0 is what was never told
		w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Low, Door: d.Name, Reason: fmt.Sprintf(
			"sequences left in %s: %d", d.OneTime.Path, d.LinesLeft)})
	}
}

// listening returns whether a program of this host listens on a port. Where that
// cannot be known, none is taken to: who wants to go there cannot knock for a while.
func (w *Wall) listening() func(packet.Port) bool {
	ports, _ := w.edges.Listening()
	return func(p packet.Port) bool { return ports[p] }
}
