package wall

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// opening is a window to be opened.
type opening struct {
	door   string
	source packet.Source
	length time.Duration
	opener method.Opener
	knock  []audit.Event // those of the knock, unless they are recorded already
	why    audit.Event

	err error // why it was not opened; nil: it was

	recorded  bool
	id        int  // of the door, if recorded; likewise the following
	limit     int  // of connections
	isNew     bool // the kernel certainly has no such window
	refreshed bool // there was a window already: former
	former    sequence.State
}

func (o *opening) key() windowKey { return windowKey{o.door, o.source} }

func (o *opening) set() doorSet { return doorSet{o.door, o.source.Addr().Is4()} }

// open opens a door's window for the source that has knocked. It does so at once if no
// other knocks wait to be read. Otherwise another goroutine opens it while knocks
// continue to be read, because a transaction takes as long as a hundred knocks, and
// longer if another process's transaction is in the way. Windows that have been queued by
// then share one transaction.
func (ws *windows) open(o *opening, othersWait bool) {
	if othersWait || !ws.queue.isEmpty() || !ws.table.change.TryLock() {
		ws.packets.record(o.knock)
		o.knock = nil
		switch first, full := ws.queue.add(o); {
		case full: // and another goroutine is opening them
			ws.table.change.Lock()
			ws.openBatch()
			ws.table.change.Unlock()
		case first:
			go ws.openAll()
		}
		return
	}
	ws.queue.add(o)
	ws.openBatch()
	ws.table.change.Unlock()
	if !ws.queue.isEmpty() {
		go ws.openAll()
	}
}

// openAll opens queued windows until the queue is empty. It releases change between two
// transactions, so that others can take it.
func (ws *windows) openAll() {
	for !ws.queue.isEmpty() {
		ws.table.change.Lock()
		ws.openBatch()
		ws.table.change.Unlock()
	}
}

// openQueued opens the windows that are queued now. Callers hold change and need these
// windows open.
func (ws *windows) openQueued() {
	last := ws.queue.last()
	for ws.openBatch() < last {
	}
}

// openBatch opens the next windows of the queue in one transaction, and returns how many
// were removed from the queue so far. It is called with change held.
func (ws *windows) openBatch() (removed uint64) {
	some := ws.queue.next()
	if len(some) > 0 {
		ws.openTogether(some)
	}
	return ws.queue.remove(len(some))
}

// openTogether accepts the packets that wait for windows, opens the windows in the kernel, and
// sends the other packets that wait for them through the rules again. It is called with change
// held.
func (ws *windows) openTogether(openings []*opening) {
	recorded := ws.recordOpenings(openings)
	ws.packets.releaseAhead(recorded) // before all that is not urgent
	for _, o := range openings {
		ws.packets.record(o.knock)
	}
	ws.openInKernel(recorded)
	ws.sessions.clearMarks(ws.packets.current(), openings) // before the release, or the kernel would refuse the packets again
	ws.recordOutcomes(openings)
	ws.packets.release(openings) // before the events: releasing is urgent
	ws.notify()
	ws.recordPostponed()
	ws.wake()
}

// recordOpenings records windows before the kernel has them, so that every connection
// which they admit is counted. It returns those that can be opened.
func (ws *windows) recordOpenings(openings []*opening) (recorded []*opening) {
	f := ws.packets.current()
	now := time.Now()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.announcing = true
	for _, o := range openings {
		switch {
		case f == nil:
			o.err = errNotInstalled
		case !f.hasSource(o.door, o.source) || !f.admitsStill(o.door, o.opener, now): // a reload has removed or changed the door
			o.err = errDoorGone
		default:
			i := f.doorNamed(o.door)
			o.recorded, o.id, o.limit = true, f.ids[i], f.config.Doors[i].MaxConnections
			win := ws.record.Get(o.id, o.source)
			known := !win.IsNone()
			if known {
				o.former = win.State()
			}
			if !known || o.former.Spent { // a spent window takes no room
				o.err = ws.lacksRoom(o.id, o.source, f.config.Wall.MaxWindows)
			}
			if o.err != nil {
				if o.err == errNetworkFull {
					ws.crowded[o.set()] = now
				}
				o.recorded = false
				continue
			}
			o.isNew = !known && now.After(ws.uncertainUntil)
			o.refreshed = ws.record.Open(o.id, o.source, now, now.Add(o.length), o.limit)
			ws.record.Get(o.id, o.source).Grant(o.opener.Text(), now)
			recorded = append(recorded, o)
		}
	}
	return recorded
}

// openInKernel opens windows in one transaction. If that fails, it opens those of each set
// separately, so that an error at one door does not affect another. It is called with
// change held.
func (ws *windows) openInKernel(openings []*opening) {
	if len(openings) == 0 || ws.tryOpening(openings) {
		return
	}
	if ws.table.reconcileIfChanged() { // the restored table has these windows
		for _, o := range openings {
			o.err = nil
		}
		return
	}
	sets := map[doorSet][]*opening{}
	for _, o := range openings {
		sets[o.set()] = append(sets[o.set()], o)
	}
	for _, of := range sets {
		if len(sets) == 1 || !ws.tryOpening(of) {
			ws.openOneByOne(of)
		}
	}
}

