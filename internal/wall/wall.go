package wall

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// Wall is the daemon. Its parts do the work, each with its own lock; ARCHITECTURE.md shows
// them and the order of the locks. The methods of Wall are safe for concurrent use.
type Wall struct {
	edges        Edges
	trail        *audit.Summer
	life         lifecycle
	packets      packets       // decides about packets
	windows      windows       // opens and closes windows
	sessions     endedSessions // ends sessions
	table        *installation // the table in the kernel
	rules        rules         // puts rules in force
	trials       trials        // takes rules back that are not confirmed
	commands     *commands     // on_open and on_close
	housekeeping *housekeeping
	health       health  // findings about the host
	usage        usage   // conntrack's table
	losses       losses  // lost packets
	sharing      sharing // other hosts, as a companion tells
	metrics      *metrics
	watchdog     watchdog
}

// New returns a wall that is not installed. [Wall.Apply] or [Wall.Try] installs it.
func New(edges Edges, sink audit.Sink) *Wall {
	trail := audit.NewSummer(sink)
	w := &Wall{edges: edges, trail: trail, life: newLifecycle(), housekeeping: newHousekeeping(), metrics: newMetrics()}
	wake := w.housekeeping.wake
	doors := &doorIDs{ids: map[string]int{}}
	changes := newChangeLog()
	w.table = newInstallation(&w.edges, trail, &w.life, &w.windows)
	w.losses = losses{trail: trail}
	w.usage = usage{trail: trail, read: edges.Usage}
	w.sessions = endedSessions{edges: &w.edges, trail: trail, sources: map[windowKey]bool{}}
	w.commands = newCommands(edges.Due, w.packets.door, trail.Record)
	w.health = health{examine: edges.Examine, found: edges.Found, config: w.packets.config}
	w.windows = windows{
		edges: &w.edges, trail: trail, doors: doors, table: w.table, packets: &w.packets, sessions: &w.sessions, wake: wake,
		record: sequence.NewWindows(), changes: changes, crowded: map[doorSet]time.Time{},
		observers: []observer{w.packets.countWindow, w.metrics.observeOpening, w.commands.prepare, w.recordWindow, changes.observe, w.commands.run},
	}
	w.packets = packets{
		edges: &w.edges, trail: trail, metrics: w.metrics, windows: &w.windows, losses: &w.losses, doors: doors,
		replays: &replayGuard{store: edges.Used}, wake: wake, fail: w.life.fail, consumed: w.rules.consumed,
	}
	w.packets.verifications = newVerifications(&w.packets)
	w.rules = rules{
		edges: &w.edges, trail: trail, table: w.table, packets: &w.packets, windows: &w.windows, sessions: &w.sessions,
		commands: w.commands, stocks: stocks{trail: trail, low: map[string]int{}}, wake: wake,
	}
	w.trials = trials{rules: &w.rules, table: w.table, trail: trail, fail: w.life.fail, wake: wake}

	w.housekeeping.add(w.windows.expire)
	w.housekeeping.add(w.packets.refuseDue)
	w.housekeeping.add(w.packets.expireAttempts)
	w.housekeeping.every(audit.SumInterval, w.report)
	w.housekeeping.every(audit.SumInterval, w.windows.closeUnadmitted)
	w.housekeeping.add(w.trials.end)
	w.housekeeping.add(w.rules.reresolve)
	w.housekeeping.every(hostInterval, w.rules.checkHost)
	w.housekeeping.add(w.health.check)
	if edges.Usage != nil {
		w.housekeeping.every(usageInterval, w.usage.watch)
	}
	return w
}

// recordWindow is an observer: it records the event of a window in the audit trail.
func (w *Wall) recordWindow(e windowEvent) {
	if !e.wasSpent {
		w.trail.Record(e.Event)
	}
}

// report writes summed events, and reports lost packets.
func (w *Wall) report(now time.Time) {
	w.packets.countLosses()
	w.trail.Flush()
	w.losses.report(now)
}

// ErrStopping is returned for changes to a wall while the daemon stops.
var ErrStopping = errors.New("the daemon is stopping: try again when it has ended")

// Run maintains the wall that [Wall.Apply] has installed until ctx ends, [Wall.Down] is
// called, or the kernel's packets cannot be read any more. Then the table stays or is
// removed, as the rule files say.
func (w *Wall) Run(ctx context.Context) error {
	housekeeping, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.housekeeping.run(housekeeping)
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

// Apply installs the wall that a configuration describes. If one is installed already,
// Apply replaces it and takes over its open windows, attempts and held packets. After an
// error, everything is as before.
func (w *Wall) Apply(c *ruleset.Config) error {
	return w.replaceRules(func() error { return w.rules.apply(c, false, requested) })
}

// Try installs a wall as [Wall.Apply] does. Unless [Wall.Confirm] is called within the
// given time, the former wall returns. If there was none, Run ends with
// [ErrNotConfirmed]. If Run ends earlier, the former state returns, too. If the daemon is
// killed and there was no wall before, the kernel removes the wall where it can (Linux
// 6.9).
func (w *Wall) Try(c *ruleset.Config, within time.Duration) error {
	return w.replaceRules(func() error { return w.trials.try(c, w.packets.current(), within) })
}

// replaceRules puts other rules in force, unless some are on trial.
func (w *Wall) replaceRules(do func() error) error {
	err := func() error {
		w.table.begin()
		defer w.table.end()
		if w.OnTrial() {
			return ErrOnTrial
		}
		return do()
	}()
	if err == nil {
		w.windows.closeUnadmitted(time.Now())
	}
	return err
}

// Confirm ends a trial: its rules stay.
func (w *Wall) Confirm() error { return w.trials.confirm() }

// Revert ends a trial: the former rules return. If there was no wall before, Revert does what
// [Wall.Down] does, and reports it.
func (w *Wall) Revert(ctx context.Context) (down bool, err error) {
	w.table.begin()
	down, err = w.trials.revert()
	w.table.end()
	if down {
		_, err = w.Down(ctx)
	}
	return down, err
}

// OnTrial reports whether rules are on trial.
func (w *Wall) OnTrial() bool { return w.trials.current() != nil }

// ShutTo returns the doors that hide the port of an ssh connection from its client.
func (w *Wall) ShutTo(s host.SSH) []string {
	f := w.packets.current()
	if f == nil {
		return nil
	}
	return doctor.ShutTo(f.config.Written, s)
}

// Windows returns the open windows that are wanted, sorted by door and source.
func (w *Wall) Windows(wanted WindowQuery) []WindowStatus {
	all, _ := w.windows.status(wanted)
	return all
}

// Findings returns the findings about the host and about full doors. Those about the host
// are current, or, if an examination takes too long, those of the last one. The wall must
// be installed.
func (w *Wall) Findings() []doctor.Finding {
	found, _ := w.health.findings()
	return slices.Concat(found, w.windows.findings(w.packets.current()))
}
