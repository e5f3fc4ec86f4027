//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Install the wall and run the daemon",
		Long: `run is the daemon. It installs the wall that the rule files describe, and
opens and closes its doors until SIGTERM or SIGINT (Ctrl-C) stops it; a second
signal ends it at once. It needs root, or the capability CAP_NET_ADMIN.
Established connections go on, whatever happens to the wall. Each event at the
doors is a line on stderr.

When run ends, the wall stays: open windows admit until they expire, and all
other sources are refused. With on_stop = "remove" in the rule files, run
removes the wall when it ends. To remove the wall yourself: knockwall down.

With --confirm the wall is on trial: run removes it again unless you type
knockwall confirm within the time, from a connection that you made through the
wall. Always install the first wall on a remote machine this way. If a wall is
already installed, start without --confirm, and try new rules with reload
--confirm.`,
		Example: `  sudo knockwall run --config ssh.hcl --confirm 2m
  sudo knockwall run    # every *.hcl in /etc/knockwall.d`,
		Args: noArguments,
	}
	config := configFlag(c)
	path := controlFlag(c)
	confirm := confirmFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().Changed("confirm") {
			if err := control.CheckTrial(*confirm); err != nil {
				return usage("--confirm: %w", err)
			}
		}
		said := newAsyncWriter(c.ErrOrStderr())
		defer said.Close()
		err := runDaemon(c, said, *config, *path, *confirm)
		if err != nil && !errors.Is(err, errSaid) {
			fmt.Fprintf(systemd.At(said, systemd.Error), "knockwall: %v\n", err)
			err = errors.Join(err, errSaid)
		}
		return err
	}
	return c
}

func runDaemon(c *cobra.Command, said *asyncWriter, configPath, controlPath string, confirm time.Duration) error {
	r := newRules(configPath, controlPath)
	config, err := r.start(said, confirm != 0)
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	kernel, err := nft.OpenKernel()
	if err != nil {
		return err
	}
	defer kernel.Close()
	listener, unit, err := controlListener(controlPath)
	if err != nil {
		return err
	}
	defer listener.Close()
	r.memory = newMemory(controlPath, func(text string) {
		fmt.Fprintf(systemd.At(said, systemd.Error), "knockwall: %s.\n", text)
	})
	defer r.memory.close()
	if err := r.memory.open(config); err != nil {
		// The wall matters more than the files.
		fmt.Fprintf(systemd.At(said, systemd.Error), "knockwall: %v: until this is repaired, no one-time password opens a door\n", err)
	}

	if _, terminal := terminalWidth(said); terminal {
		if s, ok := host.Session(); ok {
			warnOfLockout(said, config, s, confirm != 0)
		}
	}
	history := audit.NewHistory()
	guarded := make(chan struct{})
	written := audit.NewBuffer(afterwards{guarded, trail(said.Unwrap())})
	defer written.Close()
	isGuarded := sync.OnceFunc(func() { close(guarded) })
	defer isGuarded() // after an error events are written, too, and say why
	r.service = systemd.NewService(func() string { return brief(r.wall.Brief()) })
	edges := wall.KernelEdges(kernel)
	edges.Used, edges.Due = r.memory.used, r.memory.due
	edges.Examine = func(c *effective.Config) doctor.Report {
		return doctor.Examine(&doctor.Host{Config: c.Written, InForce: c}, doctor.Standing)
	}
	edges.Rules = r.examine
	edges.Found = func(c *effective.Config, before, now []doctor.Finding) {
		r.service.Changed()
		tellChanged(said, c.Written, before, now)
	}
	r.wall = wall.New(edges, audit.Sinks{history, written, r.service})
	ctx, hangups, stop := untilSignal(c.Context())
	defer stop()
	if confirm != 0 {
		err = r.wall.Try(config, confirm)
	} else {
		err = r.wall.Apply(config)
	}
	if err != nil {
		return err
	}
	report, here := onReading(config)
	_ = writeDiagnostics(systemd.At(said, systemd.Warning), here)
	tellGuarded(said, config, report.Findings)
	if !kernel.Features().UDPTimeout && config.HasUDP() {
		fmt.Fprintf(systemd.At(said, systemd.Warning), "knockwall: this kernel cannot set how long it remembers a UDP flow (CONFIG_NF_CONNTRACK_TIMEOUT):\n"+
			"after 30 s of silence the client has to knock again, whatever udp_timeout says\n")
	}
	if confirm != 0 {
		fmt.Fprintf(said, "on trial until %s: type `knockwall confirm` before then, from a new connection\n", time.Now().Add(confirm).Format(time.TimeOnly))
	}
	said.then(isGuarded)
	if confirm == 0 {
		r.keepFirst(said)
	}
	r.service.Ready()
	go r.service.TellStatus(ctx)
	go r.service.Watch(ctx, r.wall.Alive, func(err error) {
		fmt.Fprintf(systemd.At(said, systemd.Error), "knockwall: the daemon hangs: %v\n", err)
	})
	go r.reloadAt(ctx, hangups, said)
	go r.mind(ctx, said)

	complain := func(text string) {
		fmt.Fprintf(systemd.At(said, systemd.Warning), "knockwall: the control socket: %q\n", text)
	}
	// The wall matters more than the control socket. The daemon goes on without it.
	asked := make(chan struct{})
	serving, stopServing := context.WithCancel(context.Background()) // ends after the wall, so that clients hear of all events
	defer stopServing()
	go func() {
		defer close(asked)
		err := control.Serve(serving, listener, control.Daemon{
			Wall: r.wall, History: history, Reload: r.reload, Confirm: r.confirm, SocketUnit: unit, Complain: complain})
		if err != nil {
			fmt.Fprintf(systemd.At(said, systemd.Error),
				"knockwall: %v: `knockwall status` gets no answer until run is started again\n", err)
		}
	}()
	err = r.wall.Run(ctx)
	r.service.Stopping()
	stopServing()
	<-asked
	return err
}

