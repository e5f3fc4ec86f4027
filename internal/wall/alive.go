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

// progresses are the progress values of the sockets at the last call of Alive.
type progresses struct {
	sockets                            *sockets
	log, admitted, strangers, openings progress.Progress
}

// Alive returns an error if the daemon hangs: if packets wait and none of them was
// handled since the previous call, which should be some seconds ago, or if housekeeping
// does not complete. If the whole daemon hangs, Alive does not return. Only one goroutine
// may call it.
func (w *Wall) Alive() error {
	w.mu.Lock()
	s, lastHousekeeping, reconciling := w.sockets, w.lastHousekeeping, w.reconciling
	w.mu.Unlock()
	openings := w.windows.queue.progress()
	if s == nil || lastHousekeeping.IsZero() {
		return nil // the wall is not installed yet
	}
	if !reconciling.IsZero() && time.Since(reconciling) < reconcileTimeout+housekeepingTimeout {
		// A daemon killed now would lose the windows: only it knows them. The time for
		// reconciling is limited anyway.
		w.progresses = progresses{}
		return nil
	}
	earlier := w.progresses
	w.progresses = progresses{s, s.log.Progress(), s.admitted.Progress(), s.strangers.Progress(), openings}
	if earlier.sockets == s {
		var errs []error
		hung := func(now, earlier progress.Progress, what string) {
			if now.Stuck(earlier) {
				errs = append(errs, fmt.Errorf("%s wait, and the daemon handles none of them", what))
			}
		}
		hung(w.progresses.log, earlier.log, "knocks")
		hung(w.progresses.openings, earlier.openings, "windows to be opened")
		hung(w.progresses.admitted, earlier.admitted, "first packets of sources with a window")
		hung(w.progresses.strangers, earlier.strangers, "first packets of sources without a window")
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	if since := time.Since(lastHousekeeping); since > housekeepingTimeout {
		return fmt.Errorf("periodic tasks have not run for %s", since.Round(time.Second))
	}
	return nil
}
