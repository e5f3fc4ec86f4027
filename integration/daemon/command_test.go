package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/eventually"
)

// recorder writes the arguments and the environment of each run to its own file in
// FOLDER, with a NUL after each.
const recorder = `#!/bin/sh
out=$(mktemp FOLDER/running.XXXXXX)
printf '%s\0' "$#" "$@" >"$out"
cat "/proc/$$/environ" >>"$out"
mv "$out" "FOLDER/run.${out##*.}"
`

// recorded makes a recorder. It returns its path and a function that reads the records of
// all runs.
func recorded(l *lab.Lab) (program string, runs func() []record) {
	l.T.Helper()
	folder, err := os.MkdirTemp(l.Folder, "records-")
	lab.Must(l.T, err)
	program = filepath.Join(folder, "recorder")
	lab.WriteFile(l.T, program, strings.ReplaceAll(recorder, "FOLDER", folder), 0o755)
	return program, func() (all []record) {
		l.T.Helper()
		paths, err := filepath.Glob(filepath.Join(folder, "run.*"))
		lab.Must(l.T, err)
		for _, path := range paths {
			b, err := os.ReadFile(path)
			lab.Must(l.T, err)
			words := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
			n, err := strconv.Atoi(words[0])
			lab.Must(l.T, err)
			r := record{words[1 : n+1], words[n+1:]}
			slices.Sort(r.environment)
			all = append(all, r)
		}
		return all
	}
}

// record is one run of a recorder.
type record struct{ arguments, environment []string }

// said returns the events of a kind from events --json.
func said(d *lab.Daemon, kind audit.Kind) (all []audit.Event) {
	d.Lab.T.Helper()
	out, err := lab.Knockwall("events", "--json", "--control", d.Control).Output()
	lab.Must(d.Lab.T, err)
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var e audit.Event
		if err := decoder.Decode(&e); err == io.EOF {
			return all
		} else {
			lab.Must(d.Lab.T, err)
		}
		if e.Kind == kind {
			all = append(all, e)
		}
	}
}

// A command gets its arguments as written, with values in place of variables, and nothing
// of the daemon's environment. A door need not guard any port.
func TestCommandsGetWhatIsWritten(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	opens, opened := recorded(l)
	shuts, shut := recorded(l)
	path := l.WriteRules(`door "wake" {
  sequence = [4113, "27911/udp", 1840]
  window   = "500ms"
  on_open  { command = ["` + opens + `", "plain", "two words", "", "'quoted'", "\"twice\"", "$(id) ` + "`id`" + ` $HOME; *", "$${door}", "-${door}-${source}-${port}", "ü\n"] }
  on_close { command = ["` + shuts + `", "${door} for ${source}"] }
}`)
	control := filepath.Join(l.Folder, "control")
	cmd := lab.Knockwall("run", "--config", path, "--control", control)
	cmd.Env = append(os.Environ(), "AWS_SECRET=of the daemon", "KNOCKWALL_WINDOW=forged")
	l.LaunchCommand(control, cmd).WaitFor("hearing knocks for wake: commands")
	for n, server := range []netip.Addr{lab.Server4, lab.Server6} {
		source := lab.Source(1, server)
		l.Knock(source, server, lab.Knocks...)
		for _, c := range []struct {
			runs      func() []record
			arguments []string
			more      []string
		}{
			{opened, []string{"plain", "two words", "", "'quoted'", `"twice"`, "$(id) `id` $HOME; *", "${door}", "-wake-" + source.String() + "-1840/tcp", "ü\n"},
				[]string{"KNOCKWALL_EVENT=opened", "KNOCKWALL_WINDOW=0.5"}},
			{shut, []string{"wake for " + source.String()}, []string{"KNOCKWALL_EVENT=expired"}},
		} {
			eventually.True(t, "the command has run", func() bool { return len(c.runs()) > n })
			want := record{c.arguments, append(c.more, "KNOCKWALL_DOOR=wake", "KNOCKWALL_SOURCE="+source.String(), "KNOCKWALL_PORT=1840/tcp", "PATH="+command.Path)}
			slices.Sort(want.environment)
			runs := c.runs()
			if !slices.ContainsFunc(runs, func(r record) bool { return cmp.Equal(r, want, cmp.AllowUnexported(record{})) }) {
				t.Errorf("%s: no command was run with %q\nbut with %q", server, want, runs)
			}
			if len(runs) != n+1 {
				t.Errorf("%s: there were %d runs, want %d", server, len(runs), n+1)
			}
		}
	}
}

// Events report how commands ended. A command that does not end is killed, with all its
// children.
func TestCommandsThatFail(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	child := filepath.Join(l.Folder, "child")
	d := l.Launch(`
door "fails" {
  sequence = [4113, "27911/udp", 1840]
  on_open { command = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"] }
}
door "hangs" {
  sequence = [5227, 911, 30411]
  on_open {
    command = ["/bin/sh", "-c", "echo begun; sleep 1000 & echo $! >` + child + `; wait"]
    timeout = "2s" // a busy machine may need a second to start the shell
  }
}
door "missing" {
  sequence = [6011, 12007, 9341]
  on_open { command = ["` + l.Folder + `/nothing"] }
}`)
	d.WaitFor("hearing knocks for missing")
	for door, knocks := range map[string][]string{"fails": {"4113", "27911:udp", "1840"}, "hangs": {"5227", "911", "30411"}, "missing": {"6011", "12007", "9341"}} {
		l.Knock(lab.Source(1, lab.Server4), lab.Server4, lab.ParseKnocks(t, knocks)...)
		d.WaitFor("command ", "door="+door)
	}
	told := map[string]audit.Event{}
	for _, e := range said(d, audit.Command) {
		told[e.Door] = e
	}
	for door, words := range map[string][]string{
		"fails":   {"on_open: exit code 3 after ", ": out\nerr"},
		"hangs":   {"on_open: /bin/sh was killed: it ran longer than 2s, its time limit", ": begun"},
		"missing": {"on_open: ", "no such file or directory"},
	} {
		e := told[door]
		for _, w := range words {
			if !strings.Contains(e.Reason, w) || !e.Failed || e.Source.String() != lab.Source(1, lab.Server4).String() {
				t.Errorf("%s: the trail does not say %q: %+v", door, w, e)
			}
		}
	}
	b, err := os.ReadFile(child)
	lab.Must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	lab.Must(t, err)
	// A zombie has a process id and no command line.
	eventually.True(t, "what the command has started is ended", func() bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || len(line) == 0
	})
}

