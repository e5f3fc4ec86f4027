package wall

import (
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/ruleset"
)

// Apply installs the wall that a configuration describes. If one is installed already,
// Apply replaces it and takes over its open windows, attempts and held packets. After an
// error, everything is as before.
func (w *Wall) Apply(c *ruleset.Config) error {
	w.lockAfterRetirement()
	defer w.change.Unlock()
	if w.OnTrial() {
		return ErrOnTrial
	}
	return w.apply(c, false, requested)
}

// lockAfterRetirement locks change once the sockets of an earlier reload are closed,
// because the next table may need their numbers. It does not hold change while it waits:
// the handlers of these sockets may need it.
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

// apply installs a wall. It is called with change held. A wall with onTrial set, which is
// the first of this daemon, disappears with the daemon where the kernel supports that.
func (w *Wall) apply(written *ruleset.Config, onTrial bool, why cause) error {
	if w.tornDown {
		return ErrStopping
	}
	w.windows.openQueued() // so that sources that have knocked do not wait for the new table
	if err := w.checkFree(&written.Wall); err != nil {
		return err
	}
	now := time.Now()
	c, unresolved := effective.Resolve(written, now, w.host())
	former := w.current()
	if unresolved != nil && former != nil && why.code != audit.CodeNotConfirmed {
		return unresolved // otherwise the wall is installed without the sequences of some doors
	}
	replaced := c.Wall.Table
	if former != nil {
		replaced = former.config.Wall.Table // the name may differ
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
			go w.watch.Close() // not here: Close waits for a callback that may wait for change
			w.watch = nil
		}
	}
	if former == nil && w.edges.Watch != nil {
		watch, err := w.edges.Watch(w.changed, w.life.fail)
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
	case former != nil: // another process has just deleted or replaced the table, or it cannot be read
		windows = next.keptWindows(w.windows.known(), 0)
	}
	w.windows.adopt(windows, next)

	table := tableOf(c, s.numbers, onTrial)
	// From here on, the new configuration decides about packets that the old rules send.
	// The other order could miss a knock that only the new configuration has.
	w.switchPolicy(next)
	if err := w.edges.Kernel.Install(table, windows, replaced); err != nil {
		var back *policy
		if former != nil {
			back = w.newPolicy(former.config, now)
			back.stale = former.stale
		}
		w.mu.Lock()
		if back != nil {
			back.inherit(next)
		}
		w.policy = back
		w.mu.Unlock()
		undo()
		return err
	}
	// Adopt again for connections that began meanwhile. The wall is installed now, so the
	// kernel has seen most of them itself.
	_, _ = w.edges.Adopt(next.guardsAny, false)
	w.table = table
	if former == nil || len(w.endedSources) > 0 { // the doors of the recorded ones may have changed
		w.readEndedSources(next)
	}
	w.finishApply(next, s, former, windows, why)
	w.emitUnresolved(unresolved)
	return nil
}

// socketsFor returns the sockets for a configuration: the present ones, or new ones that
// no rule uses yet if the numbers differ or there are none.
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
	return nil, fmt.Errorf("the installed table inet %s uses some of the same group and queue numbers: "+
		"set nflog_group and queue in the rule files to numbers that are further away", c.Wall.Table)
}

func overlap(a, b nft.Numbers) bool {
	queues := []uint16{b.Admitted, b.Strangers, b.Excess}
	return a.LogGroup == b.LogGroup || slices.Contains(queues, a.Admitted) ||
		slices.Contains(queues, a.Strangers) || slices.Contains(queues, a.Excess)
}

// checkFree returns an error if another process has bound a group or queue that this wall
// may use. At the first start it also returns an error if the table of another wall uses
// them: a second daemon would take the packets of the first.
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
			return fmt.Errorf("the table inet %[1]s belongs to another wall and uses the same group and queue numbers: "+
				"delete it with `nft delete table inet %[1]s`, or set nflog_group and queue in the rule files to other numbers", other.Table)
		}
	}
	return nil
}

// inUse returns an [*InUseError] if another process has bound any of the numbers.
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

// switchPolicy makes next the policy that decides about packets. It takes over the state
// of the former one.
func (w *Wall) switchPolicy(next *policy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.policy != nil {
		next.inherit(w.policy)
	}
	w.policy = next
}

// finishApply records that a table was installed, retires the former sockets and writes
// the events.
func (w *Wall) finishApply(next *policy, s *sockets, former *policy, windows []nft.Window, why cause) {
	now := time.Now()
	w.mu.Lock()
	s.hold.SetWait(next.config.Wall.Hold)
	retired := w.sockets
	w.sockets = s
	if retired != nil && retired != s {
		s.former = retired
		retired.former = nil // the one before is closed
	}
	e := audit.Event{Time: now, Kind: audit.Reloaded, Code: why.code, Failed: why.code == audit.CodeNotConfirmed}
	if former == nil {
		e.Kind = audit.Started
		w.since = now
	} else {
		w.evicted += former.tracker.Evicted()
	}
	w.mu.Unlock()
	w.windows.reconcileWith(windows, now)
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
