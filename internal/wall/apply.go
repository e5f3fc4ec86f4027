package wall

import (
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// Apply puts up the wall that a configuration describes, in place of the one
// that stands, if any, whose open windows, attempts under way and waiting packets
// it takes over. After an error all is as it was.
func (w *Wall) Apply(c *ruleset.Config) error {
	w.lockAfterRetirement()
	defer w.change.Unlock()
	if w.OnTrial() {
		return ErrOnTrial
	}
	return w.apply(c, false, requested)
}

// lockAfterRetirement locks change when the sockets of an earlier reload, whose handlers
// may want it, too, are closed: their numbers may be wanted again.
func (w *Wall) lockAfterRetirement() {
	for {
		w.change.Lock()
		retirement := w.retirement
		select {
		case <-retirement:
			return
		default:
		}
		w.change.Unlock()
		<-retirement
	}
}

// apply is called with change held. A wall on trial that none stood before goes
// with the daemon, where the kernel can see to that.
func (w *Wall) apply(written *ruleset.Config, onTrial bool, why cause) error {
	if w.tornDown {
		return ErrStopping
	}
	w.openQueued() // rather than let who has knocked wait for another table
	if err := w.checkFree(&written.Wall); err != nil {
		return err
	}
	now := time.Now()
	c, unresolved := effective.Resolve(written, now, w.host())
	former := w.current()
	if unresolved != nil && former != nil && why.code != audit.CodeNotConfirmed {
		return unresolved // else the wall matters more than one door
	}
	replaced := c.Wall.Table
	if former != nil {
		replaced = former.config.Wall.Table // of another name, perhaps
	}
	read := time.Now()
	standing, err := w.edges.Kernel.Standing(replaced)
	if err != nil && former == nil {
		return err
	}
	if onTrial && standing != nil {
		return errTableExists
	}
	if err == nil && standing == nil {
		replaced = ""
	}
	next := w.newPolicy(c, now)
	s, err := w.socketsFor(c, standing)
	if err != nil {
		return err
	}
	undo := func() {
		if s != w.sockets {
			s.close()
		}
		if former == nil && w.watch != nil {
			go w.watch.Close() // which waits for who waits for change
			w.watch = nil
		}
	}
	if former == nil && w.edges.Watch != nil {
		watch, err := w.edges.Watch(w.changed, w.fail)
		if err != nil {
			undo()
			return err
		}
		w.watch = watch
	}
	if _, err := w.edges.Adopt(next.guardsAny, false); err != nil {
		undo()
		return err
	}
	var windows []nft.Window
	switch {
	case standing != nil && (former == nil || !standing.Restored):
		windows = next.keptWindows(standing.Windows, time.Since(read))
	case former != nil: // somebody has deleted or replaced the table this very moment, or it cannot be read
		windows = next.keptWindows(w.knownWindows(), 0)
	}
	w.recordWindows(windows, next)

	table := tableOf(c, s.numbers, onTrial)
	// What the old rules hand on is judged by the new configuration from now on:
	// the other way round a knock that only the new one knows could be missed.
	w.switchPolicy(next)
	if err := w.edges.Kernel.Install(table, windows, replaced); err != nil {
		var back *policy
		if former != nil {
			back = w.newPolicy(former.config, now)
			back.stale = former.stale
		}
		w.mu.Lock()
		if back != nil {
			copy(back.tallies, former.tallies)
			back.inherit(next)
		}
		w.policy = back
		w.mu.Unlock()
		undo()
		return err
	}
	// Once more, for those that were made meanwhile. The wall stands by now, and
	// most will have been seen by the kernel itself.
	_, _ = w.edges.Adopt(next.guardsAny, false)
	w.table = table
	if former == nil || len(w.endedSources) > 0 { // or by other doors than those noted
		w.readEndedSources(next)
	}
	w.finishApply(next, s, former, windows, why)
	w.emitUnresolved(unresolved)
	return nil
}

// socketsFor returns the sockets for a configuration: those that there are, or,
// if it has other numbers or there are none, new ones that no rule names yet.
func (w *Wall) socketsFor(c *effective.Config, standing *nft.Standing) (*sockets, error) {
	w.mu.Lock()
	current := w.sockets
	w.mu.Unlock()
	for bank := range 2 {
		if n := nft.NumbersOf(c.Wall, bank); current != nil && current.numbers == n {
			return current, nil
		}
	}
	for bank := range 2 {
		n := nft.NumbersOf(c.Wall, bank)
		if (standing == nil || !standing.Names(n)) && (current == nil || !overlap(current.numbers, n)) {
			return w.listen(n)
		}
	}
	return nil, fmt.Errorf("the table inet %s that stands uses some of the numbers of each bank: "+
		"give nflog_group and queue in the rule files numbers that are further off", c.Wall.Table)
}

func overlap(a, b nft.Numbers) bool {
	queues := []uint16{b.Admitted, b.Strangers, b.Excess}
	return a.LogGroup == b.LogGroup || slices.Contains(queues, a.Admitted) ||
		slices.Contains(queues, a.Strangers) || slices.Contains(queues, a.Excess)
}

// checkFree makes sure that nobody else listens where this wall may want to, and,
// at the first start, that no wall of another name queues there: a second daemon
// would take the wall from the first.
func (w *Wall) checkFree(wall *ruleset.Wall) error {
	for bank := range 2 {
		if err := w.inUse(nft.NumbersOf(wall, bank)); err != nil {
			return err
		}
	}
	if w.sockets != nil {
		return nil
	}
	others, err := w.edges.Kernel.Others(wall.Table)
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.Names(nft.NumbersOf(wall, 0)) || other.Names(nft.NumbersOf(wall, 1)) {
			return fmt.Errorf("the table inet %[1]s is another wall's, and its rules name the same groups and queues: "+
				"take it down with `nft delete table inet %[1]s`, or give nflog_group and queue other numbers in the rule files", other.Table)
		}
	}
	return nil
}

