package wall

import (
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
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
func (r *rules) reresolve(now time.Time) (next time.Time, ok bool) {
	f := r.packets.current()
	changed := r.packets.isStale(f) || !f.config.IsOf(now)
	unread := f.config.HasUnread()
	if unread && now.Sub(r.listRetried) >= clockInterval {
		r.listRetried = now
		changed = changed || f.config.Readable(now)
	}
	if changed {
		r.applyEffective(now)
	}
	next, ok = f.config.Expires()
	again := changed || unread
	if again || next.Sub(now) > clockInterval {
		next = now.Add(clockInterval)
	}
	return next, ok || again
}

// checkHost updates the table after changes of the host.
func (r *rules) checkHost(now time.Time) {
	host, err := r.edges.Look()
	c := r.packets.config()
	switch {
	case err != nil: // the last known state is the better guess
	case !c.IsOn(host):
		r.applyEffective(now)
	case !c.Host.Same(host):
		r.describe(host)
	}
}

// describe writes the known state of the host to the table's sets. If another process has
// just changed the table, reconcile puts it back, and the next check of the host
// describes it.
func (r *rules) describe(host effective.Host) {
	r.table.change.Lock()
	defer r.table.change.Unlock()
	if r.table.tornDown {
		return
	}
	f := r.packets.current()
	if r.edges.Kernel.Describe(f.config.Wall.Table, host) != nil {
		return
	}
	c := *f.config
	c.Host = host
	next := *f
	next.config = &c
	r.packets.substitute(&next)
	r.table.table = tableOf(&c, r.packets.present().numbers, r.table.table.Trial)
}

// consumed installs the next sequences after one that is valid once was used.
func (r *rules) consumed() {
	r.applyEffective(time.Now())
	r.wake() // that may have to be retried
}

// applyEffective installs the configuration that is effective now.
func (r *rules) applyEffective(now time.Time) {
	host := r.host()
	r.table.change.Lock()
	defer r.table.change.Unlock()
	if r.table.tornDown {
		return
	}
	r.windows.openQueued() // so that sources that have knocked do not wait for the new table
	f := r.packets.current()
	c, err := effective.Resolve(f.config.Written, now, host)
	r.stocks.warnUnresolved(err)
	next := *f
	next.config, next.stale = c, false
	next.locks, next.locksOf = locksOf(c)
	// Change the tracker before the rules. The other order could miss a knock that only
	// the new sequences have.
	wasStale := r.packets.isStale(f)
	r.packets.substitute(&next)
	err = r.table.replace(c, r.packets.present().numbers, r.windows.known())
	if err != nil {
		r.packets.markStale(&next) // reresolve tries again
	}
	if err != nil && !wasStale {
		r.trail.Record(audit.Event{Time: now, Kind: audit.Reloaded, Code: audit.CodeNextSequences, Failed: true,
			Reason: "the next sequences are not in force: " + err.Error()})
	}
	r.stocks.warnLow(c)
}

// host returns what is known of the host. If the listening ports are unknown, it is
// assumed that nothing listens. Clients of those services then fall into traps, and
// cannot knock for a while.
func (r *rules) host() effective.Host {
	host, _ := r.edges.Look()
	return host
}
