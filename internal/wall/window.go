package wall

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
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
	why    audit.Event

	recorded  bool // it is in Wall.windows, before the kernel has it
	id        int  // of the door, if recorded
	isNew     bool // the kernel certainly has no such window
	refreshed bool // there was a window already: former
	former    sequence.Window
	err       error // why it was not opened; nil: it was
}

// open opens a door's window for the source that has knocked. It does so at once if no
// other knocks wait to be read. Otherwise another goroutine opens it while knocks
// continue to be read, because a transaction takes as long as a hundred knocks, and
// longer if another process's transaction is in the way. Windows that have been queued by
// then share one transaction.
func (w *Wall) open(d *effective.Door, e audit.Event, othersWait bool) {
	first, full := w.openings.add(&opening{door: d.Name, source: e.Source, length: d.Window, why: e})
	switch {
	case full: // and another goroutine is opening them
		w.change.Lock()
		w.openBatch()
		w.change.Unlock()
	case !first:
	case othersWait || !w.change.TryLock():
		go w.openAll()
	default:
		w.openBatch()
		w.change.Unlock()
		if !w.openings.isEmpty() {
			go w.openAll()
		}
	}
}

// openAll opens queued windows until the queue is empty. It releases change between two
// transactions, so that others can take it.
func (w *Wall) openAll() {
	for !w.openings.isEmpty() {
		w.change.Lock()
		w.openBatch()
		w.change.Unlock()
	}
}

// openQueued opens the windows that are queued now. Callers hold change and need these
// windows open.
func (w *Wall) openQueued() {
	last := w.openings.last()
	for w.openBatch() < last {
	}
}

// openBatch opens the next windows of the queue in one transaction, and returns how many
// were removed from the queue so far. It is called with change held.
func (w *Wall) openBatch() (removed uint64) {
	some := w.openings.next()
	if len(some) > 0 {
		w.openTogether(some)
	}
	removed = w.openings.remove(len(some))
	for _, o := range some {
		if o.err == nil {
			w.metrics.opening.Observe(time.Since(o.why.Time).Seconds())
		}
	}
	return removed
}

// openTogether opens windows in the kernel, and sends the packets that wait for them
// through the rules again. It records an event for each window that it cannot open. It is
// called with change held.
func (w *Wall) openTogether(openings []*opening) {
	w.recordOpenings(openings)
	w.openInKernel(openings)
	w.clearEndedMarks(openings) // before the release, or the kernel would refuse the packets again
	w.mu.Lock()
	for _, o := range openings {
		w.recordOutcome(o)
	}
	w.mu.Unlock()
	w.releaseFor(openings) // before the events: releasing is urgent
	for _, o := range openings {
		switch {
		case o.err == nil:
			w.emit(o.why)
		case o.recorded: // else the door is gone
			code := audit.CodeNotOpened
			if o.err == errFull {
				code = audit.CodeMaxWindows
			}
			w.notOpened(o.why, code, o.err)
		}
	}
	w.emitPending()
	w.wakeHousekeeping()
}

// recordOpenings records windows before the kernel has them, so that every connection
// which they admit is counted.
func (w *Wall) recordOpenings(openings []*opening) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.policy
	for _, o := range openings {
		switch {
		case f == nil:
			o.err = errNotInstalled
		case !f.hasSource(o.door, o.source): // a reload has removed or changed the door
			o.err = errDoorGone
		default:
			i := f.doorNamed(o.door)
			o.id = f.ids[i]
			win := w.windows.Get(o.id, o.source)
			if win != nil {
				o.former = *win
			}
			o.recorded = true
			o.isNew = win == nil && now.After(w.uncertainUntil)
			o.refreshed = w.windows.Open(o.id, o.source, now, now.Add(o.length), f.config.Doors[i].MaxConnections)
		}
	}
	w.announcing = true
}

// expiryLag is how long the kernel may keep a window after its recorded end: one or two
// clock ticks.
const expiryLag = time.Second

// doorSet is the set of a door's windows for one IP version.
type doorSet struct {
	door string
	is4  bool
}

func (o *opening) set() doorSet { return doorSet{o.door, o.source.Addr().Is4()} }

// openInKernel opens the recorded windows in one transaction. If that fails, it opens
// those of each set separately, so that an error at one door does not affect another. It
// is called with change held.
func (w *Wall) openInKernel(openings []*opening) {
	sets := map[doorSet][]*opening{}
	var noted []*opening
	now := time.Now()
	for _, o := range openings {
		switch {
		case !o.recorded:
		case now.Before(w.full[o.set()]):
			o.err = errFull
		default:
			noted = append(noted, o)
			sets[o.set()] = append(sets[o.set()], o)
		}
	}
	if len(noted) == 0 || w.tryOpening(noted) {
		return
	}
	if w.reconcileIfChanged() { // the restored table has these windows
		for _, o := range noted {
			o.err = nil
		}
		return
	}
	for set, of := range sets {
		if len(sets) == 1 || !w.tryOpening(of) {
			w.openOneByOne(of)
		}
		for _, o := range of {
			if errors.Is(o.err, unix.ENFILE) {
				o.err = errFull
				w.full[set] = time.Now().Add(fullRetry)
			}
		}
	}
}

