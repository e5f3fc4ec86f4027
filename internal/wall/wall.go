package wall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
)

// Kernel is the part of nftables that the wall uses. [nft.Kernel] implements it.
type Kernel interface {
	Install(t *nft.Table, windows []nft.Window, replaced string) error
	Restore(t *nft.Table, windows []nft.Window) error
	Remove(table string) (bool, error)
	Intact(t *nft.Table) (bool, error)
	Standing(table string) (*nft.Standing, error)
	Others(table string) ([]*nft.Standing, error)
	OpenWindows(table string, windows []nft.Window) error
	CloseWindow(table, door string, source packet.Source) (bool, error)
	Describe(table string, host effective.Host) error
	Trapped(c *effective.Config, door int, source packet.Source) (time.Duration, error)
	Counts(table string) (map[string]nft.Counts, error)
}

// Log is an open NFLOG group. [nflog.Log] implements it.
type Log interface {
	Drained() bool
	Progress() progress.Progress
	Close() error
}

// Queue is an open NFQUEUE. [nfqueue.Queue] implements it.
type Queue interface {
	Accept(id uint32) error
	Repeat(id uint32) error
	RepeatUpTo(id uint32) error
	Refuse(id uint32) error
	RefuseUpTo(id uint32) error
	Stats() (nfqueue.Stats, error)
	Progress() progress.Progress
	Close() error
}

// Edges are the functions and stores through which the wall reaches the kernel, the host
// and the disk.
type Edges struct {
	Kernel      Kernel
	ListenLog   func(group uint16, h nflog.Handler) (Log, error)
	ListenQueue func(c nfqueue.Config, h nfqueue.Handler) (Queue, error)
	// LogInUse and QueueInUse report whether another process has bound the group or the
	// queue.
	LogInUse   func(group uint16) (bool, error)
	QueueInUse func(number uint16) (bool, error)
	// Watch reports changes that other processes make to nftables tables. It is nil where
	// the kernel lets no other process change the wall's table.
	Watch func(changed func(nft.Change), failed func(error)) (io.Closer, error)
	// Adopt enters into conntrack the connections that existed before the wall. With
	// renew it also replaces entries that conntrack holds in another state.
	Adopt func(wanted func(sessions.Session) bool, renew bool) (int, error)
	// Look examines the host. The result lacks what could not be found out.
	Look func() (effective.Host, error)
	// Used holds what opens a door once and has been used. Due holds the on_close
	// commands that have still to run. Both outlast the daemon.
	Used, Due Store
	// Tracked reports whether conntrack has a confirmed entry for the connection of an
	// admitted packet, which means that the packet was delivered.
	Tracked func(p packet.Packet) (bool, error)
	// Usage returns how many connections conntrack tracks, and its limit, 0 if unknown.
	// It may be nil.
	Usage func() (known, room int, err error)
	// Directions calls each with the TCP connections through this host, and with the
	// directions in which conntrack has seen packets. It may be nil.
	Directions func(each func(sessions.Session, sessions.Seen)) error
	// EndSessions ends established connections. EndedSessions returns those that were
	// ended and are still in conntrack, in the direction that either end would have
	// opened them. PardonSessions lets some of them continue.
	EndSessions    func(wanted func(sessions.Session) bool) (int, error)
	EndedSessions  func() ([]sessions.Session, error)
	PardonSessions func(wanted func(sessions.Session) bool) error
	// Examine checks the host for conditions that make a door ineffective or weaker. It
	// may be nil.
	Examine func(c *effective.Config) doctor.Report
	// Found is called when the findings differ from those of the examination before. It
	// may be nil.
	Found func(c *effective.Config, before, now []doctor.Finding)
	// Rules reports whether the rule files differ from the rules in force, and the
	// findings about the files. It is nil where there are no files.
	Rules func() (differ bool, findings []doctor.Finding)
}

// KernelEdges returns the edges of the real kernel. Its two stores are in memory and last
// as long as the process; a daemon replaces them with files.
func KernelEdges(k *nft.Kernel) Edges {
	e := Edges{
		Used:        NewMemoryStore(),
		Due:         NewMemoryStore(),
		Look:        host.Look,
		Kernel:      k,
		ListenLog:   func(group uint16, h nflog.Handler) (Log, error) { return nflog.Listen(group, h) },
		ListenQueue: func(c nfqueue.Config, h nfqueue.Handler) (Queue, error) { return nfqueue.Listen(c, h) },
		LogInUse:    nflog.InUse,
		QueueInUse:  nfqueue.InUse,
		Adopt:       sessions.Adopt,
		Tracked:     sessions.Tracked,
		Usage:       sessions.Usage,
		Directions:  sessions.Directions,
		EndSessions: sessions.End, EndedSessions: sessions.Ended, PardonSessions: sessions.Pardon,
	}
	if !k.Features().Ownership {
		e.Watch = func(changed func(nft.Change), failed func(error)) (io.Closer, error) {
			return k.Watch(changed, failed)
		}
	}
	return e
}

