package wall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// Kernel is what the wall needs of nftables; [ruleset.Kernel] has it.
type Kernel interface {
	Install(t *ruleset.Table, windows []ruleset.Window, replaced string) error
	Restore(t *ruleset.Table, windows []ruleset.Window) error
	Remove(table string) (bool, error)
	Intact(t *ruleset.Table) (bool, error)
	Standing(table string) (*ruleset.Standing, error)
	Others(table string) ([]*ruleset.Standing, error)
	OpenWindow(table string, w ruleset.Window) error
	CloseWindow(table, door string, source packet.Source) (bool, error)
	Counts(table string) (map[string]ruleset.Counts, error)
}

// Log is an NFLOG group that is listened to; [nflog.Log] is one.
type Log interface {
	Drained() bool
	Close() error
}

// Queue is an NFQUEUE that is listened to; [nfqueue.Queue] is one.
type Queue interface {
	Accept(id uint32) error
	Repeat(id uint32) error
	RepeatUpTo(id uint32) error
	Refuse(id uint32) error
	RefuseUpTo(id uint32) error
	Stats() (nfqueue.Stats, error)
	Close() error
}

// Edges are the wall's ways into the kernel.
type Edges struct {
	Kernel      Kernel
	ListenLog   func(group uint16, h nflog.Handler) (Log, error)
	ListenQueue func(c nfqueue.Config, h nfqueue.Handler) (Queue, error)
	// LogInUse and QueueInUse report whether another process listens already.
	LogInUse   func(group uint16) (bool, error)
	QueueInUse func(number uint16) (bool, error)
	// Watch tells of changes that others make to tables. It is nil where the kernel
	// lets nobody else change the wall's.
	Watch func(changed func(ruleset.Change), failed func(error)) (io.Closer, error)
	// Adopt makes connections known to the kernel that were there before the wall,
	// and with renew those, too, that it knows otherwise than they are.
	Adopt func(wanted func(sessions.Session) bool, renew bool) (int, error)
	// EndSessions ends connections that are established.
	EndSessions func(wanted func(sessions.Session) bool) (int, error)
}

// KernelEdges are the true ones.
func KernelEdges(k *ruleset.Kernel) Edges {
	e := Edges{
		Kernel:      k,
		ListenLog:   func(group uint16, h nflog.Handler) (Log, error) { return nflog.Listen(group, h) },
		ListenQueue: func(c nfqueue.Config, h nfqueue.Handler) (Queue, error) { return nfqueue.Listen(c, h) },
		LogInUse:    nflog.InUse,
		QueueInUse:  nfqueue.InUse,
		Adopt:       sessions.Adopt,
		EndSessions: sessions.End,
	}
	if !k.Features().Ownership {
		e.Watch = func(changed func(ruleset.Change), failed func(error)) (io.Closer, error) {
			return k.Watch(changed, failed)
		}
	}
	return e
}

// Wall is a daemon's wall. Its methods may be called from any goroutine.
type Wall struct {
	edges   Edges
	trail   *audit.Summer
	metrics *metrics
	wake    chan struct{} // the keeper is to look what is due
	failed  chan error    // why Run ends by itself
	down    chan struct{} // somebody asks for the wall to come down
	ending  chan struct{} // closed when Run begins to end
	ended   chan struct{} // closed when Run has ended
	endErr  error         // that it has ended with
	removed bool          // and that the table is gone by then

	// change is held while the table or a window in it is changed, and guards
	// what was done last.
	change  sync.Mutex
	table   *ruleset.Table // that stands
	watch   io.Closer      // tells of others' changes
	lowered bool           // and nothing is to be put up again
	settled chan struct{}  // closed when no sockets are being retired

	mu      sync.Mutex
	front   *front   // what stands, nil before; changed only with change held, too
	sockets *sockets // that the table names; likewise
	windows *sequence.Windows
	opening int      // windows that are being opened, and not yet in the kernel
	doors   []string // names by id, which a door keeps whatever is reloaded
	trial   *trial
	since   time.Time
	lost    uint64 // packets that were logged or queued and never arrived
	evicted uint64 // attempts that gave way to newer ones, of former fronts
	healed  uint64
	reports reports
}

// reports is what the keeper has told about losses.
type reports struct {
	lost       uint64    // that it has told of
	counted    uint64    // that it knew of when it looked last
	overloaded bool      // it has told that packets are being lost
	lately     time.Time // when some were found lost last
	swept      time.Time // when sums were last passed on
}

// New makes a wall that does not stand yet.
func New(edges Edges, sink audit.Sink) *Wall {
	settled := make(chan struct{})
	close(settled)
	return &Wall{
		settled: settled,
		edges:   edges,
		trail:   audit.NewSummer(sink),
		metrics: newMetrics(),
		wake:    make(chan struct{}, 1),
		failed:  make(chan error, 1),
		down:    make(chan struct{}, 1),
		ending:  make(chan struct{}),
		ended:   make(chan struct{}),
		windows: sequence.NewWindows(),
	}
}