// inUse returns an [*InUseError] if another process listens to any of the numbers.
func (w *Wall) inUse(n nft.Numbers) error {
	var own nft.Numbers
	if w.sockets != nil {
		own = w.sockets.numbers
	}
	if w.sockets == nil || n.LogGroup != own.LogGroup {
		inUse, err := w.edges.LogInUse(n.LogGroup)
		if err != nil {
			return err
		}
		if inUse {
			return &InUseError{fmt.Sprintf("NFLOG group %d", n.LogGroup), "nflog_group"}
		}
	}
	for _, number := range []uint16{n.Admitted, n.Strangers, n.Excess} {
		if w.sockets != nil && (number == own.Admitted || number == own.Strangers || number == own.Excess) {
			continue
		}
		inUse, err := w.edges.QueueInUse(number)
		if err != nil {
			return err
		}
		if inUse {
			return &InUseError{fmt.Sprintf("queue %d", number), "queue"}
		}
	}
	return nil
}

// note notes windows that were found in the kernel, unless they are known. Those
// that are keep count of their connections.
func (w *Wall) recordWindows(windows []nft.Window, next *policy) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, win := range windows {
		id := w.doorID(win.Door)
		if w.windows.Get(id, win.Source) == nil {
			limit := next.config.Doors[next.doorNamed(win.Door)].MaxConnections
			w.windows.Open(id, win.Source, now, now.Add(win.Left), limit)
			w.windows.Stands(id, win.Source, now.Add(win.Left))
		}
	}
}

// forgetAllBut forgets the windows that the kernel has no more, and returns what
// to tell of it.
func (w *Wall) closeMissing(windows []nft.Window, now time.Time) (events []audit.Event) {
	type key struct {
		id     int
		source packet.Source
	}
	open := make(map[key]bool, len(windows))
	for _, win := range windows {
		open[key{w.doorID(win.Door), win.Source}] = true
	}
	var gone []*sequence.Window
	for win := range w.windows.All() {
		if !win.Spent() && !open[key{win.Door, win.Source}] {
			gone = append(gone, win)
		}
	}
	for _, win := range gone {
		if i := w.policy.doorNamed(w.doors[win.Door]); i >= 0 {
			w.policy.tallies[i].Add(audit.Closed)
		}
		w.windows.Close(win.Door, win.Source)
		events = append(events, audit.Event{Time: now, Kind: audit.Closed, Door: w.doors[win.Door], Source: win.Source,
			Code: audit.CodeNewRules, Reason: "the new rules have no such door, or tell sources apart otherwise"})
	}
	return events
}

// doorID returns the id of a door of that name. It is called with mu held.
func (w *Wall) doorID(name string) int {
	id, ok := w.doorIDs[name]
	if !ok {
		id = len(w.doors)
		w.doors = append(w.doors, name)
		w.doorIDs[name] = id
	}
	return id
}

// advance lets the next front judge, which takes over what the former one knows.
func (w *Wall) switchPolicy(next *policy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.policy != nil {
		next.inherit(w.policy)
	}
	w.policy = next
}

// stand notes that the wall stands.
func (w *Wall) finishApply(next *policy, s *sockets, former *policy, windows []nft.Window, why cause) {
	now := time.Now()
	w.mu.Lock()
	s.hold.SetWait(next.config.Wall.Hold)
	retired := w.sockets
	w.sockets = s
	if retired != nil && retired != s {
		s.former = retired
		retired.former = nil // which is closed
	}
	if len(windows) > 0 { // what they have left was read some time ago
		w.uncertainUntil = now.Add(ruleset.MaxWindow)
	}
	e := audit.Event{Time: now, Kind: audit.Reloaded, Code: why.code, Failed: why.code == audit.CodeNotConfirmed}
	if former == nil {
		e.Kind = audit.Started
		w.since = now
	} else {
		w.evicted += former.tracker.Evicted()
	}
	closed := w.closeMissing(windows, now)
	w.mu.Unlock()
	w.record(closed)
	if retired != nil && retired != s {
		retirement := make(chan struct{})
		w.retirement = retirement
		go func() {
			defer close(retirement)
			retired.retire()
		}()
	}
	w.wakeHousekeeping()
	e.Reason = fmt.Sprintf("%sdoors: %d, windows open: %d", why.prose, len(next.config.Doors), len(windows))
	w.trail.Record(e)
	w.emitLow(next.config)
	if former == nil {
		open := make(map[windowKey]bool, len(windows))
		for _, win := range windows {
			open[windowKey{win.Door, win.Source}] = true
		}
		w.commands.resume(open)
	}
}
