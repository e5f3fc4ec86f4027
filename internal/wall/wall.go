package wall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// Kernel is what the wall needs of nftables; [ruleset.Kernel] has it.
type Kernel interface {
	Install(*ruleset.Table, []ruleset.Window) error
	Remove(table string) (bool, error)
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
	Refuse(id uint32) error
	RefuseUpTo(id uint32) error
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
	// Adopt makes connections known to the kernel that were there before the wall.
	Adopt func(guarded func(packet.Port) bool) (int, error)
}

// KernelEdges are the true ones.
func KernelEdges(k *ruleset.Kernel, adopt func(func(packet.Port) bool) (int, error)) Edges {
	return Edges{
		Kernel:      k,
		ListenLog:   func(group uint16, h nflog.Handler) (Log, error) { return nflog.Listen(group, h) },
		ListenQueue: func(c nfqueue.Config, h nfqueue.Handler) (Queue, error) { return nfqueue.Listen(c, h) },
		LogInUse:    nflog.InUse,
		QueueInUse:  nfqueue.InUse,
		Adopt:       adopt,
	}
}

// Wall is a daemon's wall. Its methods may be called from any goroutine.
type Wall struct {
	edges  Edges
	trail  *audit.Summer
	wake   chan struct{} // the keeper is to look what is due
	failed chan error    // why packets can no longer be read

	change sync.Mutex

	mu      sync.Mutex
	front   *front // what stands, nil before
	windows *sequence.Windows
	doors   []string // names by id, which a door keeps whatever is reloaded
	since   time.Time
	lost    uint64 // packets that were logged or queued and never arrived
	reports reports
}

// reports is what the keeper has told about losses.
type reports struct {
	lost  uint64
	swept time.Time // when sums were last passed on
}

// New makes a wall that does not stand yet.
func New(edges Edges, sink audit.Sink) *Wall {
	return &Wall{
		edges:   edges,
		trail:   audit.NewSummer(sink),
		wake:    make(chan struct{}, 1),
		failed:  make(chan error, 1),
		windows: sequence.NewWindows(),
	}
}

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
// that stands, if any, and takes its open windows over. What waits in its queues
// the kernel drops along with the table; clients send it again. After an error
// all is as it was.
func (w *Wall) Raise(c *ruleset.Config) error {
	former, err := w.raise(c)
	if former != nil {
		former.close()
	}
	return err
}

// raise puts up the wall, and returns the front that it took the place of. That
// is closed later, as its handlers may be waiting for change.
func (w *Wall) raise(c *ruleset.Config) (former *front, err error) {
	w.change.Lock()
	defer w.change.Unlock()

	if err := w.checkFree(c); err != nil {
		return nil, err
	}
	current := w.current()
	replaced := c.Wall.Table
	if current != nil {
		replaced = current.config.Wall.Table // by one of another name, perhaps
	}
	read := time.Now()
	standing, err := w.edges.Kernel.Standing(replaced)
	if err != nil {
		return nil, err
	}
	turn := slices.IndexFunc([]int{0, 1}, func(turn int) bool {
		n := c.Wall.Numbers(turn)
		return (standing == nil || !standing.Names(n)) && (current == nil || !overlap(current.numbers, n))
	})
	if turn < 0 {
		return nil, fmt.Errorf("the table inet %s that stands uses some of the numbers of each turn: "+
			"give nflog_group and queue in the rule files numbers that are further off", replaced)
	}
	next, err := w.newFront(c, c.Wall.Numbers(turn))
	if err != nil {
		return nil, err
	}
	if _, err := w.edges.Adopt(next.guardsAny); err != nil {
		next.close()
		return nil, err
	}
	windows := next.carriedOver(standing, time.Since(read))
	w.note(windows, next)
	if err := w.edges.Kernel.Install(ruleset.NewTable(c, next.numbers), windows); err != nil {
		next.close()
		return nil, err
	}
	// Once more, for those that were made meanwhile. The wall stands by now, and
	// most will have been seen by the kernel itself.
	_, _ = w.edges.Adopt(next.guardsAny)
	if replaced != c.Wall.Table {
		if _, err := w.edges.Kernel.Remove(replaced); err != nil {
			_, undone := w.edges.Kernel.Remove(c.Wall.Table)
			next.close()
			return nil, errors.Join(err, undone)
		}
	}
	return w.stand(next, windows), nil
}

