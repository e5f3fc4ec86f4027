package wall

import (
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

	// Guarded by the wall's mu.
	log                 Log
	admitted, strangers Queue
	tracker             *sequence.Tracker
	hold                *sequence.Hold
	tallies             []tally   // by door
	calm                time.Time // before then nobody is refused, as the log was not drained
	swept               time.Time // when the hold was last swept
}

// tally counts what happened at one door.
type tally struct {
	knocks, resets, opened, accepted, refused, held uint64
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
	log, err := w.edges.ListenLog(n.LogGroup, knocks{f})
	if err != nil {
		return nil, err
	}
	mark := uint32(ruleset.RefusedMark)
	admit, err := w.edges.ListenQueue(nfqueue.Config{Number: n.Admitted, FailOpen: true, RefusedMark: mark}, admitted{f})
	if err != nil {
		log.Close()
		return nil, err
	}
	refuse, err := w.edges.ListenQueue(nfqueue.Config{Number: n.Strangers, RefusedMark: mark}, strangers{f})
	if err != nil {
		log.Close()
		admit.Close()
		return nil, err
	}
	// Packets come only once the table names these numbers.
	w.mu.Lock()
	f.log, f.admitted, f.strangers = log, admit, refuse
	w.mu.Unlock()
	return f, nil
}

func (f *front) close() {
	f.log.Close()
	f.admitted.Close()
	f.strangers.Close()
}

// retire closes a front whose table is gone: who waits in it goes through the
// rules of the new one.
func (f *front) retire() {
	f.wall.mu.Lock()
	f.release(func(packet.Packet) bool { return true })
	f.wall.mu.Unlock()
	f.close()
}

// release sends the strangers that match through the rules again.
func (f *front) release(match func(packet.Packet) bool) {
	f.hold.Release(match, func(h sequence.Held) {
		_ = f.strangers.Repeat(h.ID) // if that fails reading fails, too, and ends Run
	})
}

func (f *front) doorNamed(name string) int {
	return slices.IndexFunc(f.config.Doors, func(d ruleset.Door) bool { return d.Name == name })
}

func (f *front) guardsAny(p packet.Port) bool {
	return slices.ContainsFunc(f.config.Doors, func(d ruleset.Door) bool { return d.Guards(p) })
}

// doorFor returns the door that a new connection is reckoned to: of those
// before its port the one where the source has a window, else the first. Which
// of them let it in is the kernel's decision, made already.
func (f *front) doorFor(p packet.Packet) (door int, source packet.Source, win *sequence.Window) {
	door = -1
	for i := range f.config.Doors {
		d := &f.config.Doors[i]
		if !d.Guards(p.Port) {
			continue
		}
		s := d.SourcePrefix.Of(p.Source)
		if w := f.wall.windows.Get(i, s); w != nil && (win == nil || win.Spent()) {
			door, source, win = i, s, w
		} else if door < 0 {
			door, source = i, s
		}
	}
	return door, source, win
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
	out := f.tracker.Knock(notice.Door, p, now)
	t := &f.tallies[notice.Door]
	if out.Progress != sequence.Nothing {
		t.knocks++
	}
	if out.Ended != sequence.NotEnded {
		t.resets++
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
	}
}

func (f knocks) Lost(n uint32)    { f.wall.noteLost(uint64(n)) }
func (f knocks) Failed(err error) { f.wall.fail(err) }

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
	w.mu.Unlock()

	if admission == sequence.Exhausted {
		_ = queue.Refuse(id)
	} else {
		_ = queue.Accept(id)
	}
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
func (f admitted) Failed(err error) { f.wall.fail(err) }

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
	if win != nil && win.Repeat() {
		_ = queue.Repeat(id)
		return
	}
	_, waiting := f.hold.Next()
	if !f.hold.Add(id, p, now) {
		_ = queue.Refuse(id)
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
func (f strangers) Failed(err error) { f.wall.fail(err) }
