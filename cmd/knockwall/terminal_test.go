//go:build linux && !client

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/eventually"
)

// atTerminal is knockwall at a terminal.
type atTerminal struct {
	t    *testing.T
	user *os.File // what the user types and sees
	cmd  *exec.Cmd

	mu     sync.Mutex
	screen strings.Builder
	ended  chan struct{} // the program has ended, and screen has all that it wrote
}

// typed starts knockwall at a terminal of this size.
func typed(t *testing.T, columns, rows uint16, environment []string, arguments ...string) *atTerminal {
	t.Helper()
	program, err := exec.LookPath("knockwall")
	if err != nil {
		t.Fatal(err)
	}
	user, ours := pseudoterminal(t)
	if err := unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	a := &atTerminal{t: t, user: user, cmd: exec.Command(program, arguments...), ended: make(chan struct{})}
	a.cmd.Stdin, a.cmd.Stdout, a.cmd.Stderr = ours, ours, ours
	a.cmd.Env = append(os.Environ(), "SSH_CONNECTION=") // the user of this test may be connected by ssh
	a.cmd.Env = append(a.cmd.Env, environment...)
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := user.Read(b)
			a.mu.Lock()
			a.screen.Write(b[:n])
			a.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(a.ended)
		_ = a.cmd.Wait()
		<-read // which ends with EIO: the program was the last at the other side
	}()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		<-a.ended
	})
	return a
}

// shows returns what the terminal has shown, with the lines joined.
func (a *atTerminal) shows() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(strings.Fields(a.screen.String()), " ")
}

// sees waits until the terminal shows text.
func (a *atTerminal) sees(text string) {
	a.t.Helper()
	defer func() {
		if a.t.Failed() {
			a.t.Logf("the terminal shows %q", a.shows())
		}
	}()
	eventually.True(a.t, fmt.Sprintf("the terminal shows %q", text), func() bool { return strings.Contains(a.shows(), text) })
}

func (a *atTerminal) types(text string) {
	a.t.Helper()
	if _, err := a.user.WriteString(text); err != nil {
		a.t.Fatal(err)
	}
}

// exits waits until the program ends and the terminal shows all of its output.
func (a *atTerminal) exits(code int) {
	a.t.Helper()
	select {
	case <-a.ended:
	case <-time.After(time.Minute):
		a.t.Fatalf("knockwall does not end. The terminal shows %q", a.shows())
	}
	if got := a.cmd.ProcessState.ExitCode(); got != code {
		a.t.Errorf("exit code %d, want %d. The terminal shows %q", got, code, a.shows())
	}
}

// serving serves the API of a daemon at a socket.
func serving(t *testing.T, mux *http.ServeMux) (socket string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "kw") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket = filepath.Join(folder, "control.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return socket
}

// trialDaemon is a daemon whose rules are on trial.
type trialDaemon struct {
	socket    string
	events    chan string // codes of reloaded events, for the follower
	confirmed chan struct{}
	reloads   chan string // the query of each
}

// sshAdded is what a reload has changed, in JSON.
const sshAdded = `[{"door": "ssh", "change": "added"}]`

// onTrial returns a daemon whose reloads have made these changes.
func onTrial(t *testing.T, changes string) *trialDaemon {
	t.Helper()
	d := &trialDaemon{events: make(chan string, 10), confirmed: make(chan struct{}, 10), reloads: make(chan string, 10)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/events", func(rw http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query(); got.Get("follow") != "true" || got.Get("last") != "0" {
			t.Errorf("events are asked for by %v", got)
		}
		_ = http.NewResponseController(rw).Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case code := <-d.events:
				if code == "" {
					return
				}
				fmt.Fprintf(rw, `{"time":"2026-03-01T12:00:00Z","event":"reloaded","code":%q}`+"\n", code)
				_ = http.NewResponseController(rw).Flush()
			}
		}
	})
	mux.HandleFunc("POST /v1/reload", func(rw http.ResponseWriter, r *http.Request) {
		d.reloads <- r.URL.Query().Get("session")
		d.events <- "trial"
		fmt.Fprintf(rw, `{"doors": 1, "trial_seconds": 3600, "shut": ["ssh"], "changes": %s}`, changes)
	})
	mux.HandleFunc("POST /v1/confirm", func(rw http.ResponseWriter, _ *http.Request) {
		d.confirmed <- struct{}{}
		_, _ = io.WriteString(rw, `{}`)
		d.events <- "confirmed"
	})
	d.socket = serving(t, mux)
	return d
}

func TestAtATerminalReloadWaitsForTheEndOfATrial(t *testing.T) {
	begin := func(t *testing.T) (*trialDaemon, *atTerminal) {
		t.Helper()
		d := onTrial(t, sshAdded)
		a := typed(t, 80, 24, nil, "reload", "--confirm", "1h", "--control", d.socket)
		a.sees("Type `knockwall confirm --control " + d.socket + "` in a new connection")
		a.sees("59m5") // a busy machine may skip a second
		return d, a
	}
	t.Run("confirmed elsewhere", func(t *testing.T) {
		d, a := begin(t)
		d.events <- "confirmed"
		a.exits(exitDone)
		a.sees("The new rules are confirmed, and stay in force.")
		if len(d.confirmed) > 0 {
			t.Error("this window has confirmed")
		}
	})
	t.Run("in the same window, after a warning", func(t *testing.T) {
		d, a := begin(t)
		a.types("\n")
		a.sees("Enter in this window proves nothing")
		if len(d.confirmed) > 0 {
			t.Error("one Enter has confirmed")
		}
		a.types("\n")
		a.exits(exitDone)
		if len(d.confirmed) != 1 {
			t.Errorf("confirmed %d times", len(d.confirmed))
		}
	})
	for _, code := range []string{"not-confirmed", "reverted"} {
		t.Run(code, func(t *testing.T) {
			d, a := begin(t)
			d.events <- code
			a.exits(exitFailed)
			a.sees("knockwall: the new rules were not confirmed, and the former ones are in force again")
		})
	}
	t.Run("the daemon ends", func(t *testing.T) {
		d, a := begin(t)
		d.events <- ""
		a.exits(exitFailed)
		a.sees("has ended")
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		d, a := begin(t)
		if err := a.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		a.exits(exitDone)
		a.sees("The trial goes on until ")
		if len(d.confirmed) > 0 {
			t.Error("Ctrl-C has confirmed")
		}
	})
}

