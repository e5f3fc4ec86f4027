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
	"github.com/knockwall/knockwall/sequence"
)

// Kernel is what the wall needs of nftables; [nft.Kernel] has it.
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

// Log is an NFLOG group that is listened to; [nflog.Log] is one.
type Log interface {
	Drained() bool
	Progress() progress.Progress
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
	Progress() progress.Progress
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
	Watch func(changed func(nft.Change), failed func(error)) (io.Closer, error)
	// Adopt makes connections known to the kernel that were there before the wall,
	// and with renew those, too, that it knows otherwise than they are.
	Adopt func(wanted func(sessions.Session) bool, renew bool) (int, error)
	// Look looks at the host. What it could not find out is missing.
	Look func() (effective.Host, error)
	// Used remembers what opens a door once, and Due which commands are to be run.
	// They last longer than the daemon.
	Used, Due Store
	// Tracked reports whether the connection of a packet that was let in is known to
	// the kernel, as the packet was delivered.
	Tracked func(p packet.Packet) (bool, error)
	// Usage returns how many connections conntrack knows, and for how many it has room,
	// 0 if that is unknown. It is nil where nobody wants to know.
	Usage func() (known, room int, err error)
	// Directions calls each with the TCP connections that pass this host, and of which
	// directions it has seen packets. It is nil where nobody wants to know.
	Directions func(each func(sessions.Session, sessions.Seen)) error
	// EndSessions ends connections that are established. EndedSessions returns those
	// that were ended and are not gone, as either end would have made them, and
	// PardonSessions lets some of them go on.
	EndSessions    func(wanted func(sessions.Session) bool) (int, error)
	EndedSessions  func() ([]sessions.Session, error)
	PardonSessions func(wanted func(sessions.Session) bool) error
	// Examine examines the host for what makes doors something else than they seem. It
	// is nil where nobody wants to know.
	Examine func(c *effective.Config) doctor.Report
	// Found is told when that finds something else than it did before, if it is not nil.
	Found func(c *effective.Config, before, now []doctor.Finding)
	// Rules reports whether the rule files are others than those in force, and what of
	// them degrades the wall. It is nil where there are no files.
	Rules func() (differ bool, findings []doctor.Finding)
}

// KernelEdges are the true ones, but for the ledgers, which last as long as the
// process: a daemon that is to be outlasted has others.
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

// Wall is a daemon's wall. Its methods may be called from any goroutine.
type Wall struct {
	edges        Edges
	trail        *audit.Summer
	metrics      *metrics
	replayGuard  replayGuard
	commands     *commands
	wake         chan struct{} // the keeper is to look what is due
	failed       chan error    // why Run ends by itself
	down         chan struct{} // somebody asks for the wall to come down
	ending       chan struct{} // closed when Run begins to end
	teardownDone chan struct{} // closed when it is known what has become of the table
	removed      bool          // that it is gone
	endErr       error         // and what Run ends with
	ended        chan struct{} // closed when Run has ended
	hostChecked  time.Time     // when the host was looked at; the keeper's own
	listRetried  time.Time     // when a list was that could not be read; likewise
	progresses   progresses    // Alive's own
	health       health        // of the host

	// change is held while the table or a window in it is changed, and guards
	// what was done last.
	change       sync.Mutex
	table        *nft.Table            // that stands
	watch        io.Closer             // tells of others' changes
	tornDown     bool                  // and nothing is to be put up again
	lowEmitted   map[string]int        // by door: one-time sequences left when that was told last
	unresolved   error                 // why nobody can open some doors, as was told last
	retirement   chan struct{}         // closed when no sockets are being retired
	full         map[doorSet]time.Time // of windows, until when that is taken for true
	endedSources map[windowKey]bool    // who has sessions that were ended

	mu               sync.Mutex
	policy           *policy  // what stands, nil before; changed only with change held, too
	sockets          *sockets // that the table names; likewise
	windows          *sequence.Windows
	opening          int           // how many have knocked in full and are not among those yet:
	openings         []*opening    // that are to be opened, in the order of the knocks
	opened           uint64        // how many were taken off these so far
	uncertainUntil   time.Time     // when the kernel may last have had a window that is not noted
	announcing       bool          // that a window opens is about to be told
	pending          []audit.Event // who was let in meanwhile
	doors            []string      // names by id, which a door keeps whatever is reloaded
	doorIDs          map[string]int
	trial            *trial
	since            time.Time
	lastHousekeeping time.Time    // when the keeper has last done what was due
	reconciling      time.Time    // since when the wall is being put back, if it is
	lost             uint64       // packets that were logged or queued and never arrived
	evicted          uint64       // attempts that gave way to newer ones, of former fronts
	counts           audit.Counts // of what belongs to no door
	reports          reports
	usage            usage
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
	retirement := make(chan struct{})
	close(retirement)
	trail := audit.NewSummer(sink)
	return &Wall{
		replayGuard:  replayGuard{store: edges.Used},
		commands:     newCommands(edges.Due, trail.Record),
		doorIDs:      map[string]int{},
		lowEmitted:   map[string]int{},
		full:         map[doorSet]time.Time{},
		endedSources: map[windowKey]bool{},
		retirement:   retirement,
		edges:        edges,
		trail:        trail,
		metrics:      newMetrics(),
		wake:         make(chan struct{}, 1),
		failed:       make(chan error, 1),
		down:         make(chan struct{}, 1),
		ending:       make(chan struct{}),
		teardownDone: make(chan struct{}),
		ended:        make(chan struct{}),
		windows:      sequence.NewWindows(),
	}
}

// ErrStopping is why a wall is not changed that is being taken down, or was.
var ErrStopping = errors.New("the daemon is on its way out: ask again when it has ended")

// InUseError says that somebody listens where the wall wants to.
type InUseError struct {
	What string // "NFLOG group 7100", "queue 7100"
	Key  string // of the rule files, which says where else to listen
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is in use: another knockwall runs here, which `knockwall status` shows, "+
		"or another program has it, and then %s in the rule files can name another", e.What, e.Key)
}

// Run keeps the wall that Raise has put up until ctx ends, [Wall.Down] is called,
// or the kernel can no longer be heard. It ends as the rule files say: the wall
// stays, or goes.
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
	case err = <-w.failed:
	case <-w.down:
		asked = true
	}
	close(w.ending)
	stop()
	<-done
	w.teardown(asked, err)
	close(w.ended)
	return w.endErr
}

func (w *Wall) current() *policy {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.policy
}

// fail ends Run, because packets can no longer be read.
func (w *Wall) fail(err error) {
	select {
	case w.failed <- err:
	default: // it has failed already
	}
}

// wakeHousekeeping makes the keeper look what is due.
func (w *Wall) wakeHousekeeping() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