// fullRetry is how long a full set is left alone. Each try at a full set costs the kernel
// ten milliseconds, and everything else waits for it.
const fullRetry = time.Second

// errFull says that the set of a window is full.
var errFull = fmt.Errorf("the door has the maximum number of open windows, %d", nft.MaxWindows)

// tryOpening opens windows in one transaction, and reports whether it succeeded.
func (w *Wall) tryOpening(openings []*opening) bool {
	windows := make([]nft.Window, len(openings))
	for i, o := range openings {
		windows[i] = nft.Window{Door: o.door, Source: o.source, Left: o.length, New: o.isNew}
	}
	err := w.edges.Kernel.OpenWindows(w.table.Name, windows)
	for _, o := range openings {
		o.err = err
	}
	return err == nil
}

// maxFailuresInRow is after how many failures in a row the remaining windows of a set are
// not tried.
const maxFailuresInRow = 3

// openOneByOne opens each window in its own transaction, after one for all has failed.
func (w *Wall) openOneByOne(openings []*opening) {
	if len(openings) == 1 {
		return // it was tried already
	}
	failed := 0
	for _, o := range openings {
		switch {
		case failed == maxFailuresInRow: // it keeps the error of the common transaction
		case w.tryOpening([]*opening{o}):
			failed = 0
		default:
			failed++
		}
	}
}

// recordOutcome records whether a window is open now. It is called with mu held.
func (w *Wall) recordOutcome(o *opening) {
	if !o.recorded {
		return
	}
	f := w.policy
	i := f.doorNamed(o.door)
	if o.err != nil {
		if o.err != errFull { // the kernel may have opened it without reporting that
			w.uncertainUntil = time.Now().Add(ruleset.MaxWindow)
		}
		var admitted int // connections, since recordOpenings
		if win := w.windows.Get(o.id, o.source); win != nil {
			admitted = win.Connections
		}
		w.windows.Close(o.id, o.source)
		if o.refreshed { // the kernel has the former window unchanged
			w.windows.Open(o.id, o.source, o.former.Opened, o.former.Until, f.config.Doors[i].MaxConnections)
			w.windows.Stands(o.id, o.source, o.former.Until)
			w.windows.Get(o.id, o.source).Connections = o.former.Connections + admitted
		}
		return
	}
	// The recorded end must not be before the kernel's, which counts from some time
	// within the transaction.
	w.windows.Stands(o.id, o.source, time.Now().Add(o.length))
	o.why.Kind, o.why.Window = audit.Opened, o.length
	if o.refreshed {
		o.why.Kind = audit.Refreshed
		f.tallies[i].Add(audit.Refreshed)
	} else {
		f.tallies[i].Add(audit.Opened)
	}
}

// releaseFor sends the held packets of sources whose windows are open now through the
// rules again.
func (w *Wall) releaseFor(openings []*opening) {
	open := make(map[windowKey]bool, len(openings))
	for _, o := range openings {
		if o.err == nil {
			open[windowKey{o.door, o.source}] = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.policy == nil {
		return
	}
	w.sockets.release(func(p packet.Packet) bool {
		for _, i := range w.policy.config.At(p.Port) {
			d := &w.policy.config.Doors[i]
			if guardsDestination(d, p) && open[windowKey{d.Name, d.SourcePrefix.Of(p.Source)}] {
				w.policy.tallies[i].released++
				return true
			}
		}
		return false
	})
}

// notOpened records why a window could not be opened.
func (w *Wall) notOpened(e audit.Event, code audit.Code, err error) {
	e.Kind, e.Code, e.Reason, e.Failed = audit.Refused, code, err.Error(), true
	w.trail.Record(e)
}

// emitPending writes the events of sources that the kernel admitted before the event of
// their open window was written. It is called with change held, as is everything that
// closes a window.
func (w *Wall) emitPending() {
	w.mu.Lock()
	accepted := w.pending
	w.announcing, w.pending = false, nil
	w.mu.Unlock()
	w.record(accepted)
}

// errDoorGone says that a door has gone or changed while a window was to be opened or
// closed.
var errDoorGone = &request{ErrNoDoor, "a reload has just removed or changed the door: try again"}

// spend closes a window that has admitted max_connections.
func (w *Wall) spend(door string, source packet.Source) {
	w.change.Lock()
	defer w.change.Unlock()
	w.mu.Lock()
	f := w.policy
	i := f.doorNamed(door)
	var win *sequence.Window
	if i >= 0 {
		win = w.windows.Get(f.ids[i], source)
	}
	spent := win != nil && win.Spent() // and was not opened again meanwhile
	w.mu.Unlock()
	if !spent {
		return
	}
	e := audit.Event{Time: time.Now(), Kind: audit.Closed, Door: door, Source: source,
		Code: audit.CodeMaxConnections, Reason: "max_connections is reached"}
	closed, err := w.edges.Kernel.CloseWindow(f.config.Wall.Table, door, source)
	switch {
	case err != nil:
		e.Code, e.Reason, e.Failed = audit.CodeNotClosed, err.Error(), true
	case !closed:
		return
	default:
		w.mu.Lock()
		f.tallies[i].Add(audit.Closed)
		w.mu.Unlock()
	}
	w.emit(e)
}
