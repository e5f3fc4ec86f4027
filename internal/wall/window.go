package wall

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// opening is a window that is to be opened.
type opening struct {
	door   string
	source packet.Source
	length time.Duration
	why    audit.Event

	recorded  bool // that it is open, before it is, and
	id        int  // by which id of the door
	isNew     bool // the kernel has none, for certain
	refreshed bool // a window that there was already,
	former    sequence.Window
	err       error // or why it was not opened
}

const (
	// maxOpenings is how many windows can wait to be opened. Who knocks then waits.
	maxOpenings = 4096
	// maxTogether is how many are opened in one transaction, which takes a few
	// milliseconds then.
	maxBatch = 512
)

// open opens a door's window for who has knocked: at once, if no other knocks wait to
// be heard. Otherwise they go on being heard meanwhile, as a transaction takes as long
// as a hundred of them, or longer if somebody else's is in the way; what has come by
// then is opened in one.
func (w *Wall) open(d *effective.Door, e audit.Event, othersWait bool) {
	w.mu.Lock()
	w.openings = append(w.openings, &opening{door: d.Name, source: e.Source, length: d.Window, why: e})
	first, full := len(w.openings) == 1, len(w.openings) > maxOpenings
	w.mu.Unlock()
	switch {
	case full: // and somebody else is at it
		w.change.Lock()
		w.openBatch()
		w.change.Unlock()
	case !first:
	case othersWait || !w.change.TryLock():
		go w.openAll()
	default:
		w.openBatch()
		w.change.Unlock()
		if w.hasQueued() {
			go w.openAll()
		}
	}
}

// openAll opens windows for those who have knocked until there is nobody left. Between
// two transactions others have their turn.
func (w *Wall) openAll() {
	for w.hasQueued() {
		w.change.Lock()
		w.openBatch()
		w.change.Unlock()
	}
}

func (w *Wall) hasQueued() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.openings) > 0
}

// openQueued opens the windows for those who have knocked by now. It is called with
// change held, by whatever must find them open.
func (w *Wall) openQueued() {
	w.mu.Lock()
	last := w.opened + uint64(len(w.openings))
	w.mu.Unlock()
	for w.openBatch() < last {
	}
}

// openSome opens the windows that are next, in one transaction, and returns how many
// were taken off the queue so far. It is called with change held.
func (w *Wall) openBatch() (opened uint64) {
	some := w.nextBatch()
	if len(some) > 0 {
		w.openTogether(some)
	}
	w.mu.Lock()
	w.opened += uint64(len(some))
	w.openings = slices.Delete(w.openings, 0, len(some))
	opened = w.opened
	w.mu.Unlock()
	for _, o := range some {
		if o.err == nil {
			w.metrics.opening.Observe(time.Since(o.why.Time).Seconds())
		}
	}
	return opened
}

// nextOpenings returns those that are next, no two for the same source at a door.
func (w *Wall) nextBatch() []*opening {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := map[windowKey]bool{}
	for n, o := range w.openings {
		key := windowKey{o.door, o.source}
		if n == maxBatch || known[key] {
			return slices.Clone(w.openings[:n])
		}
		known[key] = true
	}
	return slices.Clone(w.openings)
}