func overlap(a, b ruleset.Numbers) bool {
	return a.LogGroup == b.LogGroup ||
		a.Admitted == b.Admitted || a.Admitted == b.Strangers ||
		a.Strangers == b.Admitted || a.Strangers == b.Strangers
}

// checkFree makes sure that nobody else listens where this wall may want to, and
// that no wall of another name queues there, at the first start: a second daemon
// would take the wall from the first.
func (w *Wall) checkFree(c *ruleset.Config) error {
	w.mu.Lock()
	first := w.front == nil
	w.mu.Unlock()
	if !first {
		return nil
	}
	for turn := range 2 {
		n := c.Wall.Numbers(turn)
		inUse, err := w.edges.LogInUse(n.LogGroup)
		if err != nil {
			return err
		}
		if inUse {
			return &InUseError{fmt.Sprintf("NFLOG group %d", n.LogGroup), "nflog_group"}
		}
		for _, number := range []uint16{n.Admitted, n.Strangers} {
			inUse, err := w.edges.QueueInUse(number)
			if err != nil {
				return err
			}
			if inUse {
				return &InUseError{fmt.Sprintf("queue %d", number), "queue"}
			}
		}
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

// forgetAllBut forgets the windows that the kernel has no more.
func (w *Wall) forgetAllBut(windows []ruleset.Window) {
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
		w.windows.Close(win.Door, win.Source)
	}
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

// stand notes that the next front stands, and which windows are open in it, and
// returns the former one.
func (w *Wall) stand(next *front, windows []ruleset.Window) (former *front) {
	now := time.Now()
	w.mu.Lock()
	former = w.front
	w.front = next
	if former == nil {
		w.since = now
	} else {
		next.inherit(former)
	}
	w.forgetAllBut(windows)
	w.mu.Unlock()
	w.nudge()
	w.trail.Record(audit.Event{
		Time: now, Kind: audit.Started,
		Reason: fmt.Sprintf("doors guarded: %d, windows open: %d", len(next.config.Doors), len(windows)),
	})
	return former
}

// Run keeps the wall that Raise has put up until ctx ends, or the kernel can no
// longer be heard. It ends as the rule files say: the wall stays, or goes.
func (w *Wall) Run(ctx context.Context) error {
	kept, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.keep(kept)
	}()
	var err error
	select {
	case <-ctx.Done():
	case err = <-w.failed:
	}
	stop()
	<-done
	return errors.Join(err, w.lower(err == nil))
}

// lower ends the daemon's part of the wall, and takes the whole wall down if it
// was asked to stop and the rule files want that.
func (w *Wall) lower(asked bool) error {
	f := w.current()
	reason := "the wall stands: open windows admit until their time is up, strangers get in as on_failure says"
	var err error
	if asked && f.config.Wall.OnStop == ruleset.Remove {
		reason = "the wall is taken down"
		w.change.Lock()
		_, err = w.edges.Kernel.Remove(f.config.Wall.Table)
		w.change.Unlock()
	}
	f.close()
	w.trail.Flush()
	w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Stopped, Reason: reason})
	return err
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

	now := time.Now()
	w.mu.Lock()
	f := w.front
	i := f.doorNamed(door)
	if i < 0 { // a reload has taken the door away
		w.mu.Unlock()
		return nil
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
	f.release(func(p packet.Packet) bool { return guards(d, p) && d.SourcePrefix.Of(p.Source) == source })
	f.tallies[i].opened++
	w.mu.Unlock()
	w.nudge()
	why.Kind, why.Window = audit.Opened, length
	if refreshed {
		why.Kind = audit.Refreshed
	}
	w.trail.Record(why)
	return nil
}

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
	if _, err := w.edges.Kernel.CloseWindow(f.config.Wall.Table, door, source); err != nil {
		e.Reason = err.Error()
	}
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
