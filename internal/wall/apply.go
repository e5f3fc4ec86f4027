package wall

import (
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
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
	if !r.packets.doors.hasRoom(c) {
		return errManyNames
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

// errManyNames says that a door can get no id.
var errManyNames = fmt.Errorf("doors of %d different names have been in force since the daemon started, and there is no room for more: restart it, which keeps the open windows", maxDoorIDs)

// reload is the replacement of the rules in force, or their first installation.
type reload struct {
	*rules
	former   *policy // nil: none
	next     *policy
	began    time.Time
	replaced string        // the table that is installed; "": none
	standing *nft.Standing // what is in that table; nil: there is none, or it cannot be read
	sockets  *sockets
	// found are the windows of a table that others may have changed while this daemon ran;
	// nil: the record has all.
	found *sequence.Windows
}

// readTable reads the table that is to be replaced.
func (l *reload) readTable(onTrial bool) (err error) {
	l.replaced = l.next.config.Wall.Table
	if l.former == nil {
		l.rules.windows.start()
	} else {
		l.replaced = l.former.config.Wall.Table // the name may differ
	}
	l.standing, err = l.edges.Kernel.Standing(l.replaced)
	switch {
	case err != nil && l.former == nil:
		return err
	case onTrial && l.standing != nil:
		return errTableExists
	case err == nil && l.standing == nil:
		l.replaced = ""
	}
	if l.standing == nil || l.standing.Restored || l.standing.Owned {
		return nil
	}
	return l.readWindows()
}

// readWindows reads the windows of the table that is to be replaced.
func (l *reload) readWindows() error {
	ws := l.rules.windows
	if l.former == nil {
		if ws.adoptKept(l.replaced, l.next) {
			return nil
		}
		all, err := l.edges.Kernel.Windows(l.standing, func() {}, func(w nft.Window) { ws.adoptFound(w, l.next) })
		if err == nil && !all {
			ws.miss()
		}
		return err
	}
	found := sequence.NewWindows()
	all, err := l.edges.Kernel.Windows(l.standing, func() { found = sequence.NewWindows() }, func(w nft.Window) {
		now := time.Now()
		id := ws.doors.id(w.Door)
		found.Open(id, w.Source, now, now.Add(w.Left), 0)
		ws.adoptFound(w, l.next)
	})
	if err == nil && all { // else the record stands
		l.found = found
	}
	return nil
}

// stands reports whether a recorded window is in the table that is replaced.
func (l *reload) stands(door string, source packet.Source) bool {
	return l.found == nil || !l.found.Get(l.rules.windows.doors.id(door), source).IsNone()
}

// keeps reports whether a window stays open.
func (l *reload) keeps(door string, source packet.Source) bool {
	return l.next.hasSource(door, source) && l.stands(door, source)
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

// checkRoom returns an error if a door has more windows than its sets have room for. The
// kernel would refuse the whole table, and not say why.
func (l *reload) checkRoom() error {
	ws, most := l.rules.windows, l.next.config.Wall.MaxWindows
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for i, id := range l.next.ids {
		d := &l.next.config.Doors[i]
		if l.former != nil && !l.next.dividesAs(l.former, d.Name) {
			continue // its windows close
		}
		if n := ws.record.Most(id); n > most {
			return fmt.Errorf("door %s has %d open windows of one IP version, and max_windows is %d in the new rules: "+
				"close some of them, or write a number of at least %d", d.Name, n, most, n)
		}
	}
	return nil
}

// install replaces the table. After an error, the former policy is in force again.
func (l *reload) install(onTrial bool) error {
	if err := l.checkRoom(); err != nil {
		return err
	}
	// From here on, the new configuration decides about packets that the old rules send.
	// The other order could miss a knock that only the new configuration has.
	l.packets.use(l.next)
	table := tableOf(l.next.config, l.sockets.numbers, onTrial)
	windows := func(yield func(nft.Window) bool) {
		for w := range l.rules.windows.knownWith(l.stands) {
			l.rules.windows.doubt() // the kernel will have them for a little longer than recorded
			if !yield(w) {
				return
			}
		}
	}
	if err := l.edges.Kernel.Install(table, windows, l.replaced); err != nil {
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
	if l.former == nil || l.found != nil || !l.next.dividesAllAs(l.former) {
		l.rules.windows.closeOthers(l.keeps, now, l.former != nil)
	}
	l.rules.windows.changes.forget()
	if retired != nil {
		l.table.retire(retired)
	}
	l.wake()
	e.Reason = fmt.Sprintf("%sdoors: %d, windows open: %d", why.prose, len(l.next.config.Doors), l.rules.windows.count())
	l.trail.Record(e)
	l.stocks.warnLow(l.next.config)
	if l.former == nil {
		if kept := l.edges.Kept; kept != nil {
			_ = kept.Forget() // it is of an earlier generation now, and takes room only
		}
		l.commands.resume(func(key windowKey) bool {
			win, known := l.rules.windows.get(l.rules.windows.doors.id(key.door), key.source)
			return known && !win.Spent && win.Until.After(now)
		})
	}
}