// openTogether opens windows in the kernel, and sends round again who waits for them.
// The trail says which it cannot open, and why. It is called with change held.
func (w *Wall) openTogether(openings []*opening) {
	w.recordOpenings(openings)
	w.openInKernel(openings)
	w.clearEndedMarks(openings) // before who waits is released, as the kernel would refuse him again
	w.mu.Lock()
	for _, o := range openings {
		w.recordOutcome(o)
	}
	w.mu.Unlock()
	w.releaseFor(openings) // that they are let in is told after this
	for _, o := range openings {
		switch {
		case o.err == nil:
			w.emit(o.why)
		case o.recorded: // else there is no such door any more
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

// noteOpen notes windows before they are open, so that not one connection is admitted
// that is not counted.
func (w *Wall) recordOpenings(openings []*opening) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.policy
	for _, o := range openings {
		switch {
		case f == nil:
			o.err = errNotInstalled
		case !f.hasSource(o.door, o.source): // a reload has taken the door away, or changed it
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

// lingering is how long the kernel may have a window yet of which nothing is noted any
// more, as its time was up: a clock tick or two.
const expiryLag = time.Second

// doorSet is the set of a door's windows for one IP version.
type doorSet struct {
	door string
	is4  bool
}

func (o *opening) set() doorSet { return doorSet{o.door, o.source.Addr().Is4()} }

// openInKernel opens in one transaction the windows that are noted; if that fails, those
// of each set by themselves, so that no door suffers from what is wrong with another. It
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
	if w.reconcileIfChanged() { // with these windows in it
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

// fullFor is how long nothing is tried at a set that is full: it costs the kernel ten
// milliseconds each time, for which everybody else waits.
const fullRetry = time.Second

// errFull is why a window is not opened at such a set.
var errFull = fmt.Errorf("the door has as many windows as it can, %d", nft.MaxWindows)

// tryOpening opens windows in one transaction, and reports whether it could.
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

// hopeless is how many windows of a set fail in a row until the others are not tried.
const maxFailuresInRow = 3

// openOneByOne opens windows each by itself, after they could not be opened together.
func (w *Wall) openOneByOne(openings []*opening) {
	if len(openings) == 1 {
		return // which has been tried
	}
	failed := 0
	for _, o := range openings {
		switch {
		case failed == maxFailuresInRow: // its error is that of all together
		case w.tryOpening([]*opening{o}):
			failed = 0
		default:
			failed++
		}
	}
}

// recordOutcome notes whether a window is open now. It is called with mu held.
func (w *Wall) recordOutcome(o *opening) {
	if !o.recorded {
		return
	}
	f := w.policy
	i := f.doorNamed(o.door)
	if o.err != nil {
		if o.err != errFull { // the kernel may have opened it, and not have said so
			w.uncertainUntil = time.Now().Add(ruleset.MaxWindow)
		}
		var admitted int // meanwhile
		if win := w.windows.Get(o.id, o.source); win != nil {
			admitted = win.Connections
		}
		w.windows.Close(o.id, o.source)
		if o.refreshed { // the kernel has it as it was
			w.windows.Open(o.id, o.source, o.former.Opened, o.former.Until, f.config.Doors[i].MaxConnections)
			w.windows.Stands(o.id, o.source, o.former.Until)
			w.windows.Get(o.id, o.source).Connections = o.former.Connections + admitted
		}
		return
	}
	// Not before the kernel's, which has counted from some time in the transaction on.
	w.windows.Stands(o.id, o.source, time.Now().Add(o.length))
	o.why.Kind, o.why.Window = audit.Opened, o.length
	if o.refreshed {
		o.why.Kind = audit.Refreshed
		f.tallies[i].Add(audit.Refreshed)
	} else {
		f.tallies[i].Add(audit.Opened)
	}
}

// releaseFor sends those round again who wait for windows that are open now.
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

// notOpened says why a door could not be opened.
func (w *Wall) notOpened(e audit.Event, code audit.Code, err error) {
	e.Kind, e.Code, e.Reason, e.Failed = audit.Refused, code, err.Error(), true
	w.trail.Record(e)
}

// emitPending passes on who was let in by the kernel before it was told that the window is
// open. It is called with change held, as is what ends a window again.
func (w *Wall) emitPending() {
	w.mu.Lock()
	accepted := w.pending
	w.announcing, w.pending = false, nil
	w.mu.Unlock()
	w.record(accepted)
}

// errGone is why a window is not opened whose door has gone meanwhile.
var errDoorGone = &request{ErrNoDoor, "a reload has taken the door away, or changed it, this very moment: try again"}

// spend closes a window that has admitted as many connections as it may.
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
	spent := win != nil && win.Spent() // and not knocked open again meanwhile
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