// ErrLowered is why a wall is not changed that is being taken down, or was.
var ErrLowered = errors.New("the daemon is on its way out: ask again when it has ended")

// InUseError says that somebody listens where the wall wants to.
type InUseError struct {
	What string // "NFLOG group 7100", "queue 7100"
	Key  string // of the rule files, which says where else to listen
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is in use: another knockwall runs here, which `knockwall status` shows, "+
		"or another program has it, and then %s in the rule files can name another", e.What, e.Key)
}

// Raise puts up the wall that a configuration describes, in place of the one
// that stands, if any, whose open windows, attempts under way and waiting packets
// it takes over. After an error all is as it was.
func (w *Wall) Raise(c *ruleset.Config) error {
	w.lockSettled()
	defer w.change.Unlock()
	if w.OnTrial() {
		return ErrOnTrial
	}
	return w.raise(c, false, "")
}

// lockSettled locks change when the sockets of an earlier reload, whose handlers
// may want it, too, are closed: their numbers may be wanted again.
func (w *Wall) lockSettled() {
	for {
		w.change.Lock()
		settled := w.settled
		select {
		case <-settled:
			return
		default:
		}
		w.change.Unlock()
		<-settled
	}
}

// raise is called with change held. A wall on trial that none stood before goes
// with the daemon, where the kernel can see to that.
func (w *Wall) raise(c *ruleset.Config, onTrial bool, why string) error {
	if w.lowered {
		return ErrLowered
	}
	if err := w.checkFree(c); err != nil {
		return err
	}
	former := w.current()
	replaced := c.Wall.Table
	if former != nil {
		replaced = former.config.Wall.Table // of another name, perhaps
	}
	read := time.Now()
	standing, err := w.edges.Kernel.Standing(replaced)
	if err != nil && former == nil {
		return err
	}
	if onTrial && standing != nil {
		return errStands
	}
	if err == nil && standing == nil {
		replaced = ""
	}
	next := w.newFront(c)
	s, err := w.socketsFor(c, standing)
	if err != nil {
		return err
	}
	undo := func() {
		if s != w.sockets {
			s.close()
		}
		if former == nil && w.watch != nil {
			go w.watch.Close() // which waits for who waits for change
			w.watch = nil
		}
	}
	if former == nil && w.edges.Watch != nil {
		watch, err := w.edges.Watch(w.changed, w.fail)
		if err != nil {
			undo()
			return err
		}
		w.watch = watch
	}
	if _, err := w.edges.Adopt(next.guardsAny, false); err != nil {
		undo()
		return err
	}
	var windows []ruleset.Window
	switch {
	case standing != nil:
		windows = next.carriedOver(standing.Windows, time.Since(read))
	case former != nil: // somebody has deleted the table this very moment, or it cannot be read
		windows = next.carriedOver(w.noted(), 0)
	}
	w.note(windows, next)

	table := ruleset.NewTable(c, s.numbers)
	table.Trial = onTrial
	// What the old rules hand on is judged by the new configuration from now on:
	// the other way round a knock that only the new one knows could be missed.
	w.advance(next)
	if err := w.edges.Kernel.Install(table, windows, replaced); err != nil {
		var back *front
		if former != nil {
			back = w.newFront(former.config)
		}
		w.mu.Lock()
		if back != nil {
			copy(back.tallies, former.tallies)
			back.inherit(next)
		}
		w.front = back
		w.mu.Unlock()
		undo()
		return err
	}
	// Once more, for those that were made meanwhile. The wall stands by now, and
	// most will have been seen by the kernel itself.
	_, _ = w.edges.Adopt(next.guardsAny, false)
	w.table = table
	w.stand(next, s, former, windows, why)
	return nil
}

// socketsFor returns the sockets for a configuration: those that there are, or,
// if it has other numbers or there are none, new ones that no rule names yet.
func (w *Wall) socketsFor(c *ruleset.Config, standing *ruleset.Standing) (*sockets, error) {
	w.mu.Lock()
	current := w.sockets
	w.mu.Unlock()
	for turn := range 2 {
		if n := c.Wall.Numbers(turn); current != nil && current.numbers == n {
			return current, nil
		}
	}
	for turn := range 2 {
		n := c.Wall.Numbers(turn)
		if (standing == nil || !standing.Names(n)) && (current == nil || !overlap(current.numbers, n)) {
			return w.listen(n)
		}
	}
	return nil, fmt.Errorf("the table inet %s that stands uses some of the numbers of each turn: "+
		"give nflog_group and queue in the rule files numbers that are further off", c.Wall.Table)
}

