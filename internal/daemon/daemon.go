//go:build linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// Options say how to run a daemon.
type Options struct {
	Config  string        // path of a rule file, or of a folder of them
	Control string        // path of the control socket, if systemd does not hand one over
	Confirm time.Duration // how long the wall is on trial; 0: it is not on trial
	Stderr  io.Writer     // gets all messages, and the events if it is not the journal
}

// Run runs a daemon until ctx ends, a signal stops it, the wall is taken down, or the
// daemon fails. It writes its error to Stderr itself. If there are no rules to start with,
// the error is a [*RulesError].
func Run(ctx context.Context, o Options) error {
	stderr := newAsyncWriter(o.Stderr)
	defer stderr.Close()
	d := newDaemon(o, stderr)
	err := d.run(ctx)
	if wrong, ok := errors.AsType[*RulesError](err); ok && wrong.err == nil {
		return err // written already
	}
	if err != nil {
		d.logError("%v", err)
	}
	return err
}

// daemon is the parts of a daemon.
type daemon struct {
	Options
	stderr  *asyncWriter // in front of Stderr
	rules   *rules
	stores  *stores
	history *audit.History
	service *systemd.Service
	wall    *wall.Wall
}

func newDaemon(o Options, stderr *asyncWriter) *daemon {
	d := &daemon{Options: o, stderr: stderr, history: audit.NewHistory()}
	d.stores = newStores(o.Control, func(text string) { d.logError("%s.", text) })
	d.rules = newRules(o.Config, o.Control, d.stores)
	d.service = systemd.NewService(func() string { return statusLine(d.wall.Brief()) })
	d.rules.service = d.service
	return d
}

func (d *daemon) logError(format string, a ...any)   { d.log(systemd.Error, format, a...) }
func (d *daemon) logWarning(format string, a ...any) { d.log(systemd.Warning, format, a...) }

// log writes a line to stderr, with its level if stderr goes to the journal.
func (d *daemon) log(l systemd.Level, format string, a ...any) {
	fmt.Fprintf(systemd.At(d.stderr, l), "knockwall: "+format+"\n", a...)
}

// run is the life of the daemon, from top to bottom. The documentation of the package
// describes it.
func (d *daemon) run(ctx context.Context) error {
	config, err := d.rules.start(d.stderr, d.Confirm != 0)
	if err != nil {
		return err
	}
	kernel, err := nft.OpenKernel()
	if err != nil {
		return err
	}
	defer kernel.Close()
	listener, unit, err := controlListener(d.Control)
	if err != nil {
		return err
	}
	defer listener.Close()
	defer d.stores.close()
	// The wall matters more than the files.
	if err := d.stores.used.open(config.NeedsReplayMemory()); err != nil {
		d.logError("%v: until this is repaired, what is good only once (one-time passwords, signed knocks) opens no door", err)
	}
	if err := d.stores.due.open(config.HasCommands()); err != nil {
		d.logError("%v: until this is repaired, a restart forgets the on_close commands of open windows", err)
	}
	d.warnOfLockout(config)

	events := newTrail(d.stderr.Unwrap())
	defer events.Close()
	d.wall = wall.New(d.edges(kernel), audit.Sinks{d.history, events, d.service})
	d.rules.wall = d.wall
	ctx, hangups, stop := untilSignal(ctx)
	defer stop()
	if err := d.install(config); err != nil {
		return err
	}
	d.describe(config, kernel.Features().UDPTimeout)
	d.stderr.then(events.begin)
	if d.Confirm == 0 {
		d.rules.keepFirst(d.stderr)
	}
	err = d.tasks(listener, unit, hangups).run(ctx)
	if errors.Is(err, wall.ErrNotConfirmed) {
		return errors.Unwrap(err) // this is what a trial is for, and no failure of a task
	}
	return err
}

// By how much the heap may grow, in percent, before garbage is collected. Most of the heap
// is tables without pointers, which cost the collector nothing. So it may run often, and the
// daemon stays small. The transaction of a large table has many small parts with pointers.
// While it is built, the collector runs seldom.
const (
	gcPercent      = 25
	gcPercentLarge = 400
)

// startLargeWork prepares for reading rule files and installing their table. The function
// that it returns ends that, and returns to the system the memory that this has needed,
// which is several times what the daemon needs from then on.
func startLargeWork() (end func()) {
	debug.SetGCPercent(gcPercentLarge)
	return func() {
		debug.SetGCPercent(gcPercent)
		debug.FreeOSMemory()
	}
}

// controlListener returns systemd's socket and its unit, or else listens at path.
func controlListener(path string) (l net.Listener, unit string, err error) {
	l, unit, err = systemd.Listener()
	if l == nil && err == nil {
		l, err = control.Listen(path)
	}
	return l, unit, err
}

// edges returns the edges of the wall: the kernel, the stores, the rule files and this
// host.
func (d *daemon) edges(kernel *nft.Kernel) wall.Edges {
	e := wall.KernelEdges(kernel)
	e.Used, e.Due, e.Kept = d.stores.used, d.stores.due, d.stores.windows
	e.Rules = d.rules.examine
	e.Examine = func(c *effective.Config) doctor.Report {
		return doctor.Examine(&doctor.Host{Config: c.Written, InForce: c}, doctor.Standing)
	}
	e.Found = func(c *effective.Config, before, now []doctor.Finding) {
		d.service.Changed()
		writeChanges(d.stderr, c.Written, before, now)
	}
	return e
}

// install puts the rules in force, for good or on trial.
func (d *daemon) install(config *ruleset.Config) error {
	defer startLargeWork()()
	if d.Confirm != 0 {
		return d.wall.Try(config, d.Confirm)
	}
	return d.wall.Apply(config)
}
