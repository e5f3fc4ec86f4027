package wall

import (
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// This file has what the record of windows says about the first packets of connections.

// doorFor returns the door to which a new connection is attributed. Of the doors that
// guard its port, it is the first where the source has a window, else the first of all;
// -1 if there is none. Of several windows it prefers the one that has admitted this packet
// before, then one that is not spent. The packet may go through another one: by which door,
// and whether by any, the kernel decides. It is called with mu held.
func (ws *windows) doorFor(f *policy, p packet.Packet) (door int, source packet.Source, win sequence.Window) {
	door = -1
	for _, i := range f.config.At(p.Port) {
		d := &f.config.Doors[i]
		if !guardsDestination(d, p) {
			continue
		}
		s := d.SourcePrefix.Of(p.Source)
		w := ws.record.Get(f.ids[i], s)
		if !w.IsNone() && w.Spent() && w.Knows(p) {
			return i, s, w
		}
		if door < 0 || !w.IsNone() && (win.IsNone() || win.Spent() && !w.Spent()) {
			door, source, win = i, s, w
		}
	}
	return door, source, win
}

// attribute returns the door to which a new connection is attributed, as doorFor does.
func (ws *windows) attribute(f *policy, p packet.Packet) (door int, source packet.Source) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	door, source, _ = ws.doorFor(f, p)
	return door, source
}

// admission is what the record says about the first packet of a source that has a window
// in the kernel.
type admission struct {
	door    int // to which the packet is attributed; -1: none
	source  packet.Source
	outcome sequence.Admission
	spent   bool            // the window has now admitted max_connections
	unsure  sequence.Window // the window that has to know whether the packet is delivered, if any
	person  method.Person   // who has opened the window

	packet  packet.Packet
	event   audit.Event
	audited bool // the event is to be recorded
}

// isRefused reports whether the packet is refused.
func (a *admission) isRefused() bool {
	return a.outcome == sequence.Exhausted || a.outcome == sequence.Replayed
}

// admit records the first packet of a source that has a window in the kernel.
func (ws *windows) admit(f *policy, p packet.Packet, now time.Time) (a admission) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var win sequence.Window
	a.door, a.source, win = ws.doorFor(f, p)
	if win.IsNone() {
		a.outcome = sequence.AdmitUnknown
		return a
	}
	a.by(win, p, now)
	return a
}

// by records that the packet goes through a window. It is called with the mu of windows held.
func (a *admission) by(win sequence.Window, p packet.Packet, now time.Time) {
	a.outcome = win.Admit(p, now)
	a.spent = win.Spent()
	a.person = method.ParseOpener(win.Opener()).Person
	if win.Counts(p) && !a.isRefused() {
		a.unsure = win
	}
}

// admitAhead records the first packet of a source whose window is being opened, if it need not
// wait until the kernel has the window; else it returns nil. It does in one step what recognize
// and admit do in two, as the window may be gone in between.
func (ws *windows) admitAhead(f *policy, p packet.Packet, now time.Time) *admission {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	door, source, win := ws.doorFor(f, p)
	return ws.ahead(f, door, source, win, p, now)
}

// ahead is admitAhead for the window that doorFor has found. It is called with mu held.
//
// It must be certain that the kernel's rules will let the packet through that window. So the
// packet waits if several doors guard where it goes, because it does not tell by which
// interface it came, and whether it is for this host: another door may have queued it. All
// wait while a source has ended sessions, whose marks are cleared when the window is open, and
// after the kernel has refused a window.
func (ws *windows) ahead(f *policy, door int, source packet.Source, win sequence.Window, p packet.Packet, now time.Time) *admission {
	if win.IsNone() || !win.Opens(p, now) || ws.refusing || !f.isGuardedOnce(p) || ws.sessions.any() {
		return nil
	}
	a := &admission{door: door, source: source}
	a.by(win, p, now)
	return a
}

// recognition is what the record says about the first packet of a source that had no
// window in the kernel.
type recognition struct {
	door   int             // to which the packet is attributed; -1: none
	again  bool            // a retransmission of a connection that a spent window admitted
	opened bool            // a window that admits the packet was opened meanwhile
	unsure sequence.Window // the window that has to know whether the packet is delivered, if any
	ahead  *admission      // through a window that is being opened; nil: none that lets the packet through now
}

// recognize looks for a window of a source that had none in the kernel.
func (ws *windows) recognize(f *policy, p packet.Packet, now time.Time) (r recognition) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var source packet.Source
	var win sequence.Window
	r.door, source, win = ws.doorFor(f, p)
	if r.ahead = ws.ahead(f, r.door, source, win, p, now); r.ahead != nil {
		return r
	}
	switch {
	case win.IsNone():
	case !win.Spent():
		r.opened = win.Repeat()
	case win.Knows(p) && win.Admit(p, now) == sequence.AdmitAgain:
		// The packet was lost behind the wall, or the kernel would have accepted it by
		// conntrack.
		r.again = true
		if win.Counts(p) {
			r.unsure = win
		}
	}
	return r
}

// checkDelivered tells a window that an admitted packet was not delivered, which decides
// how a retransmission is treated. Rules of other tables may have dropped the packet.
func (ws *windows) checkDelivered(win sequence.Window, p packet.Packet) {
	if tracked, err := ws.edges.Tracked(p); err != nil || tracked {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	win.Lost(p, time.Now())
}
