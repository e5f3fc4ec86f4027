package wall

import (
	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
)

// windowEvent says that a window has opened, was refreshed or closed, or has expired. The
// event has its door, its source, its length and the cause; its Kind is Opened, Refreshed,
// Closed or Expired. If Failed is set, the window is as it was: Refused says that it could
// not be opened, and Closed that it could not be closed.
type windowEvent struct {
	audit.Event

	// wasSpent says, with Expired, that the window had admitted max_connections. It was to
	// be closed then: either that was seen as Closed, or it has failed and the window has
	// ended only now.
	wasSpent bool

	opener method.Opener // with Opened and Refreshed
}

// observer is called with the events of windows: with each of them, one at a time, in the
// order in which the windows have changed. Each event reaches the observers in the order
// in which they are registered. The window may have changed again meanwhile. An observer
// must not call the windows, and it must be quick: the next window is opened after it.
type observer func(windowEvent)

// notify delivers the events that are due. When it returns, the observers know everything
// that had happened before the call. It is called without mu, and often with change held.
func (ws *windows) notify() {
	ws.observing.Lock()
	defer ws.observing.Unlock()
	ws.mu.Lock()
	events := ws.undelivered
	ws.undelivered = nil
	ws.mu.Unlock()
	for _, e := range events {
		for _, observe := range ws.observers {
			observe(e)
		}
	}
}

// maxPostponed is how many events of admitted sources are postponed. There is seldom more
// than one.
const maxPostponed = 1000

// postpone keeps the event of an admitted source until the observers know that its window
// has opened. It reports whether it has kept the event: most need not wait.
func (ws *windows) postpone(e audit.Event) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !ws.announcing || len(ws.postponed) >= maxPostponed {
		return false
	}
	ws.postponed = append(ws.postponed, e)
	return true
}

// recordPostponed records the postponed events. It is called with change held, as is
// everything that closes a window.
func (ws *windows) recordPostponed() {
	ws.mu.Lock()
	events := ws.postponed
	ws.announcing, ws.postponed = false, nil
	ws.mu.Unlock()
	for _, e := range events {
		ws.trail.Record(e)
	}
}