func overlap(a, b ruleset.Numbers) bool {
	return a.LogGroup == b.LogGroup ||
		a.Admitted == b.Admitted || a.Admitted == b.Strangers ||
		a.Strangers == b.Admitted || a.Strangers == b.Strangers
}

// checkFree makes sure that nobody else listens where this wall may want to, and,
// at the first start, that no wall of another name queues there: a second daemon
// would take the wall from the first.
func (w *Wall) checkFree(c *ruleset.Config) error {
	for turn := range 2 {
		if err := w.taken(c.Wall.Numbers(turn)); err != nil {
			return err
		}
	}
	if w.sockets != nil {
		return nil
	}
	others, err := w.edges.Kernel.Others(c.Wall.Table)
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.Names(c.Wall.Numbers(0)) || other.Names(c.Wall.Numbers(1)) {
			return fmt.Errorf("the table inet %[1]s is another wall's, and its rules name the same groups and queues: "+
				"take it down with `nft delete table inet %[1]s`, or give nflog_group and queue other numbers in the rule files", other.Table)
		}
	}
	return nil
}

// taken returns an [*InUseError] if another process listens to any of the numbers.
func (w *Wall) taken(n ruleset.Numbers) error {
	var own ruleset.Numbers
	if w.sockets != nil {
		own = w.sockets.numbers
	}
	if w.sockets == nil || n.LogGroup != own.LogGroup {
		inUse, err := w.edges.LogInUse(n.LogGroup)
		if err != nil {
			return err
		}
		if inUse {
			return &InUseError{fmt.Sprintf("NFLOG group %d", n.LogGroup), "nflog_group"}
		}
	}
	for _, number := range []uint16{n.Admitted, n.Strangers} {
		if w.sockets != nil && (number == own.Admitted || number == own.Strangers) {
			continue
		}
		inUse, err := w.edges.QueueInUse(number)
		if err != nil {
			return err
		}
		if inUse {
			return &InUseError{fmt.Sprintf("queue %d", number), "queue"}
		}
	}
	return nil
}

// note notes windows that were found in the kernel, unless they are known. Those
// that are keep count of their connections.
func (w *Wall) note(windows []ruleset.Window, next *front) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, win := range windows {
		id := w.doorID(win.Door)
		if w.windows.Get(id, win.Source) == nil {
			limit := next.config.Doors[next.doorNamed(win.Door)].MaxConnections
			w.windows.Open(id, win.Source, now, now.Add(win.Left), limit)
			w.windows.Stands(id, win.Source)
		}
	}
}

// forgetAllBut forgets the windows that the kernel has no more, and returns what
// to tell of it.
func (w *Wall) forgetAllBut(windows []ruleset.Window, now time.Time) (events []audit.Event) {
	type key struct {
		id     int
		source packet.Source
	}
	open := make(map[key]bool, len(windows))
	for _, win := range windows {
		open[key{w.doorID(win.Door), win.Source}] = true
	}
	var gone []*sequence.Window
	for win := range w.windows.All() {
		if !win.Spent() && !open[key{win.Door, win.Source}] {
			gone = append(gone, win)
		}
	}
	for _, win := range gone {
		if i := w.front.doorNamed(w.doors[win.Door]); i >= 0 {
			w.front.tallies[i].closed++
		}
		w.windows.Close(win.Door, win.Source)
		events = append(events, audit.Event{Time: now, Kind: audit.Closed, Door: w.doors[win.Door], Source: win.Source,
			Reason: "the new rules have no such door, or tell sources apart otherwise"})
	}
	return events
}

// doorID returns the id of a door of that name.
func (w *Wall) doorID(name string) int {
	id := slices.Index(w.doors, name)
	if id < 0 {
		id = len(w.doors)
		w.doors = append(w.doors, name)
	}
	return id
}

// advance lets the next front judge, which takes over what the former one knows.
func (w *Wall) advance(next *front) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.front != nil {
		next.inherit(w.front)
	}
	w.front = next
}

// stand notes that the wall stands.
func (w *Wall) stand(next *front, s *sockets, former *front, windows []ruleset.Window, why string) {
	now := time.Now()
	w.mu.Lock()
	s.hold.SetWait(next.config.Wall.Hold)
	retired := w.sockets
	w.sockets = s
	e := audit.Event{Time: now, Kind: audit.Reloaded}
	if former == nil {
		e.Kind = audit.Started
		w.since = now
	} else {
		w.evicted += former.tracker.Evicted()
	}
	closed := w.forgetAllBut(windows, now)
	w.mu.Unlock()
	w.record(closed)
	if retired != nil && retired != s {
		settled := make(chan struct{})
		w.settled = settled
		go func() {
			defer close(settled)
			retired.retire()
		}()
	}
	w.nudge()
	e.Reason = fmt.Sprintf("%sdoors guarded: %d, windows open: %d", why, len(next.config.Doors), len(windows))
	w.trail.Record(e)
}

