// Command bench compares knockwall with other programs that hide a port: knockd, fwknopd and
// nftables alone. It also compares it with bare NFQUEUE loops, which have the least
// possible cost of knockwall's method. All systems do the same work in the same run, in
// turns. So other load on the machine affects all of them, and the ratios hold on other
// machines where the figures do not.
//
//	go run ./integration/bench [--quick] [--only ROW,...] [--json FILE] [--svg FILE] [--knockwall BINARY]
//
// It runs itself again in its own namespaces. There it needs no root, and all processes
// that it started end with the namespaces. It skips programs that are not installed;
// integration/bench/install.sh installs them on Debian.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/bench/report"
	"github.com/knockwall/knockwall/internal/netlab"
)

func main() {
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// folderVariable is the environment variable that names the folder for the benchmark's
// files to the process in the namespaces.
const folderVariable = "KNOCKWALL_BENCH_FOLDER"

// loopArgument is the argument with which this program runs one of the queue loops.
const loopArgument = "queue-loop"

func start() error {
	if len(os.Args) == 3 && os.Args[1] == loopArgument {
		return runLoop(os.Args[2])
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if !netlab.Inside() {
		return inNamespaces()
	}
	return measure(o)
}

type options struct {
	quick     bool
	only      []string
	json, svg string
	knockwall string
}

func parse(arguments []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "a few rows with few samples, in less than a minute")
	only := flags.String("only", "", "measure only these `ROWS`, separated by commas: "+strings.Join(allRows, ", "))
	flags.StringVar(&o.json, "json", "", "also write the report to `FILE` as JSON")
	flags.StringVar(&o.svg, "svg", "", "also write a plot to `FILE`")
	flags.StringVar(&o.knockwall, "knockwall", "", "measure this `BINARY` instead of building ./cmd/knockwall")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	o.only = allRows
	if o.quick {
		o.only = quickRows
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, row := range o.only {
		if !slices.Contains(allRows, row) {
			return o, fmt.Errorf("there is no row %q; there are %s", row, strings.Join(allRows, ", "))
		}
	}
	return o, nil
}

// inNamespaces runs this program again in namespaces. All files that it writes meanwhile are
// in a folder in memory that only its namespaces have, so that the disk does not affect the
// measurements.
func inNamespaces() error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	folder, err := os.MkdirTemp("", "kwbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	runtime.LockOSThread() // the child dies with the thread that started it
	child, err := netlab.Command(os.Args[1:]...)
	if err != nil {
		return err
	}
	child.Env = append(child.Env, folderVariable+"="+folder)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { child.Process.Kill() })
	defer stop()
	err = child.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.As(err, &exit):
		return errors.New("the benchmark failed; see above")
	}
	return err
}

// All rows in their order, and the rows of a quick run.
var (
	allRows = []string{"last-knock", "back-to-back", "keys", "keys-at-once", "fwknop-at-once", "connect", "doors", "doors-connect", "shared", "shared-ipv6",
		"flood-20k", "flood-full", "flood-million", "flood-knocks", "flood-door",
		"flood-keys", "flood-unknown", "flood-replay", "flood-fwknop", "cpu", "memory"}
	quickRows = []string{"last-knock", "back-to-back", "keys", "keys-at-once", "connect", "flood-full"}
)

// defaultWindow is how long the door is open, as by default in knockwall.
const defaultWindow = 30 * time.Second

// bench is one run.
type bench struct {
	options
	folder   string
	programs programs
	progress *progress
	report   *report.Report
	tolls    map[string][]toll // costs of floods, by row
}

func measure(o options) error {
	folder := os.Getenv(folderVariable)
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting a folder in memory: %w", err)
	}
	b := &bench{options: o, folder: folder, progress: newProgress(os.Stderr), tolls: map[string][]toll{}}
	defer b.progress.end()
	var err error
	if b.programs, err = gather(o.knockwall, folder, os.Stderr); err != nil {
		return err
	}
	b.report = &report.Report{Commit: commit(), Began: time.Now(), Quick: o.quick, Machine: describe(b.programs, folder)}
	if err := b.run(); err != nil {
		return err
	}
	b.report.Took = report.Seconds(time.Since(b.report.Began).Seconds())
	b.progress.end()
	if err := b.report.WriteText(os.Stdout); err != nil {
		return err
	}
	return errors.Join(write(o.json, b.report.WriteJSON), write(o.svg, b.report.WriteSVG))
}

