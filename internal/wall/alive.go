package wall

import (
	"errors"
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/pulse"
)

// keeperPatience is how long the keeper may take for one round; it begins one
// every [audit.SumInterval] at least.
const keeperPatience = 30 * time.Second

// pulses are those of the sockets when they were taken last.
type pulses struct {
	sockets                            *sockets
	log, admitted, strangers, openings pulse.Pulse
}

// Alive returns an error if the daemon hangs: if packets wait somewhere of which
// none was handled since Alive was called before, which is to be some seconds ago;
// or if what is due is not done. It does not return at all if the daemon hangs as
// a whole. It is to be called by one goroutine.
func (w *Wall) Alive() error {
	w.mu.Lock()
	s, kept, healing := w.sockets, w.kept, w.healing
	openings := pulse.Pulse{Done: w.opened, Idle: len(w.openings) == 0}
	w.mu.Unlock()
	if s == nil || kept.IsZero() {
		return nil // it does not stand yet
	}
	if !healing.IsZero() && time.Since(healing) < healPatience+keeperPatience {
		// Who is killed now takes the windows with it. It is given up in time.
		w.pulses = pulses{}
		return nil
	}
	earlier := w.pulses
	w.pulses = pulses{s, s.log.Pulse(), s.admitted.Pulse(), s.strangers.Pulse(), openings}
	if earlier.sockets == s {
		var errs []error
		hung := func(now, earlier pulse.Pulse, what string) {
			if now.Stuck(earlier) {
				errs = append(errs, fmt.Errorf("%s wait, and the daemon handles none of them", what))
			}
		}
		hung(w.pulses.log, earlier.log, "knocks")
		hung(w.pulses.openings, earlier.openings, "windows for those who have knocked")
		hung(w.pulses.admitted, earlier.admitted, "new connections of guests")
		hung(w.pulses.strangers, earlier.strangers, "new connections of strangers")
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	if since := time.Since(kept); since > keeperPatience {
		return fmt.Errorf("what is due has not been done for %s", since.Round(time.Second))
	}
	return nil
}