// errFull says that a door has no room for a window.
var errFull = errors.New("the door has as many open windows as max_windows allows")

// errTableFull says that the kernel has no room for a window: the set that all doors share is
// full.
var errTableFull = errors.New("the doors together have as many open windows as the nftables table can hold")

// errNetworkFull says that the clients of one network have their share of a door's windows.
var errNetworkFull = errors.New("clients of its network have three times as many open windows as are left of max_windows, and the rest is kept for others")

// shareOfFree is how many times the windows that are left the clients of one network can have.
// So one network gets three quarters of all, two get three sevenths each, and some are always
// left for those of other networks: whoever knows the knocks and has the addresses of some
// networks does not lock them out.
const shareOfFree = 3

// lacksRoom returns why a door has no room for the window of one more source, or nil. It is
// called with mu held.
func (ws *windows) lacksRoom(id int, source packet.Source, maxWindows int) error {
	free := maxWindows - ws.record.CountVersion(id, source)
	switch {
	case free <= 0:
		return errFull
	case ws.record.Count(id, sequence.NetworkOf(source)) >= shareOfFree*free:
		return errNetworkFull
	}
	return nil
}

// withoutRoom says that a source without a window at a door would get none now, whatever it
// sends. It is empty if it would.
func (ws *windows) withoutRoom(f *policy, door int, source packet.Source) string {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if win := ws.record.Get(f.ids[door], source); !win.IsNone() && !win.Spent() {
		return ""
	}
	err := ws.lacksRoom(f.ids[door], source, f.config.Wall.MaxWindows)
	if err == nil {
		return ""
	}
	return fmt.Sprintf(" It gets no window now, even if it knocks: %v.", err)
}

// tryOpening opens windows in one transaction, and reports whether it succeeded.
func (ws *windows) tryOpening(openings []*opening) bool {
	windows := make([]nft.Window, len(openings))
	for i, o := range openings {
		windows[i] = nft.Window{Door: o.door, Source: o.source, Left: o.length, Opener: o.opener, New: o.isNew}
	}
	err := ws.edges.Kernel.OpenWindows(ws.table.table.Name, windows)
	for _, o := range openings {
		o.err = err
	}
	return err == nil
}

// maxFailuresInRow is after how many failures in a row the remaining windows of a set are
// not tried.
const maxFailuresInRow = 3

// openOneByOne opens each window in its own transaction, after one for all has failed.
func (ws *windows) openOneByOne(openings []*opening) {
	if len(openings) == 1 {
		return // it was tried already
	}
	failed := 0
	for _, o := range openings {
		switch {
		case failed == maxFailuresInRow: // it keeps the error of the common transaction
		case ws.tryOpening([]*opening{o}):
			failed = 0
		default:
			failed++
		}
	}
}

// recordOutcomes records which windows are open now.
func (ws *windows) recordOutcomes(openings []*opening) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now := time.Now()
	for _, o := range openings {
		if errors.Is(o.err, unix.ENFILE) {
			o.err = errTableFull
		}
		if o.recorded {
			ws.refusing = o.err != nil
		}
		if o.err != nil && o.recorded {
			ws.undo(o, now)
		}
		e := o.why
		switch o.err {
		case nil:
			// The recorded end must not be before the kernel's, which counts from some
			// time within the transaction.
			ws.record.Stands(o.id, o.source, now.Add(o.length))
			e.Kind, e.Window = audit.Opened, o.length
			if o.refreshed {
				e.Kind = audit.Refreshed
			}
		case errNotInstalled, errDoorGone:
			continue
		case errFull, errNetworkFull, errTableFull:
			e = notOpened(e, audit.CodeMaxWindows, o.err)
		default:
			e = notOpened(e, audit.CodeNotOpened, o.err)
		}
		ws.undelivered = append(ws.undelivered, windowEvent{Event: e, opener: o.opener})
	}
}

// undo restores the record after a window was not opened. It is called with mu held.
func (ws *windows) undo(o *opening, now time.Time) {
	ws.uncertainUntil = now.Add(ruleset.MaxWindow) // the kernel may have opened it without reporting that
	var admitted int                               // connections, since it was recorded
	if win := ws.record.Get(o.id, o.source); !win.IsNone() {
		admitted = win.Connections()
	}
	ws.record.Close(o.id, o.source)
	if o.refreshed { // the kernel has the former window unchanged
		ws.record.Open(o.id, o.source, o.former.Opened, o.former.Until, o.limit)
		ws.record.Stands(o.id, o.source, o.former.Until)
		win := ws.record.Get(o.id, o.source)
		win.Resume(o.former.Connections + admitted)
		win.Grant(o.former.Opener, o.former.Granted)
	}
}

// notOpened turns the event of a knock into the event that says why no window was opened.
func notOpened(e audit.Event, code audit.Code, err error) audit.Event {
	e.Kind, e.Code, e.Reason, e.Failed = audit.Refused, code, err.Error(), true
	return e
}

// errDoorGone says that a door has gone or changed while a window was to be opened or
// closed.
var errDoorGone = &request{ErrNoDoor, "a reload has just removed or changed the door: try again"}
