package wall

import (
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
)

// Pauses between tries to put the wall back, and how long it is tried.
const (
	firstPause       = 10 * time.Millisecond
	maxPause         = time.Second
	reconcileTimeout = time.Minute
)

// changed handles changes that other processes make to tables, where the kernel allows
// them.
func (w *Wall) changed(c nft.Change) {
	w.change.Lock()
	defer w.change.Unlock()
	if w.table == nil || w.tornDown {
		return
	}
	switch {
	case len(c.Tables) == 0:
		// Messages were lost: what has changed is unknown.
		if intact, err := w.edges.Kernel.Intact(w.table); err == nil && intact {
			return
		}
	case !slices.Contains(c.Tables, w.table.Name):
		return
	}
	w.reconcile(c.By)
}

// reconcileIfChanged puts the wall back if it is not as it was installed, and reports
// whether it did. It is called with change held.
func (w *Wall) reconcileIfChanged() bool {
	if w.tornDown {
		return false
	}
	if intact, err := w.edges.Kernel.Intact(w.table); err != nil || intact {
		return false
	}
	return w.reconcile("")
}

// reconcile puts the wall back with all recorded windows, and reports whether it
// succeeded. It is called with change held.
func (w *Wall) reconcile(by string) bool {
	began := time.Now()
	w.setReconciling(began)
	defer w.setReconciling(time.Time{})
	windows := w.windows.known()
	err := w.edges.Kernel.Restore(w.table, windows)
	for pause := firstPause; err != nil; pause = min(2*pause, maxPause) {
		// The host has no wall now. The cause of the error may go away.
		if pause == firstPause {
			w.trail.Record(audit.Event{Time: began, Kind: audit.Healed, Code: audit.CodeNotPutBack, Failed: true,
				Reason: "the wall was changed and cannot be put back yet: " + err.Error()})
		}
		if time.Since(began) > reconcileTimeout {
			w.life.fail(err)
			return false
		}
		select {
		case <-w.life.ending:
			return false
		case <-time.After(pause):
		}
		windows = w.windows.known()
		err = w.edges.Kernel.Restore(w.table, windows)
	}
	w.mu.Lock()
	w.counts.Add(audit.Healed)
	f := w.policy
	w.mu.Unlock()
	w.windows.putBack(windows)
	// Conntrack lacks the connections that began while there was no wall. Adopt only
	// those that the wall would admit.
	_, _ = w.edges.Adopt(func(s sessions.Session) bool { return w.hasAccess(f, s) }, true)
	if by == "" {
		by = "somebody"
	}
	w.trail.Record(audit.Event{Time: began, Kind: audit.Healed, Code: audit.CodePutBack, Reason: fmt.Sprintf(
		"the wall was changed by %s and is put back, windows open: %d", by, len(windows))})
	return true
}

// setReconciling records since when the wall is being put back; zero: it is not. Handlers
// of knocks and housekeeping may have to wait that long.
func (w *Wall) setReconciling(since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reconciling = since
	w.lastHousekeeping = time.Now()
}

// hasAccess reports whether a source needs no knock at a port now, because it has a
// window or is trusted.
func (w *Wall) hasAccess(f *policy, s sessions.Session) bool {
	for _, i := range f.config.At(s.Port) {
		d := &f.config.Doors[i]
		_, hasWindow := w.windows.get(f.ids[i], d.SourcePrefix.Of(s.Remote))
		if hasWindow || packet.Among(s.Remote, f.config.Wall.Trusted) || packet.Among(s.Remote, d.Trusted) {
			return true
		}
	}
	return false
}
