package wall

import (
	"errors"
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/progress"
)

// housekeepingTimeout is how long one round of housekeeping may take. A round begins at
// least every [audit.SumInterval].
const housekeepingTimeout = 30 * time.Second

// watchdog has what was seen at the last call of Alive. Only Alive uses it.
type watchdog struct {
	sockets                  *sockets
	log, admitted, strangers progress.Progress
	openings, verifications  progress.Progress
}

// Alive returns an error if the daemon hangs: if packets wait and none of them was
// handled since the previous call, which should be some seconds ago, or if housekeeping
// does not complete. If the whole daemon hangs, Alive does not return. Only one goroutine
// may call it.
func (w *Wall) Alive() error {
	s, completed := w.packets.present(), w.housekeeping.completed()
	if s == nil || completed.IsZero() {
		return nil // the wall is not installed yet
	}
	reconciling, reconciled := w.table.reconciliation()
	if !reconciling.IsZero() && time.Since(reconciling) < reconcileTimeout+housekeepingTimeout {
		// A daemon killed now would lose the windows: only it knows them. The time for
		// reconciling is limited anyway.
		w.watchdog = watchdog{}
		return nil
	}
	earlier := w.watchdog
	w.watchdog = watchdog{s, s.log.Progress(), s.admitted.Progress(), s.strangers.Progress(), w.windows.queue.progress(), w.packets.verifications.progress()}
	if earlier.sockets == s {
		if err := w.watchdog.hung(earlier); err != nil {
			return err
		}
	}
	if reconciled.After(completed) { // housekeeping may have waited for the reconciliation
		completed = reconciled
	}
	if since := time.Since(completed); since > housekeepingTimeout {
		return fmt.Errorf("periodic tasks have not run for %s", since.Round(time.Second))
	}
	return nil
}

// hung returns an error if something waits and none of it was handled since earlier.
func (d *watchdog) hung(earlier watchdog) error {
	var errs []error
	check := func(now, earlier progress.Progress, what string) {
		if now.Stuck(earlier) {
			errs = append(errs, fmt.Errorf("%s wait, and the daemon handles none of them", what))
		}
	}
	check(d.log, earlier.log, "knocks")
	check(d.openings, earlier.openings, "windows to be opened")
	check(d.verifications, earlier.verifications, "signed datagrams")
	check(d.admitted, earlier.admitted, "first packets of sources with a window")
	check(d.strangers, earlier.strangers, "first packets of sources without a window")
	return errors.Join(errs...)
}
