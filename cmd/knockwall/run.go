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
		Short: "Put up the wall and mind the doors: the daemon",
		Long: `run puts up the wall that the rule files describe, and minds its doors until it
is told to stop by SIGTERM or SIGINT (Ctrl-C); a second signal ends it at once.
It needs root, or the capability CAP_NET_ADMIN. Connections that are established
go on, whatever becomes of the wall. What happens at the doors is written to
stderr, a line for each event.

When run ends, the wall stays: open windows admit until their time is up, and
strangers are refused. With on_stop = "remove" in the rule files it goes, too.
To take it down: knockwall down.

With --confirm the wall is on trial: unless you type knockwall confirm within
the time, from a connection that you made through it, it goes again. Put up the
first wall on a distant machine in no other way. Where one stands already, start
without, and try new rules with reload --confirm.`,
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
		// The wall is what matters.
		fmt.Fprintf(systemd.At(said, systemd.Error), "knockwall: %v: until that is mended, no one-time password opens a door\n", err)
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
	defer isGuarded() // or it is not, and the trail says why
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
		fmt.Fprintf(systemd.At(said, systemd.Warning), "knockwall: this kernel cannot be told how long to remember a UDP flow (CONFIG_NF_CONNTRACK_TIMEOUT):\n"+
			"one that is silent for 30 s has to be knocked for again, whatever udp_timeout says\n")
	}
	if confirm != 0 {
		fmt.Fprintf(said, "on trial until %s: type `knockwall confirm` before, from a new connection\n", time.Now().Add(confirm).Format(time.TimeOnly))
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
	// The wall is what the daemon is for. It goes on if nobody can ask about it.
	asked := make(chan struct{})
	serving, stopServing := context.WithCancel(context.Background()) // until all that happens can be heard of
	defer stopServing()
	go func() {
		defer close(asked)
		err := control.Serve(serving, listener, control.Daemon{
			Wall: r.wall, History: history, Reload: r.reload, Confirm: r.confirm, SocketUnit: unit, Complain: complain})
		if err != nil {
			fmt.Fprintf(systemd.At(said, systemd.Error),
				"knockwall: %v: `knockwall status` has no answer until run is started again\n", err)
		}
	}()
	err = r.wall.Run(ctx)
	r.service.Stopping()
	stopServing()
	<-asked
	return err
}

// gcPercent is by how much the heap may grow before garbage is collected. Most of it
// are tables without a pointer in them, which cost the collector nothing: it may
// collect often, so that the daemon stays small.
const gcPercent = 25

// afterwards writes events once it is said what the wall guards, so that this comes
// first.
type afterwards struct {
	said <-chan struct{}
	audit.Sink
}

func (a afterwards) Record(e audit.Event) {
	<-a.said
	a.Sink.Record(e)
}

// trail returns where the audit trail is written to: the journal, where stderr
// goes there, too, or else stderr.
func trail(said io.Writer) audit.Sink {
	text := audit.Text(said)
	if said == os.Stderr && systemd.InJournal() {
		return systemd.Journal(text)
	}
	return text
}

// brief says in a line what the daemon does.
func brief(guarded, bare, windows int) string {
	s := count(guarded, "door") + " guarded, " + count(windows, "window") + " open"
	if bare > 0 {
		s = "degraded: " + count(bare, "door") + " NOT guarded, " + s
	}
	return s
}

// controlListener returns systemd's socket, and its unit, or else makes one at path.
func controlListener(path string) (l net.Listener, unit string, err error) {
	l, unit, err = systemd.Listener()
	if l == nil && err == nil {
		l, err = control.Listen(path)
	}
	return l, unit, err
}

// tellGuarded says what the wall guards, and what it does not.
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

// opener says what opens a door, and not how.
func opener(d *ruleset.Door) string {
	var ways []string
	for _, m := range d.Methods {
		ways = append(ways, m.Describe(d.SequenceTimeout))
	}
	return strings.Join(ways, ", or ")
}
