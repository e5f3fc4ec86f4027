package wall

import (
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// front is what meets the packets: a configuration, the sockets that its table
// names, and what is known of those who knock and wait. A reload makes a new one.
type front struct {
	wall    *Wall
	config  *ruleset.Config
	numbers ruleset.Numbers
	notices map[string]ruleset.Notice
	ids     []int // of its doors, by which their windows are noted

	// Guarded by the wall's mu.
	log                 Log
	admitted, strangers Queue
	tracker             *sequence.Tracker
	hold                *sequence.Hold
	tallies             []tally   // by door
	calm                time.Time // before then nobody is refused, as the log was not drained
	opening             int       // windows that are being opened, and not yet in the kernel
	backlog             time.Time // since when the log was never drained, if a knock was early then
	swept               time.Time // when the hold was last swept
	closed              bool      // and no failure to read matters any more
}

// tally counts what happened at one door.
type tally struct {
	knocks, resets, opened, accepted, refused, held uint64
}

func (t *tally) add(other tally) {
	t.knocks += other.knocks
	t.resets += other.resets
	t.opened += other.opened
	t.accepted += other.accepted
	t.refused += other.refused
	t.held += other.held
}

// newFront binds the sockets that a table with these numbers will name.
func (w *Wall) newFront(c *ruleset.Config, n ruleset.Numbers) (*front, error) {
	doors := make([]sequence.Door, len(c.Doors))
	for i, d := range c.Doors {
		doors[i] = sequence.Door{Steps: d.Sequence, Timeout: d.SequenceTimeout, Prefix: d.SourcePrefix}
	}
	now := time.Now()
	f := &front{
		wall:    w,
		config:  c,
		numbers: n,
		notices: c.Notices(),
		tracker: sequence.NewTracker(doors, c.Wall.Reorder, c.Wall.MaxSources, now),
		hold:    sequence.NewHold(c.Wall.Hold, nfqueue.MaxLength),
		tallies: make([]tally, len(c.Doors)),
	}
	w.mu.Lock()
	for _, d := range c.Doors {
		f.ids = append(f.ids, w.doorID(d.Name))
	}
	w.mu.Unlock()
	// Packets come only once the table names these numbers: nobody reads f yet.
	log, err := w.edges.ListenLog(n.LogGroup, knocks{f})
	if err != nil {
		return nil, err
	}
	f.log = log
	mark := uint32(ruleset.RefusedMark)
	admit, err := w.edges.ListenQueue(nfqueue.Config{Number: n.Admitted, FailOpen: true, RefusedMark: mark}, admitted{f})
	if err != nil {
		f.close()
		return nil, err
	}
	f.admitted = admit
	refuse, err := w.edges.ListenQueue(nfqueue.Config{Number: n.Strangers, RefusedMark: mark}, strangers{f})
	if err != nil {
		f.close()
		return nil, err
	}
	f.strangers = refuse
	return f, nil
}

// close closes the sockets that are bound. Reading from them fails then.
func (f *front) close() {
	f.wall.mu.Lock()
	f.closed = true
	f.wall.mu.Unlock()
	for _, socket := range []io.Closer{f.log, f.admitted, f.strangers} {
		if socket != nil {
			socket.Close()
		}
	}
}

// fail ends Run, because packets can no longer be read.
func (f *front) fail(err error) {
	f.wall.mu.Lock()
	closed := f.closed
	f.wall.mu.Unlock()
	if !closed {
		f.wall.fail(err)
	}
}

// inherit goes on counting where the former front has stopped.
func (f *front) inherit(former *front) {
	for i, d := range former.config.Doors {
		if door := f.doorNamed(d.Name); door >= 0 {
			f.tallies[door].add(former.tallies[i])
		}
	}
}

// release sends the strangers that match through the rules again.
func (f *front) release(match func(packet.Packet) bool) {
	f.hold.Release(match, func(h sequence.Held) {
		_ = f.strangers.Repeat(h.ID) // if that fails reading fails, too, and ends Run
	})
}

// carriedOver returns those windows of a table that was read a while ago which
// stay open in this front: their doors still stand, and tell sources apart as
// they did, so that nobody inherits another's window.
func (f *front) carriedOver(standing *ruleset.Standing, ago time.Duration) []ruleset.Window {
	if standing == nil {
		return nil
	}
	var windows []ruleset.Window
	for _, win := range standing.Windows {
		win.Left -= ago
		i := f.doorNamed(win.Door)
		if win.Left > 0 && i >= 0 && f.config.Doors[i].SourcePrefix.Of(win.Source.Addr()) == win.Source {
			windows = append(windows, win)
		}
	}
	return windows
}

func (f *front) doorNamed(name string) int {
	return slices.IndexFunc(f.config.Doors, func(d ruleset.Door) bool { return d.Name == name })
}

func (f *front) guardsAny(p packet.Port) bool {
	return slices.ContainsFunc(f.config.Doors, func(d ruleset.Door) bool { return d.Guards(p) })
}

// doorFor returns the door that a new connection is reckoned to: of those
// before its port the one where the source has a window, else the first. Of
// several windows it is the one that has admitted this very packet before, else
// one that is not spent. Which of the doors let it in is the kernel's decision,
// made already.
func (f *front) doorFor(p packet.Packet) (door int, source packet.Source, win *sequence.Window) {
	door = -1
	for i := range f.config.Doors {
		d := &f.config.Doors[i]
		if !guards(d, p) {
			continue
		}
		s := d.SourcePrefix.Of(p.Source)
		w := f.wall.windows.Get(f.ids[i], s)
		if w != nil && w.Spent() && w.Admit(p) == sequence.AdmitAgain {
			return i, s, w
		}
		if door < 0 || w != nil && (win == nil || win.Spent() && !w.Spent()) {
			door, source, win = i, s, w
		}
	}
	return door, source, win
}

// guards reports whether a door stands before where a packet goes, as far as a
// packet tells: not at which interface it came in, nor which addresses are this
// host's own.
func guards(d *ruleset.Door, p packet.Packet) bool {
	return d.Guards(p.Port) &&
		(len(d.To) == 0 || slices.ContainsFunc(d.To, func(to netip.Prefix) bool { return to.Contains(p.Destination) }))
}

// knocks handles what the kernel has logged.
type knocks struct{ *front }

func (f knocks) Logged(prefix string, p packet.Packet) {
	notice, ok := f.notices[prefix]
	if !ok {
		return
	}
	w := f.wall
	d := &f.config.Doors[notice.Door]
	now := time.Now()
	e := audit.Event{Time: now, Door: d.Name, Source: d.SourcePrefix.Of(p.Source), Port: p.Port}
	if notice.Refused {
		w.mu.Lock()
		f.tallies[notice.Door].refused++
		w.mu.Unlock()
		e.Kind = audit.Refused
		w.trail.Record(e)
		return
	}

	w.mu.Lock()
	idle := f.tracker.Len() == 0
	heard := f.heardAt(now)
	out := f.tracker.Knock(notice.Door, p, heard)
	if out.Progress == sequence.Early && f.backlog.IsZero() && !f.log.Drained() {
		f.backlog = heard
	}
	t := &f.tallies[notice.Door]
	if out.Progress != sequence.Nothing {
		t.knocks++
	}
	if out.Ended != sequence.NotEnded {
		t.resets++
	}
	if out.Progress == sequence.Completed {
		f.opening++
	}
	w.mu.Unlock()
	if idle {
		w.nudge()
	}

	e.Steps = len(d.Sequence)
	if out.Ended != sequence.NotEnded {
		reset := e
		reset.Kind, reset.Step, reset.Reason = audit.Reset, out.EndedAt, out.Ended.String()
		w.trail.Record(reset)
	}
	if out.Progress == sequence.Nothing {
		return
	}
	e.Kind, e.Step = audit.Knock, out.Step
	w.trail.Record(e)
	if out.Progress == sequence.Completed {
		_ = w.open(d.Name, e.Source, d.Window, e) // the trail says so if it fails
		w.mu.Lock()
		f.opening--
		w.mu.Unlock()
	}
}

// heardAt returns when a knock came in that is read now. By how much knocks have
// overtaken each other is a matter of when they came, and not of when a busy
// machine lets them be read: what was waiting while an early knock was handled
// came no later than that. The log is asked only while that matters.
func (f *front) heardAt(now time.Time) time.Time {
	if f.backlog.IsZero() {
		return now
	}
	heard := f.backlog
	if f.log.Drained() || now.Sub(f.backlog) > patience {
		f.backlog = time.Time{}
	}
	return heard
}

func (f knocks) Lost(n uint32)    { f.wall.noteLost(uint64(n)) }
func (f knocks) Failed(err error) { f.fail(err) }

// admitted handles new connections of sources that have a window.
type admitted struct{ *front }

func (f admitted) Queued(id uint32, p packet.Packet) {
	w := f.wall
	admission := sequence.AdmitUnknown
	w.mu.Lock()
	queue := f.front.admitted
	door, source, win := f.doorFor(p)
	if win != nil {
		admission = win.Admit(p)
	}
	spent := win != nil && win.Spent()
	if door >= 0 {
		if admission == sequence.Exhausted {
			f.tallies[door].refused++
		} else if admission != sequence.AdmitAgain {
			f.tallies[door].accepted++
		}
	}
	if admission == sequence.Exhausted {
		_ = queue.Refuse(id)
	} else {
		_ = queue.Accept(id)
	}
	w.mu.Unlock()
	if door < 0 || admission == sequence.AdmitAgain {
		return
	}
	e := audit.Event{Time: time.Now(), Kind: audit.Accepted, Door: f.config.Doors[door].Name, Source: source, Port: p.Port}
	if admission == sequence.Exhausted {
		e.Kind, e.Reason = audit.Refused, "max_connections is reached"
	}
	w.trail.Record(e)
	if spent && admission == sequence.AdmitNew {
		w.spend(e.Door, source)
	}
}

func (f admitted) Unreadable(id uint32) {
	f.wall.mu.Lock()
	queue := f.front.admitted
	f.wall.mu.Unlock()
	_ = queue.Refuse(id)
}

func (f admitted) Overflowed()      { f.wall.noteLost(1) }
func (f admitted) Failed(err error) { f.fail(err) }

// strangers handles everybody else's new connections.
type strangers struct{ *front }

func (f strangers) Queued(id uint32, p packet.Packet) {
	w := f.wall
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	queue := f.front.strangers
	door, _, win := f.doorFor(p)
	if win != nil && win.Spent() && win.Admit(p) == sequence.AdmitAgain {
		// The SYN of a connection with which the window was spent, sent again.
		_ = queue.Accept(id)
		return
	}
	if win != nil && !win.Spent() && win.Repeat() {
		_ = queue.Repeat(id)
		return
	}
	_, waiting := f.hold.Next()
	if !f.hold.Add(id, p, now) {
		_ = queue.Refuse(id)
		if door >= 0 {
			f.tallies[door].refused++
		}
		return
	}
	if door >= 0 {
		f.tallies[door].held++
	}
	if !waiting {
		w.nudge()
	}
}

func (f strangers) Unreadable(id uint32) {
	f.wall.mu.Lock()
	defer f.wall.mu.Unlock()
	_ = f.front.strangers.Refuse(id)
}

func (f strangers) Overflowed()      { f.wall.noteLost(1) }
func (f strangers) Failed(err error) { f.fail(err) }