// Run keeps the wall that Raise has put up until ctx ends, [Wall.Down] is called,
// or the kernel can no longer be heard. It ends as the rule files say: the wall
// stays, or goes.
func (w *Wall) Run(ctx context.Context) error {
	kept, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.keep(kept)
	}()
	var err error
	asked := false
	select {
	case <-ctx.Done():
	case err = <-w.failed:
	case <-w.down:
		asked = true
	}
	close(w.ending)
	stop()
	<-done
	w.endErr = errors.Join(err, w.lower(asked, err))
	close(w.ended)
	return w.endErr
}

// Down takes the wall down, whatever the rule files say of that, and ends Run.
func (w *Wall) Down(ctx context.Context) error {
	select {
	case w.down <- struct{}{}:
	default: // somebody else has asked
	}
	select {
	case <-w.ended:
		if !w.removed && w.endErr == nil {
			return ErrLowered // for another reason, by which the wall stays
		}
		return w.endErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lower ends the daemon's part of the wall. The whole wall goes if that is asked
// for, if the rule files want it and nothing has failed, or if it is on trial.
func (w *Wall) lower(asked bool, failure error) error {
	remove, err := w.handOver(asked, failure)
	w.sockets.retire() // whose handlers may still open windows
	w.lockSettled()    // after a trial's
	w.change.Unlock()
	if w.watch != nil {
		w.watch.Close()
	}
	select {
	case <-w.down: // meanwhile
		remove = true
	default:
	}
	reason := "the wall stands: open windows admit until their time is up, strangers get in as on_failure says"
	if remove {
		reason = "the wall is taken down"
		_, err = w.edges.Kernel.Remove(w.table.Name)
		w.removed = err == nil
	}
	w.trail.Flush()
	w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Stopped, Reason: reason})
	return err
}

// handOver gives the table numbers that nobody listens to, so that the kernel
// goes on alone; what is in the sockets still can be judged then, and nobody is
// turned away for having come this very moment. It says whether the wall is to
// be removed.
func (w *Wall) handOver(asked bool, failure error) (remove bool, err error) {
	w.lockSettled()
	defer w.change.Unlock()
	defer func() { w.lowered = true }()
	w.mu.Lock()
	trial := w.trial
	w.trial = nil
	w.mu.Unlock()
	if trial != nil && trial.former != nil && !asked {
		_ = w.goBack(trial.former) // else the wall stays as it is
	}
	c := w.front.config
	if err = w.idle(c); err != nil {
		w.mu.Lock()
		w.sockets.named = true
		w.mu.Unlock()
	}
	return asked || trial != nil && trial.former == nil || c.Wall.OnStop == ruleset.Remove && failure == nil, err
}

// idle puts the numbers of the other turn into the table, to which nobody listens.
func (w *Wall) idle(c *ruleset.Config) error {
	n := c.Wall.Numbers(0)
	if overlap(n, w.sockets.numbers) {
		n = c.Wall.Numbers(1)
	}
	if err := w.taken(n); err != nil {
		return err
	}
	table := ruleset.NewTable(c, n)
	table.Trial = w.table.Trial
	windows := w.noted()
	if s, err := w.edges.Kernel.Standing(table.Name); err == nil && s != nil {
		windows = w.front.carriedOver(s.Windows, 0)
	}
	if err := w.edges.Kernel.Install(table, windows, ""); err != nil {
		return err
	}
	w.table = table
	return nil
}

func (w *Wall) current() *front {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.front
}

// open opens a window in the kernel, and sends round again who waits for it.
func (w *Wall) open(door string, source packet.Source, length time.Duration, why audit.Event) error {
	w.change.Lock()
	defer w.change.Unlock()
	return w.openLocked(door, source, length, why)
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
	w.mu.Unlock()

	err := w.edges.Kernel.OpenWindow(f.config.Wall.Table, ruleset.Window{Door: door, Source: source, Left: length})
	if err != nil && w.mend("") {
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
		why.Kind, why.Reason = audit.Refused, err.Error()
		w.trail.Record(why)
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
	w.trail.Record(why) // before anybody who waits is let in
	w.mu.Lock()
	t.released += w.sockets.release(func(p packet.Packet) bool { return guards(d, p) && d.SourcePrefix.Of(p.Source) == source })
	w.mu.Unlock()
	w.nudge()
	return nil
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
	if err != nil {
		e.Reason = err.Error()
	} else if !closed {
		return
	}
	w.mu.Lock()
	f.tallies[i].closed++
	w.mu.Unlock()
	w.trail.Record(e)
}

// fail ends Run, because packets can no longer be read.
func (w *Wall) fail(err error) {
	select {
	case w.failed <- err:
	default: // it has failed already
	}
}

// nudge makes the keeper look what is due.
func (w *Wall) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
