package wall

import (
	"errors"
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/progress"
)

// housekeepingTimeout is how long the keeper may take for one round; it begins one
// every [audit.SumInterval] at least.
const housekeepingTimeout = 30 * time.Second

// progresses are those of the sockets when they were taken last.
type progresses struct {
	sockets                            *sockets
	log, admitted, strangers, openings progress.Progress
}

// Alive returns an error if the daemon hangs: if packets wait somewhere of which
// none was handled since Alive was called before, which is to be some seconds ago;
// or if what is due is not done. It does not return at all if the daemon hangs as
// a whole. It is to be called by one goroutine.
func (w *Wall) Alive() error {
	w.mu.Lock()
	s, lastHousekeeping, reconciling := w.sockets, w.lastHousekeeping, w.reconciling
	openings := progress.Progress{Done: w.opened, Idle: len(w.openings) == 0}
	w.mu.Unlock()
	if s == nil || lastHousekeeping.IsZero() {
		return nil // it does not stand yet
	}
	if !reconciling.IsZero() && time.Since(reconciling) < reconcileTimeout+housekeepingTimeout {
		// Who is killed now takes the windows with it. It is given up in time.
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
		hung(w.progresses.openings, earlier.openings, "windows for those who have knocked")
		hung(w.progresses.admitted, earlier.admitted, "new connections of guests")
		hung(w.progresses.strangers, earlier.strangers, "new connections of strangers")
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	if since := time.Since(lastHousekeeping); since > housekeepingTimeout {
		return fmt.Errorf("what is due has not been done for %s", since.Round(time.Second))
	}
	return nil
}
