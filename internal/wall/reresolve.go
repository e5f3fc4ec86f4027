package wall

import (
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
)

// The effective configuration changes with time: a rolling sequence with the clock, a
// list when a sequence of it is used, and a trap ends when a program begins to listen at
// its port. The table follows in one transaction that leaves its hooks and sets as they
// are.

const (
	// clockInterval is how often the clock is read, because it may be set. It is also
	// how often a failed install and an unreadable list are retried.
	clockInterval = time.Second
	// hostInterval is how often listening ports and other properties of the host are read.
	hostInterval = 10 * time.Second
)

// reresolve installs the configuration that is effective now, if it differs from the one
// in force.
func (w *Wall) reresolve(now time.Time) (next time.Time, ok bool) {
	w.mu.Lock()
	f := w.policy
	changed := f.stale || !f.config.IsOf(now)
	w.mu.Unlock()
	unread := f.config.HasUnread()
	if unread && now.Sub(w.listRetried) >= clockInterval {
		w.listRetried = now
		changed = changed || f.config.Readable(now)
	}
	if changed {
		w.applyEffective(now)
	}
	next, ok = f.config.Expires()
	again := changed || unread
	if again || next.Sub(now) > clockInterval {
		next = now.Add(clockInterval)
	}
	return next, ok || again
}

// checkHost updates the table after changes of the host.
func (w *Wall) checkHost(now time.Time) (next time.Time, ok bool) {
	if next = w.hostChecked.Add(hostInterval); next.After(now) {
		return next, true
	}
	w.hostChecked = now
	host, err := w.edges.Look()
	c := w.current().config
	switch {
	case err != nil: // the last known state is the better guess
	case !c.IsOn(host):
		w.applyEffective(now)
	case !c.Host.Same(host):
		w.describe(host)
	}
	return now.Add(hostInterval), true
}

// describe writes the known state of the host to the table's sets. If another process has
// just changed the table, reconcile puts it back, and the next check of the host
// describes it.
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

// applyEffective installs the configuration that is effective now.
func (w *Wall) applyEffective(now time.Time) {
	host := w.host()
	w.change.Lock()
	defer w.change.Unlock()
	if w.tornDown {
		return
	}
	w.windows.openQueued() // so that sources that have knocked do not wait for the new table
	f := w.current()
	c, err := effective.Resolve(f.config.Written, now, host)
	w.emitUnresolved(err)
	next := *f
	next.config, next.stale = c, false
	next.locks, next.locksOf = locksOf(c)
	// Change the tracker before the rules. The other order could miss a knock that only
	// the new sequences have.
	w.mu.Lock()
	for i, l := range next.locks {
		if !slices.Equal(l.steps, f.locks[i].steps) {
			next.tracker.Replace(i, l.steps)
		}
	}
	wasStale := f.stale
	w.policy = &next
	w.mu.Unlock()
	err = w.install(c, w.sockets.numbers, w.windows.known())
	if err != nil {
		w.mu.Lock()
		next.stale = true // reresolve tries again
		w.mu.Unlock()
	}
	if err != nil && !wasStale {
		w.trail.Record(audit.Event{Time: now, Kind: audit.Reloaded, Code: audit.CodeNextSequences, Failed: true,
			Reason: "the next sequences are not in force: " + err.Error()})
	}
	w.emitLow(c)
}

// install replaces the table. The windows are for sets that it has to make anew.
func (w *Wall) install(c *effective.Config, n nft.Numbers, windows []nft.Window) error {
	table := tableOf(c, n, w.table.Trial)
	if err := w.edges.Kernel.Install(table, windows, ""); err != nil {
		return err
	}
	w.table = table
	return nil
}

// emitUnresolved records once why some doors have no usable sequence.
func (w *Wall) emitUnresolved(err error) {
	if err != nil && (w.unresolved == nil || err.Error() != w.unresolved.Error()) {
		w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Low, Code: audit.CodeNoSequence, Failed: true, Reason: err.Error()})
	}
	w.unresolved = err
}

// emitLow warns of doors with few one-time sequences left, once for each number left.
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

// host returns what is known of the host. If the listening ports are unknown, it is
// assumed that nothing listens. Clients of those services then fall into traps, and
// cannot knock for a while.
func (w *Wall) host() effective.Host {
	host, _ := w.edges.Look()
	return host
}
