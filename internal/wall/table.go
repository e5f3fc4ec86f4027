package wall

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/sessions"
)

// installation is the table in the kernel. It holds the lock of everything that changes
// the table or a window in it, and puts the table back after others have changed it.
type installation struct {
	edges   *Edges
	trail   *audit.Summer
	life    *lifecycle
	windows restorable

	// change is held while the table, or a window in it, changes: transactions happen
	// under it. It guards the fields below it.
	change     sync.Mutex
	table      *nft.Table    // the one that is installed
	watch      io.Closer     // reports changes by other processes
	tornDown   bool          // the daemon is stopping: nothing is installed any more
	disturbed  bool          // another process may have changed the table since, which is not put back
	retirement chan struct{} // closed when no sockets are being retired

	mu          sync.Mutex
	reconciling time.Time    // when the reconciliation under way began; zero: none
	reconciled  time.Time    // when the last one began or ended
	counts      audit.Counts // events that belong to no door
}

// restorable is what an installation asks of the windows when it puts the table back.
type restorable interface {
	known() iter.Seq[nft.Window]    // the windows that the table must have
	putBack() int                   // the table has them again; how many they are
	admits(s sessions.Session) bool // whether a source needs no knock at a port now
}

func newInstallation(edges *Edges, trail *audit.Summer, life *lifecycle, windows restorable) *installation {
	retirement := make(chan struct{})
	close(retirement)
	return &installation{edges: edges, trail: trail, life: life, windows: windows, retirement: retirement}
}

// begin locks change once the sockets of an earlier reload are closed, because the next
// table may need their numbers. It does not hold change while it waits: the handlers of
// these sockets may need it. Call end afterwards.
func (in *installation) begin() {
	for {
		in.change.Lock()
		retirement := in.retirement
		select {
		case <-retirement:
			return
		default:
		}
		in.change.Unlock()
		<-retirement
	}
}

// end unlocks change after begin.
func (in *installation) end() { in.change.Unlock() }

// retire closes the former sockets of the table beside everything else. It is called with
// change held.
func (in *installation) retire(former *sockets) {
	retirement := make(chan struct{})
	in.retirement = retirement
	go func() {
		defer close(retirement)
		former.retire()
	}()
}

// replace replaces the table. The windows are for sets that it has to make anew. It is
// called with change held.
func (in *installation) replace(c *effective.Config, n nft.Numbers, windows iter.Seq[nft.Window]) error {
	table := tableOf(c, n, in.table.Trial)
	if err := in.edges.Kernel.Install(table, windows, ""); err != nil {
		return err
	}
	in.table = table
	return nil
}

// makeLasting makes a table on trial one that stays without the daemon. It is called with
// change held.
func (in *installation) makeLasting() error {
	if !in.table.Trial {
		return nil
	}
	lasting := *in.table
	lasting.Trial = false
	if err := in.edges.Kernel.Install(&lasting, in.windows.known(), ""); err != nil {
		return err
	}
	in.table = &lasting
	return nil
}

func tableOf(c *effective.Config, n nft.Numbers, trial bool) *nft.Table {
	table := nft.NewTable(c, n)
	table.Trial = trial
	return table
}

// startWatching begins to watch for changes by other processes, where the kernel allows
// them. It is called with change held.
func (in *installation) startWatching() (err error) {
	if in.edges.Watch != nil {
		in.watch, err = in.edges.Watch(in.changed, in.life.fail)
	}
	return err
}

// stopWatching ends watching. It is called with change held, and does not wait: a callback
// may wait for change.
func (in *installation) stopWatching() {
	if in.watch != nil {
		go in.watch.Close()
		in.watch = nil
	}
}

// Pauses between tries to put the wall back, and how long it is tried.
const (
	firstPause       = 10 * time.Millisecond
	maxPause         = time.Second
	reconcileTimeout = time.Minute
)

// changed handles changes that other processes make to tables, where the kernel allows
// them.
func (in *installation) changed(c nft.Change) {
	in.change.Lock()
	defer in.change.Unlock()
	if in.table == nil {
		return
	}
	if in.tornDown {
		in.disturbed = in.disturbed || len(c.Tables) == 0 || slices.Contains(c.Tables, in.table.Name)
		return
	}
	switch {
	case len(c.Tables) == 0:
		// Messages were lost: what has changed is unknown.
		if intact, err := in.edges.Kernel.Intact(in.table); err == nil && intact {
			return
		}
	case !slices.Contains(c.Tables, in.table.Name):
		return
	}
	in.reconcile(c.By)
}

// reconcileIfChanged puts the wall back if it is not as it was installed, and reports
// whether it did. It is called with change held.
func (in *installation) reconcileIfChanged() bool {
	if in.tornDown {
		return false
	}
	if intact, err := in.edges.Kernel.Intact(in.table); err != nil || intact {
		return false
	}
	return in.reconcile("")
}

// reconcile puts the wall back with all recorded windows, and reports whether it
// succeeded. It is called with change held.
func (in *installation) reconcile(by string) bool {
	began := time.Now()
	in.setReconciling(began)
	defer in.setReconciling(time.Time{})
	if err := in.restore(began); err != nil {
		return false
	}
	open := in.windows.putBack()
	in.mu.Lock()
	in.counts.Add(audit.Healed)
	in.mu.Unlock()
	// Conntrack lacks the connections that began while there was no wall. Seed only those
	// that the wall would admit.
	_, _ = in.edges.SeedConntrack(in.windows.admits, true)
	if by == "" {
		by = "somebody"
	}
	in.trail.Record(audit.Event{Time: began, Kind: audit.Healed, Code: audit.CodePutBack, Reason: fmt.Sprintf(
		"the wall was changed by %s and is put back, windows open: %d", by, open)})
	return true
}

// restore puts the wall back, and tries that again until it succeeds, the daemon stops, or
// it has taken too long, which ends Run.
func (in *installation) restore(began time.Time) error {
	err := in.edges.Kernel.Restore(in.table, in.windows.known())
	for pause := firstPause; err != nil; pause = min(2*pause, maxPause) {
		// The host has no wall now. The cause of the error may go away.
		if pause == firstPause {
			in.trail.Record(audit.Event{Time: began, Kind: audit.Healed, Code: audit.CodeNotPutBack, Failed: true,
				Reason: "the wall was changed and cannot be put back yet: " + err.Error()})
		}
		if time.Since(began) > reconcileTimeout {
			in.life.fail(err)
			return err
		}
		select {
		case <-in.life.ending:
			return err
		case <-time.After(pause):
		}
		err = in.edges.Kernel.Restore(in.table, in.windows.known())
	}
	return nil
}

// setReconciling records since when the wall is being put back; zero: it is not. Handlers
// of knocks and housekeeping may have to wait that long.
func (in *installation) setReconciling(since time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reconciling, in.reconciled = since, time.Now()
}

// reconciliation returns since when the wall is being put back, zero if it is not, and
// when the last reconciliation began or ended.
func (in *installation) reconciliation() (since, last time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.reconciling, in.reconciled
}

// events returns the counts of events that belong to no door.
func (in *installation) events() audit.Counts {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.counts
}