// Whoever reloads by ssh is told that the port of the session is hidden now. Without a
// terminal nobody is asked about.
func TestAtATerminalReloadWarnsOfALockout(t *testing.T) {
	const session = "SSH_CONNECTION=198.51.100.7 50000 192.0.2.1 22"
	d := onTrial(t, sshAdded)
	a := typed(t, 80, 24, []string{session}, "reload", "--control", d.socket)
	a.exits(exitDone)
	a.sees("You are here by ssh, from 198.51.100.7 to port 22, which is closed to strangers: the door ssh hides it.")
	if got := <-d.reloads; "SSH_CONNECTION="+got != session {
		t.Errorf("the daemon is told of %q", got)
	}
	cmd := exec.Command(a.cmd.Path, "reload", "--control", d.socket)
	cmd.Env = append(os.Environ(), session)
	out, err := cmd.CombinedOutput()
	if err != nil || <-d.reloads != "" {
		t.Errorf("without a terminal: %s, %v", out, err)
	}
}

// A reload that does not touch the door of the session's port has not closed that port.
func TestAReloadThatLeavesTheDoorWarnsOfNoLockout(t *testing.T) {
	for changes, warned := range map[string]bool{
		`[]`: false,
		`[{"door": "web", "change": "added", "what": ["it guards 443/tcp"]}]`:          false,
		`[{"door": "ssh", "change": "changed", "what": ["sequence is another"]}]`:      true,
		`[{"change": "changed", "what": ["trusted no longer has 198.51.100.7"]}]`:      true,
		`[{"door": "web", "change": "removed"}, {"door": "ssh", "change": "changed"}]`: true,
	} {
		d := onTrial(t, changes)
		a := typed(t, 80, 24, []string{"SSH_CONNECTION=198.51.100.7 50000 192.0.2.1 22"}, "reload", "--control", d.socket)
		a.exits(exitDone)
		a.sees("The new rules are in force")
		if got := strings.Contains(a.shows(), "You are here by ssh"); got != warned {
			t.Errorf("after %s there is a warning: %t", changes, got)
		}
	}
}

// A screen that is too small for the status shows its beginning.
func TestWatchKeepsTheHead(t *testing.T) {
	const rows, columns = 10, 60
	var windows []string
	for i := range 50 {
		windows = append(windows, fmt.Sprintf(`{"door": "ssh", "source": "192.0.2.%d", "person": "%s", "left_seconds": 9, "connections": 0}`, i, strings.Repeat("long", 20)))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"table": "knockwall", "since": "2026-03-01T12:00:00Z", "doors": [{"name": "ssh", "ports": ["22/tcp"], "counters": {}}],
			"attempts": [], "counters": {}, "windows": [%s]}`, strings.Join(windows, ","))
	})
	a := typed(t, columns, rows, nil, "status", "--watch", "--control", serving(t, mux))
	const home = "\x1b[H\x1b[J"
	var frames []string
	eventually.True(t, "the status is shown twice", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		frames = strings.Split(a.screen.String(), home)
		return len(frames) >= 3
	})
	lines := strings.Split(strings.TrimSuffix(frames[1], "\r\n"), "\r\n")
	if len(lines) != rows-1 || !strings.HasPrefix(lines[0], "The daemon has run the wall") || !strings.HasSuffix(lines[len(lines)-1], " more lines") {
		t.Errorf("%d lines are shown:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	for _, line := range lines {
		if len([]rune(line)) > columns {
			t.Errorf("too long: %s", line)
		}
	}
}

func TestTheHeadOfAText(t *testing.T) {
	for _, test := range []struct {
		columns, rows int
		want          string
	}{
		{0, 0, "one\ntwo\nthree\nfour\n"},
		{80, 5, "one\ntwo\nthree\nfour\n"},
		{80, 4, "one\ntwo\n… and 2 more lines\n"},
		{80, 2, "… and 4 more lines\n"},
		{80, 1, "one\ntwo\nthree\nfour\n"},
		{4, 24, "one\ntwo\nthr…\nfour\n"},
	} {
		if got := head("one\ntwo\nthree\nfour\n", test.columns, test.rows); got != test.want {
			t.Errorf("%d columns, %d rows: %q, want %q", test.columns, test.rows, got, test.want)
		}
	}
}

// An error is wrapped at a terminal only: a line in a log stays one line.
func TestErrorsAreAsWideAsTheTerminal(t *testing.T) {
	a := typed(t, 50, 24, nil, "status", "--control", "/nowhere/at/all/control.sock")
	a.exits(exitFailed)
	a.sees("or name its socket with --control")
	a.mu.Lock()
	defer a.mu.Unlock()
	for line := range strings.Lines(a.screen.String()) {
		if n := len(strings.TrimRight(line, "\r\n")); n > 50 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	var out strings.Builder
	writeError(&out, errors.New(strings.Repeat("word ", 40)))
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines without a terminal", n)
	}
}