// on_close runs once for each window, however the window and the daemon end.
func TestOnCloseIsRunOnce(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	program, runs := recorded(l)
	rules := func(window string) string {
		return `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "` + window + `"
  on_close { command = ["` + program + `", "${source}"] }
}`
	}
	sources := []netip.Addr{lab.Source(1, lab.Server4), lab.Source(1, lab.Server6)}
	open := func(d *lab.Daemon) {
		t.Helper()
		for i, server := range []netip.Addr{lab.Server4, lab.Server6} {
			l.Knock(sources[i], server, lab.Knocks...)
			d.WaitFor("opened", "source="+sources[i].String()+" ")
		}
	}
	ran := 0
	once := func(when, event string) {
		t.Helper()
		ran++
		for _, source := range sources {
			count := func() (n int) {
				for _, r := range runs() {
					if r.arguments[0] == source.String() && slices.Contains(r.environment, "KNOCKWALL_EVENT="+event) {
						n++
					}
				}
				return n
			}
			eventually.True(t, fmt.Sprintf("%s on_close was run for %s", when, source), func() bool { return count() > 0 })
		}
		if n := len(runs()); n != ran*len(sources) {
			t.Errorf("%s commands were run %d times, want %d", when, n, ran*len(sources))
		}
	}

	d := l.Run(rules("4s")) // a slow machine may need that long to open both
	open(d)
	d.Stop(syscall.SIGKILL)
	eventually.True(t, "the windows end while no daemon runs", func() bool { return len(l.KernelWindows()) == 0 })
	if n := len(runs()); n != 0 {
		t.Fatalf("%d commands were run, and no daemon", n)
	}
	d = l.Run(rules("10m"))
	once("at the next start", "expired")
	d.WaitForCount(len(sources), "command ", "on_close: exit code 0")

	// A window that is open now stays open, and its command stays due.
	open(d)
	d.Stop(syscall.SIGKILL)
	d = l.Run(rules("10m"))
	d.WaitFor("windows open: 2")
	d.Stop(syscall.SIGTERM)
	d = l.Run(rules("10m"))
	if n := len(runs()); n != ran*len(sources) {
		t.Errorf("commands were run %d times, and the windows are open", n)
	}
	if out, err := lab.Knockwall("down", "--control", d.Control).CombinedOutput(); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	once("after down", "closed")
	l.Run(rules("10m")).Stop(syscall.SIGTERM)
	if n := len(runs()); n != ran*len(sources) {
		t.Errorf("after another start commands were run %d times, want %d", n, ran*len(sources))
	}
}

// However many windows open at once, at most MaxRunning commands run at once, and all
// run.
func TestFiftyWindowsAtOnce(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	folder := filepath.Join(l.Folder, "running")
	lab.Must(t, os.Mkdir(folder, 0o700))
	// Each command writes how many run while it runs.
	script := "cd " + folder + "; : >run.$$; ls | grep -c run >>../counts; sleep 0.1; rm run.$$"
	d := l.Launch(`door "wake" {
  sequence = [4113, "27911/udp", 1840]
  window   = "10m"
  on_open { command = ["/bin/sh", "-c", "` + script + `"] }
}`)
	d.WaitFor("hearing knocks for wake")
	const windows = 50
	began := time.Now()
	for n := range windows {
		server := []netip.Addr{lab.Server4, lab.Server6}[n%2]
		l.Knock(lab.Source(n+1, server), server, lab.Knocks...)
	}
	d.WaitForCount(windows, "command ", "on_open: exit code 0")
	t.Logf("%d commands have run in %s", windows, time.Since(began))
	b, err := os.ReadFile(filepath.Join(l.Folder, "counts"))
	lab.Must(t, err)
	counts := strings.Fields(string(b))
	most := 0
	for _, count := range counts {
		n, err := strconv.Atoi(count)
		lab.Must(t, err)
		most = max(most, n)
	}
	if len(counts) != windows || most > command.MaxRunning || most < 2 {
		t.Errorf("%d commands have run, want %d; at once %d, want 2 to %d", len(counts), windows, most, command.MaxRunning)
	}
}

// down reports the end of the wall before the commands of the rule files have ended.
func TestDownDoesNotWaitForCommands(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	lab.NeedsProgram(t, "sleep")
	d := l.Run(strings.TrimSuffix(lab.RulesWith("", "10m"), "}") + `
  on_close {
    command = ["sleep", "60"]
    timeout = "1m"
  }
}`)
	l.Enter(lab.Source(1, lab.Server4), lab.Server4)
	down := lab.Knockwall("down", "--control", d.Control)
	var out lab.Output
	down.Stdout, down.Stderr = &out, &out
	err := l.Server.Do(down.Run)
	if err != nil || !strings.HasPrefix(out.String(), "The wall is down. The daemon ends within ") {
		t.Errorf("down has said %q: %v", out.String(), err)
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the wall stands")
	}
	if err := d.WaitForExit(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	d.WaitFor("on_close", "it is run again when knockwall starts")
}