// gcPercent is by how much the heap may grow, in percent, before garbage is collected.
// Most of the heap is tables without pointers, which cost the collector nothing. So it
// may run often, and the daemon stays small.
const gcPercent = 25

// afterwards writes events only after said is closed, so that the lines about what the
// wall guards come first.
type afterwards struct {
	said <-chan struct{}
	audit.Sink
}

func (a afterwards) Record(e audit.Event) {
	<-a.said
	a.Sink.Record(e)
}

// trail returns the sink of the audit trail: the journal if stderr goes there, or else
// stderr.
func trail(said io.Writer) audit.Sink {
	text := audit.Text(said)
	if said == os.Stderr && systemd.InJournal() {
		return systemd.Journal(text)
	}
	return text
}

// brief describes the state of the daemon in one line.
func brief(guarded, bare, windows int) string {
	s := count(guarded, "door") + " guarded, " + count(windows, "window") + " open"
	if bare > 0 {
		s = "degraded: " + count(bare, "door") + " NOT guarded, " + s
	}
	return s
}

// controlListener returns systemd's socket and its unit, or else listens at path.
func controlListener(path string) (l net.Listener, unit string, err error) {
	l, unit, err = systemd.Listener()
	if l == nil && err == nil {
		l, err = control.Listen(path)
	}
	return l, unit, err
}

// tellGuarded writes what the wall guards, and what it does not guard.
func tellGuarded(w io.Writer, config *ruleset.Config, findings []doctor.Finding) {
	guarded := tellBare(systemd.At(w, systemd.Error), config.Doors, findings)
	for i := range guarded {
		d := &guarded[i]
		fmt.Fprintf(w, "%s, open for %s after %s\n", mindedBy(d), d.Window, opener(d))
	}
	if len(config.Doors) == 0 {
		fmt.Fprintln(w, "guarding nothing: the rule files have no door")
	}
}

// opener describes what opens a door, without the secrets.
func opener(d *ruleset.Door) string {
	var ways []string
	for _, m := range d.Methods {
		ways = append(ways, m.Describe(d.SequenceTimeout))
	}
	return strings.Join(ways, ", or ")
}
