package wall

import (
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
)

// What a configuration comes to is not the same for ever: a rolling sequence turns with
// the clock, a list when one of its lines is used, and a trap is none any more when a
// program begins to listen there. The table turns with them, in one transaction that
// leaves its hook and its sets as they are.

const (
	// lookAtClock is how often the clock is looked at, which somebody may set, and how
	// often a turn is tried that has failed, or a list read that could not be.
	clockInterval = time.Second
	// lookAtHost is how often it is looked who listens, and what has changed of the host.
	hostInterval = 10 * time.Second
)

// reresolve puts in force what is good now, if it is something else than what is.
func (w *Wall) reresolve(now time.Time) (next time.Time, ok bool) {
	w.mu.Lock()
	f := w.policy
	turned := f.stale || !f.config.IsOf(now)
	w.mu.Unlock()
	unread := f.config.HasUnread()
	if unread && now.Sub(w.listRetried) >= clockInterval {
		w.listRetried = now
		turned = turned || f.config.Readable(now)
	}
	if turned {
		w.applyEffective(now)
	}
	next, ok = f.config.Expires(now)
	again := turned || unread
	if again || next.Sub(now) > clockInterval {
		next = now.Add(clockInterval)
	}
	return next, ok || again
}

// lookAround tells the table what has changed of the host.
func (w *Wall) checkHost(now time.Time) (next time.Time, ok bool) {
	if next = w.hostChecked.Add(hostInterval); next.After(now) {
		return next, true
	}
	w.hostChecked = now
	host, err := w.edges.Look()
	c := w.current().config
	switch {
	case err != nil: // what was seen before is nearer to the truth
	case !c.IsOn(host):
		w.applyEffective(now)
	case !c.Host.Same(host):
		w.describe(host)
	}
	return now.Add(hostInterval), true
}

// describe puts into the table's sets what is known of the host. A table that somebody
// else has changed this very moment is put back by who notices that, and described when
// the host is looked at next.
func (w *Wall) describe(host effective.Host) {
	w.change.Lock()
	defer w.change.Unlock()
	if w.tornDown {
		return
	}
	f := w.current()
	if w.edges.Kernel.Describe(f.config.Wall.Table, host) != nil {
		return
	}
	c := *f.config
	c.Host = host
	next := *f
	next.config = &c
	w.mu.Lock()
	w.policy = &next
	w.mu.Unlock()
	w.table = tableOf(&c, w.sockets.numbers, w.table.Trial)
}

// applyEffective puts in force what is good now.
func (w *Wall) applyEffective(now time.Time) {
	host := w.host()
	w.change.Lock()
	defer w.change.Unlock()
	if w.tornDown {
		return
	}
	w.openQueued() // rather than let who has knocked wait for another table
	f := w.current()
	c, err := effective.Resolve(f.config.Written, now, host)
	w.emitUnresolved(err)
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
	w.policy = &next
	w.mu.Unlock()
	err = w.install(c, w.sockets.numbers, w.knownWindows())
	if err != nil {
		w.mu.Lock()
		next.stale = true // to be tried again
		w.mu.Unlock()
	}
	if err != nil && !wasStale {
		w.trail.Record(audit.Event{Time: now, Kind: audit.Reloaded, Code: audit.CodeNextSequences, Failed: true,
			Reason: "the next sequences are not in force: " + err.Error()})
	}
	w.emitLow(c)
}

// install puts another table in place of the wall's own, with the windows that are open
// where it has to make their sets anew.
func (w *Wall) install(c *effective.Config, n nft.Numbers, windows []nft.Window) error {
	table := tableOf(c, n, w.table.Trial)
	if err := w.edges.Kernel.Install(table, windows, ""); err != nil {
		return err
	}
	w.table = table
	return nil
}

// emitUnresolved says, once, why nobody can open some doors by a sequence.
func (w *Wall) emitUnresolved(err error) {
	if err != nil && (w.unresolved == nil || err.Error() != w.unresolved.Error()) {
		w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Low, Code: audit.CodeNoSequence, Failed: true, Reason: err.Error()})
	}
	w.unresolved = err
}

// emitLow warns of doors with few one-time sequences left, once for each that is
// used.
func (w *Wall) emitLow(c *effective.Config) {
	for _, d := range c.Doors {
		stock := d.Stock()
		reported, known := w.lowEmitted[d.Name]
		if !stock.IsLow() || known && reported == stock.Left {
			continue
		}
		w.lowEmitted[d.Name] = stock.Left
		w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Low, Door: d.Name, Code: audit.CodeFewLeft, Reason: fmt.Sprintf(
			"sequences left in %s: %d", stock.Of, stock.Left)})
	}
}

func tableOf(c *effective.Config, n nft.Numbers, trial bool) *nft.Table {
	table := nft.NewTable(c, n)
	table.Trial = trial
	return table
}

// host returns what is known of the host. Where it cannot be known who listens, nobody
// is taken to: who wants to go there cannot knock for a while.
func (w *Wall) host() effective.Host {
	host, _ := w.edges.Look()
	return host
}
