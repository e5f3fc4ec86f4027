package wall

import (
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/ruleset"
)

// rules puts rules in force.
type rules struct {
	edges    *Edges
	trail    *audit.Summer
	table    *installation
	packets  *packets
	windows  *windows
	sessions *endedSessions
	commands *commands
	stocks   stocks
	wake     func() // housekeeping

	listRetried time.Time // when reading an unreadable list was last retried; only reresolve uses it
}

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
	reverted     = cause{audit.CodeReverted, "the trial was ended, and the former rules are back; "}
)

// apply installs a wall. If one is installed already, it replaces it and takes over its
// open windows, attempts and held packets. After an error, everything is as before. A wall
// with onTrial set, which is the first of this daemon, disappears with the daemon where
// the kernel supports that. It is called with change held.
func (r *rules) apply(written *ruleset.Config, onTrial bool, why cause) error {
	if r.table.tornDown {
		return ErrStopping
	}
	r.windows.openQueued() // so that sources that have knocked do not wait for the new table
	if err := r.checkFree(&written.Wall); err != nil {
		return err
	}
	now := time.Now()
	c, unresolved := effective.Resolve(written, now, r.host())
	former := r.packets.current()
	if unresolved != nil && former != nil && why != notConfirmed && why != reverted {
		return unresolved // otherwise the wall is installed without the sequences of some doors
	}
	l := &reload{rules: r, former: former, next: r.packets.newPolicy(c, now), began: now}
	if err := l.readTable(onTrial); err != nil {
		return err
	}
	if err := l.bind(); err != nil {
		return err
	}
	if err := l.install(onTrial); err != nil {
		l.release()
		return err
	}
	l.finish(why)
	r.stocks.warnUnresolved(unresolved)
	return nil
}

// reload is the replacement of the rules in force, or their first installation.
type reload struct {
	*rules
	former   *policy // nil: none
	next     *policy
	began    time.Time
	replaced string        // the table that is installed; "": none
	standing *nft.Standing // what is in that table; nil: there is none, or it cannot be read
	read     time.Time     // when it was read
	sockets  *sockets
	windows  []nft.Window // those that stay open
}

// readTable reads the table that is to be replaced.
func (l *reload) readTable(onTrial bool) (err error) {
	l.replaced = l.next.config.Wall.Table
	if l.former != nil {
		l.replaced = l.former.config.Wall.Table // the name may differ
	}
	l.read = time.Now()
	l.standing, err = l.edges.Kernel.Standing(l.replaced)
	switch {
	case err != nil && l.former == nil:
		return err
	case onTrial && l.standing != nil:
		return errTableExists
	case err == nil && l.standing == nil:
		l.replaced = ""
	}
	return nil
}

// bind prepares what the new table needs: its sockets, the watch for changes by other
// processes, and the connections that are older than the wall.
func (l *reload) bind() (err error) {
	if l.sockets, err = l.socketsFor(l.next.config, l.standing); err != nil {
		return err
	}
	if l.former == nil {
		err = l.table.startWatching()
	}
	if err == nil {
		_, err = l.edges.SeedConntrack(l.next.guardsAny, false)
	}
	if err != nil {
		l.release()
	}
	return err
}

// release undoes bind.
func (l *reload) release() {
	if l.sockets != l.packets.present() {
		l.sockets.close()
	}
	if l.former == nil {
		l.table.stopWatching()
	}
}

// checkRoom returns an error if a door would have more windows than its sets have room for.
// The kernel would refuse the whole table, and not say why.
func checkRoom(windows []nft.Window, maxWindows int) error {
	sets := map[doorSet]int{}
	for _, win := range windows {
		sets[doorSet{win.Door, win.Source.Addr().Is4()}]++
	}
	for set, n := range sets {
		if n > maxWindows {
			return fmt.Errorf("door %s has %d open windows of one IP version, and max_windows is %d in the new rules: "+
				"close some of them, or write a number of at least %d", set.door, n, maxWindows, n)
		}
	}
	return nil
}

// install replaces the table. After an error, the former policy is in force again.
func (l *reload) install(onTrial bool) error {
	switch {
	case l.standing != nil && (l.former == nil || !l.standing.Restored):
		l.windows = l.next.keptWindows(l.standing.Windows, time.Since(l.read))
	case l.former != nil: // another process has just deleted or replaced the table, or it cannot be read
		l.windows = l.next.keptWindows(l.rules.windows.known(), 0)
	}
	if err := checkRoom(l.windows, l.next.config.Wall.MaxWindows); err != nil {
		return err
	}
	l.rules.windows.adopt(l.windows, l.next)
	// From here on, the new configuration decides about packets that the old rules send.
	// The other order could miss a knock that only the new configuration has.
	l.packets.use(l.next)
	table := tableOf(l.next.config, l.sockets.numbers, onTrial)
	if err := l.edges.Kernel.Install(table, l.windows, l.replaced); err != nil {
		l.packets.giveUp(l.former, l.began)
		return err
	}
	l.table.table = table
	return nil
}

// finish retires the former sockets and writes the events, after the table was installed.
func (l *reload) finish(why cause) {
	// Seed again for connections that began meanwhile. The wall is installed now, so the
	// kernel has seen most of them itself.
	_, _ = l.edges.SeedConntrack(l.next.guardsAny, false)
	if l.former == nil || l.sessions.any() { // the doors of the recorded ones may have changed
		l.sessions.read(l.next)
	}
	now := time.Now()
	e := audit.Event{Time: now, Kind: audit.Reloaded, Code: why.code, Failed: why.code == audit.CodeNotConfirmed}
	if l.former == nil {
		e.Kind = audit.Started
	}
	retired := l.packets.exchange(l.sockets, l.former, now)
	l.rules.windows.reconcileWith(l.windows, now)
	l.rules.windows.changes.forget()
	if retired != nil {
		l.table.retire(retired)
	}
	l.wake()
	e.Reason = fmt.Sprintf("%sdoors: %d, windows open: %d", why.prose, len(l.next.config.Doors), len(l.windows))
	l.trail.Record(e)
	l.stocks.warnLow(l.next.config)
	if l.former == nil {
		open := make(map[windowKey]bool, len(l.windows))
		for _, win := range l.windows {
			open[windowKey{win.Door, win.Source}] = true
		}
		l.commands.resume(open)
	}
}
