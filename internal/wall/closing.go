package wall

import (
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// close closes the window of a source, and reports whether it was open. why has the code,
// the reason and the origin.
func (ws *windows) close(door string, source packet.Source, why audit.Event) (bool, error) {
	ws.table.change.Lock()
	defer ws.table.change.Unlock()
	return ws.closeHeld(door, source, why)
}

// closeHeld is close, called with change held.
func (ws *windows) closeHeld(door string, source packet.Source, why audit.Event) (bool, error) {
	if ws.table.tornDown {
		return false, ErrStopping
	}
	ws.openQueued() // else earlier knocks would open it again
	f := ws.packets.current()
	if f == nil {
		return false, errNotInstalled
	}
	i := f.doorNamed(door)
	if i < 0 {
		return false, errDoorGone
	}
	closed, err := ws.edges.Kernel.CloseWindow(f.config.Wall.Table, door, source)
	if err != nil {
		return false, err
	}
	e := why
	e.Time, e.Kind, e.Door, e.Source = time.Now(), audit.Closed, door, source
	ws.mu.Lock()
	if win := ws.record.Get(f.ids[i], source); !win.IsNone() && !win.Spent() {
		e = withPerson(e, win.Opener())
		ws.record.Close(f.ids[i], source)
	}
	if closed {
		ws.undelivered = append(ws.undelivered, windowEvent{Event: e})
	}
	ws.mu.Unlock()
	ws.wake()
	ws.notify()
	return closed, nil
}

// closeUnadmitted closes the windows of persons whom their door no longer admits, after a
// reload or because their time is over: one at a time, so that knocks need not wait for all.
// What it cannot close, it tries again when it is called next.
func (ws *windows) closeUnadmitted(now time.Time) { ws.closeUnadmittedBy(ws.close, now) }

// closeUnadmittedHeld is closeUnadmitted, called with change held.
func (ws *windows) closeUnadmittedHeld(now time.Time) { ws.closeUnadmittedBy(ws.closeHeld, now) }

func (ws *windows) closeUnadmittedBy(shut func(string, packet.Source, audit.Event) (bool, error), now time.Time) {
	f := ws.packets.current()
	if f == nil || !f.knowsPersons() {
		return
	}
	for _, win := range ws.openedBy(func(door string, by method.Opener) bool { return !by.Person.IsZero() && !f.admitsStill(door, by, now) }) {
		if _, err := shut(win.Door, win.Source, audit.Event{Code: audit.CodeNoLonger, Reason: "the rules no longer admit the person who opened it"}); err != nil {
			ws.trail.Record(audit.Event{Time: now, Kind: audit.Closed, Door: win.Door, Source: win.Source,
				Code: audit.CodeNotClosed, Reason: err.Error(), Failed: true})
		}
	}
}

// closeSpent closes a window that has admitted max_connections. The record keeps it until
// its end, so that retransmitted packets are recognized.
func (ws *windows) closeSpent(door string, source packet.Source) {
	ws.table.change.Lock()
	defer ws.table.change.Unlock()
	// A reload may have removed the door meanwhile. The sets of all doors still have the window.
	win, known := ws.get(ws.doors.id(door), source)
	if !known || !win.Spent {
		return // it was opened again meanwhile
	}
	e := withPerson(audit.Event{Time: time.Now(), Kind: audit.Closed, Door: door, Source: source,
		Code: audit.CodeMaxConnections, Reason: "max_connections is reached"}, win.Opener)
	closed, err := ws.edges.Kernel.CloseWindow(ws.table.table.Name, door, source)
	if err != nil {
		e.Code, e.Reason, e.Failed = audit.CodeNotClosed, err.Error(), true
	}
	if closed || e.Failed {
		ws.mu.Lock()
		ws.undelivered = append(ws.undelivered, windowEvent{Event: e})
		ws.mu.Unlock()
		ws.notify()
	}
}

// expiryLag is how long the kernel may keep a window after its recorded end: one or two
// clock ticks.
const expiryLag = time.Second

// manySYNs is how often a SYN has to come before anything is said of it. A packet may be lost
// once, and then arrive.
const manySYNs = 3

// maxExpiring is how many windows are ended at once, as first packets wait meanwhile.
const maxExpiring = 4096

// expire ends windows in the record. The kernel has ended them itself.
func (ws *windows) expire(now time.Time) (next time.Time, ok bool) {
	defer ws.notify()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.record.Expire(now, maxExpiring, func(win sequence.Window) {
		if sure := now.Add(expiryLag); sure.After(ws.uncertainUntil) {
			ws.uncertainUntil = sure
		}
		e := audit.Event{Time: now, Kind: audit.Expired, Code: audit.CodeTimeout, Door: ws.doors.name(win.Door()), Source: win.Source()}
		if port, times := win.Repeated(); times >= manySYNs {
			e.Reason = fmt.Sprintf("its SYN to %s came %d times, so something behind the wall dropped it", port, times)
		}
		ws.undelivered = append(ws.undelivered, windowEvent{wasSpent: win.Spent(), Event: withPerson(e, win.Opener())})
	})
	return ws.record.Next()
}