// run measures the wanted rows. Two of them come from the floods of other rows.
func (b *bench) run() error {
	wanted := func(row string) bool { return slices.Contains(b.only, row) }
	for _, r := range timed {
		if wanted(r.ID) {
			b.progress.begin(r.ID)
			if err := r.measure(b, r.Row, r.systems(b)); err != nil {
				return fmt.Errorf("%s: %w", r.ID, err)
			}
		}
	}
	for _, d := range deluges {
		if wanted(d.row) || d.row == "flood-20k" && wanted("cpu") || d.row == "flood-million" && wanted("memory") {
			b.progress.begin(d.row)
			if err := b.floods(d); err != nil {
				return fmt.Errorf("%s: %w", d.row, err)
			}
		}
	}
	if wanted("cpu") {
		b.cpuRow()
	}
	if wanted("memory") {
		b.memoryRow()
	}
	return nil
}

// timed are the rows in which all systems do the same work in turns.
var timed = []struct {
	report.Row
	measure func(*bench, report.Row, []system) error
	systems func(*bench) []system
}{
	{report.Row{
		ID: "last-knock", Title: "last knock to first SYN let in",
		Goals: []report.Goal{
			{Text: "at most 1/60 of knockd's", Against: "knockd", AtMost: 1.0 / 60},
			{Text: "at most 1/20 of fwknopd's", Against: "fwknopd", AtMost: 1.0 / 20},
		},
	}, (*bench).lastKnock, (*bench).knockers},
	{report.Row{ID: "back-to-back", Title: "knocks and one SYN without a pause: let in"}, (*bench).backToBack, (*bench).knockers},
	{report.Row{
		ID: "keys", Title: "knock signed with an ssh key to first SYN let in",
		Goals: []report.Goal{
			{Text: "at most 1.5 times a sequence's", Against: otherWay, AtMost: 1.5},
			{Text: "at most 1/20 of fwknopd's", Against: "fwknopd", AtMost: 1.0 / 20},
		},
	}, (*bench).lastKnock, (*bench).keyed},
	{report.Row{ID: "keys-at-once", Title: "signed knock and one SYN without a pause: let in"}, (*bench).backToBack, (*bench).keyed},
	{report.Row{ID: "fwknop-at-once", Title: "fwknop's packet and one SYN without a pause: let in"}, (*bench).backToBack, (*bench).forFwknop},
	{report.Row{
		ID: "connect", Title: "connect() to an open door", Unit: "µs",
		Goals: []report.Goal{
			{Text: "at most 1.15 times a bare go-nfqueue's", Against: "queue go-nfqueue", AtMost: 1.15},
			{Text: "aim: no more than a bare C loop's", Against: "queue C", AtMost: 1},
		},
	}, (*bench).connect, (*bench).open},
	{report.Row{
		ID: "doors", Title: "last knock to first SYN let in, at the last of many doors",
		Goals: []report.Goal{{Text: "aim: at most 1.1 times an only door's", Against: onlyDoor, AtMost: 1.1}},
	}, (*bench).lastKnock, (*bench).crowded},
	{report.Row{
		ID: "doors-connect", Title: "connect() to the last of many doors", Unit: "µs",
		Goals: []report.Goal{{Text: "at most 1.1 times an only door's", Against: onlyDoor, AtMost: 1.1}},
	}, (*bench).connect, (*bench).crowded},
	{report.Row{
		ID: "shared", Title: "last knock at a host to first SYN let in at another host",
		Goals: []report.Goal{{Text: "all"}},
	}, (*bench).shared, (*bench).members},
	{report.Row{
		ID: "shared-ipv6", Title: "last knock at a host to first SYN let in at another host, IPv6",
		Goals: []report.Goal{{Text: "all"}},
	}, (*bench).shared6, (*bench).members},
}

func (b *bench) add(row report.Row) { b.report.Rows = append(b.report.Rows, row) }

// pick returns the first number in a full run and the second in a quick run.
func (b *bench) pick(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

// stand starts each system in its own lab.
func (b *bench) stand(systems []system, window time.Duration) (stands []*guarded, err error) {
	for _, s := range systems {
		b.progress.say("starting %s", s.name())
		g, err := b.put(s, window, true)
		if err != nil {
			return stands, err
		}
		stands = append(stands, g)
	}
	return stands, nil
}

func closeAll(stands []*guarded) {
	for _, g := range stands {
		g.close()
	}
}

// write writes a file, unless the path is empty.
func write(path string, content func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(content(f), f.Close())
}
