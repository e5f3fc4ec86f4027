package wall

import (
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// What a configuration comes to is not the same for ever: a rolling sequence turns with
// the clock, a list when one of its lines is used, and a trap is none any more when a
// program begins to listen there. The table turns with them, in one transaction that
// leaves its hook and its sets as they are.

const (
	// lookAtClock is how often the clock is looked at, which somebody may set, and how
	// often a turn is tried that has failed.
	lookAtClock = time.Second
	// lookWhoListens is how often it is looked whether a program listens on a trap.
	lookWhoListens = 10 * time.Second
)

// turn puts in force what is good now, if it is something else than what is.
func (w *Wall) turn(now time.Time) (next time.Time, ok bool) {
	w.mu.Lock()
	f := w.front
	turned := f.stale || !f.config.IsOf(now)
	w.mu.Unlock()
	if turned {
		w.turnTo(now)
	}
	next, ok = f.config.Turns(now)
	if turned || next.Sub(now) > lookAtClock {
		next = now.Add(lookAtClock)
	}
	return next, ok || turned
}

// lookAround puts other traps in force if programs listen on some of those there are.
func (w *Wall) lookAround(now time.Time) (next time.Time, ok bool) {
	if next = w.looked.Add(lookWhoListens); next.After(now) {
		return next, true
	}
	w.looked = now
	if ports, err := w.edges.Listening(); err == nil && w.current().config.IsTrap(ports) {
		w.turnTo(now)
	}
	return now.Add(lookWhoListens), true
}

// turnTo puts in force what is good now.
func (w *Wall) turnTo(now time.Time) {
	listening := w.listening()
	w.change.Lock()
	defer w.change.Unlock()
	if w.lowered {
		return
	}
	w.openQueued() // rather than let who has knocked wait for another table
	f := w.current()
	c, err := f.config.At(now, listening)
	w.tellUnopened(err)
	next := *f
	next.config, next.stale = c, false
	next.locks, next.locksOf = locksOf(c)
	// From before the rules change: the other way round a knock that only the new
	// sequences have could be missed.
	w.mu.Lock()
	for i, l := range next.locks {
		if !slices.Equal(l.steps, f.locks[i].steps) {
			next.tracker.Replace(i, l.steps)
		}
	}
	wasStale := f.stale
	w.front = &next
	w.mu.Unlock()
	err = w.install(c, w.sockets.numbers, w.noted())
	if err != nil {
		w.mu.Lock()
		next.stale = true // to be tried again
		w.mu.Unlock()
	}
	if err != nil && !wasStale {
		w.trail.Record(audit.Event{Time: now, Kind: audit.Reloaded, Failed: true, Reason: "the next sequences are not in force: " + err.Error()})
	}
	w.tellLow(c)
}

// install puts another table in place of the wall's own, with the windows that are open
// where it has to make their sets anew.
func (w *Wall) install(c *ruleset.Config, n ruleset.Numbers, windows []ruleset.Window) error {
	table := ruleset.NewTable(c, n)
	table.Trial = w.table.Trial
	if err := w.edges.Kernel.Install(table, windows, ""); err != nil {
		return err
	}
	w.table = table
	return nil
}

// tellUnopened says, once, why nobody can open some doors by a sequence.
func (w *Wall) tellUnopened(err error) {
	if err != nil && (w.unopened == nil || err.Error() != w.unopened.Error()) {
		w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Low, Failed: true, Reason: err.Error()})
	}
	w.unopened = err
}

// tellLow warns of doors with few one-time sequences left, once for each that is
// used.
func (w *Wall) tellLow(c *ruleset.Config) {
	for _, d := range c.Doors {
		told, once := w.toldLow[d.Name]
		if d.OneTime == nil || d.LinesLeft > ruleset.FewLeft || once && told == d.LinesLeft {
			continue
		}
		w.toldLow[d.Name] = d.LinesLeft
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
