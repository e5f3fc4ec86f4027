package wall

import (
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// open opens a door's window for who has knocked, and sends round again who waits for
// it. If it cannot, the trail says why.
func (w *Wall) open(d *ruleset.Door, e audit.Event) {
	w.change.Lock()
	err := w.openLocked(d.Name, e.Source, d.Window, e)
	w.change.Unlock()
	if err == nil {
		w.metrics.opening.Observe(time.Since(e.Time).Seconds())
	}
}

// notOpened says why a door could not be opened.
func (w *Wall) notOpened(e audit.Event, err error) {
	e.Kind, e.Reason, e.Failed = audit.Refused, err.Error(), true
	w.trail.Record(e)
}

func (w *Wall) openLocked(door string, source packet.Source, length time.Duration, why audit.Event) error {
	now := time.Now()
	w.mu.Lock()
	f := w.front
	if f == nil {
		w.mu.Unlock()
		return errNotYet
	}
	i := f.doorNamed(door)
	if !f.tells(door, source) { // a reload has taken the door away, or changed it
		w.mu.Unlock()
		return errGone
	}
	id := f.ids[i]
	var former sequence.Window
	if win := w.windows.Get(id, source); win != nil {
		former = *win
	}
	// Noted first, so that not one connection is admitted that is not counted.
	limit := f.config.Doors[i].MaxConnections
	refreshed := w.windows.Open(id, source, now, now.Add(length), limit)
	w.telling = true
	w.mu.Unlock()

	err := w.edges.Kernel.OpenWindow(f.config.Wall.Table, ruleset.Window{Door: door, Source: source, Left: length})
	if err != nil && w.mend() {
		err = nil // put back with this window in it
	}
	if err != nil {
		w.mu.Lock()
		var admitted int // meanwhile
		if win := w.windows.Get(id, source); win != nil {
			admitted = win.Connections
		}
		w.windows.Close(id, source)
		if refreshed { // the kernel has it as it was
			w.windows.Open(id, source, former.Opened, former.Until, limit)
			w.windows.Stands(id, source)
			w.windows.Get(id, source).Connections = former.Connections + admitted
		}
		w.mu.Unlock()
		w.nudge()
		w.notOpened(why, err)
		w.told()
		return err
	}
	w.mu.Lock()
	w.windows.Stands(id, source)
	d := &f.config.Doors[i]
	t := &f.tallies[i]
	why.Kind, why.Window = audit.Opened, length
	if refreshed {
		why.Kind = audit.Refreshed
		t.refreshed++
	} else {
		t.opened++
	}
	w.mu.Unlock()
	w.tell(why) // before anybody who waits is let in
	w.told()
	w.mu.Lock()
	t.released += w.sockets.release(func(p packet.Packet) bool { return guards(d, p) && d.SourcePrefix.Of(p.Source) == source })
	w.mu.Unlock()
	w.nudge()
	return nil
}

// told passes on who was let in by the kernel before it was told that the window is
// open. It is called with change held, as is what ends a window again.
func (w *Wall) told() {
	w.mu.Lock()
	accepted := w.untold
	w.telling, w.untold = false, nil
	w.mu.Unlock()
	w.record(accepted)
}

// errGone is why a window is not opened whose door has gone meanwhile.
var errGone = &request{ErrNoDoor, "a reload has taken the door away, or changed it, this very moment: try again"}

// spend closes a window that has admitted as many connections as it may.
func (w *Wall) spend(door string, source packet.Source) {
	w.change.Lock()
	defer w.change.Unlock()
	w.mu.Lock()
	f := w.front
	i := f.doorNamed(door)
	var win *sequence.Window
	if i >= 0 {
		win = w.windows.Get(f.ids[i], source)
	}
	spent := win != nil && win.Spent() // and not knocked open again meanwhile
	w.mu.Unlock()
	if !spent {
		return
	}
	e := audit.Event{Time: time.Now(), Kind: audit.Closed, Door: door, Source: source, Reason: "max_connections is reached"}
	closed, err := w.edges.Kernel.CloseWindow(f.config.Wall.Table, door, source)
	switch {
	case err != nil:
		e.Reason, e.Failed = err.Error(), true
	case !closed:
		return
	default:
		w.mu.Lock()
		f.tallies[i].closed++
		w.mu.Unlock()
	}
	w.tell(e)
}