// Wall is the state of the daemon. Its methods are safe for concurrent use.
type Wall struct {
	edges       Edges
	trail       *audit.Summer
	metrics     *metrics
	replayGuard replayGuard
	commands    *commands
	wake        chan struct{} // wakes housekeeping
	life        lifecycle
	windows     *windows
	doors       doorIDs
	hostChecked time.Time  // when the host was last examined; only housekeeping uses it
	listRetried time.Time  // when reading an unreadable list was last retried; likewise
	progresses  progresses // only Alive uses it
	health      health     // findings about the host

	// change is held while the table, or a window in it, changes. It guards the fields
	// below it.
	change       sync.Mutex
	table        *nft.Table         // the table that is installed
	watch        io.Closer          // reports changes by other processes
	tornDown     bool               // the daemon is stopping: nothing is installed any more
	lowEmitted   map[string]int     // by door: one-time sequences left at the last warning
	unresolved   error              // the last reported error of doors without a usable sequence
	retirement   chan struct{}      // closed when no sockets are being retired
	endedSources map[windowKey]bool // sources with sessions that were ended

	mu               sync.Mutex
	policy           *policy  // nil before the first Apply; writers hold change, too
	sockets          *sockets // those that the table names; likewise
	tallies          []tally  // by the id of a door
	trial            *trial
	since            time.Time
	lastHousekeeping time.Time    // when housekeeping last completed a round
	reconciling      time.Time    // when the reconciliation under way began; zero: none
	lost             uint64       // logged or queued packets that never arrived
	evicted          uint64       // attempts that former policies dropped for newer ones
	counts           audit.Counts // events that belong to no door
	reports          reports
	usage            usage
}

// reports is what housekeeping has reported about losses.
type reports struct {
	lost       uint64    // losses reported
	counted    uint64    // losses known at the last check
	overloaded bool      // an event says that packets are being lost
	lately     time.Time // when losses were last found
	swept      time.Time // when summed events were last written
}

// New returns a wall that is not installed. [Wall.Apply] or [Wall.Try] installs it.
func New(edges Edges, sink audit.Sink) *Wall {
	retirement := make(chan struct{})
	close(retirement)
	trail := audit.NewSummer(sink)
	w := &Wall{
		replayGuard:  replayGuard{store: edges.Used},
		doors:        doorIDs{ids: map[string]int{}},
		lowEmitted:   map[string]int{},
		endedSources: map[windowKey]bool{},
		retirement:   retirement,
		edges:        edges,
		trail:        trail,
		metrics:      newMetrics(),
		wake:         make(chan struct{}, 1),
		life:         newLifecycle(),
	}
	w.windows = newWindows(w)
	w.commands = newCommands(edges.Due, w.doorNamed, trail.Record)
	w.windows.observers = []observer{w.countEvent, w.metrics.observeOpening, w.commands.prepare, w.recordEvent, w.commands.run}
	return w
}

// doorNamed returns a door of the rules in force, nil if there is none of that name.
func (w *Wall) doorNamed(name string) *effective.Door {
	f := w.current()
	if i := f.doorNamed(name); i >= 0 {
		return &f.config.Doors[i]
	}
	return nil
}

// countEvent is an observer: it counts the event at its door.
func (w *Wall) countEvent(e windowEvent) {
	if e.Failed || e.wasSpent {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tallies[w.doors.id(e.Door)].Add(e.Kind)
}

// recordEvent is an observer: it records the event in the audit trail.
func (w *Wall) recordEvent(e windowEvent) {
	if !e.wasSpent {
		w.trail.Record(e.Event)
	}
}

// ErrStopping is returned for changes to a wall while the daemon stops.
var ErrStopping = errors.New("the daemon is stopping: try again when it has ended")

// InUseError says that another process has bound a group or queue of the wall.
type InUseError struct {
	What string // "NFLOG group 7100", "queue 7100"
	Key  string // the attribute in the rule files that sets the number
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is in use by another process. `knockwall status` shows whether another knockwall runs. "+
		"If another program uses it, set %s in the rule files to another number", e.What, e.Key)
}

// Run maintains the wall that [Wall.Apply] has installed until ctx ends, [Wall.Down] is
// called, or the kernel's packets cannot be read any more. Then the table stays or is
// removed, as the rule files say.
func (w *Wall) Run(ctx context.Context) error {
	housekeeping, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.housekeep(housekeeping)
	}()
	var err error
	asked := false
	select {
	case <-ctx.Done():
	case err = <-w.life.failed:
	case <-w.life.down:
		asked = true
	}
	close(w.life.ending)
	stop()
	<-done
	w.teardown(asked, err)
	close(w.life.ended)
	return w.life.err
}

func (w *Wall) current() *policy {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.policy
}

// wakeHousekeeping makes housekeeping run its tasks now.
func (w *Wall) wakeHousekeeping() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
