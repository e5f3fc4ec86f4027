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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/eventually"
)

// TestMain lets the scripts and tests run this binary as knockwall and as other programs.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"knockwall": main, "session": tellSession, "nobody": asNobody, "systemctl": fakeSystemctl,
	})
}

// asNobody runs knockwall as user nobody, even if root runs the tests. Unlike with setpriv,
// the program may be in a folder that only root can read.
func asNobody() {
	if os.Geteuid() == 0 {
		const nobody = 65534
		for _, drop := range []func() error{
			func() error { return syscall.Setgroups(nil) },
			func() error { return syscall.Setgid(nobody) },
			func() error { return syscall.Setuid(nobody) },
		} {
			if err := drop(); err != nil {
				fmt.Fprintln(os.Stderr, "nobody:", err)
				os.Exit(127)
			}
		}
	}
	main()
}

// fakeSystemctl records its arguments. It keeps scripts from running the real systemctl.
func fakeSystemctl() {
	told := fmt.Sprintln(strings.Join(os.Args[1:], " "))
	if err := os.WriteFile("systemctl.txt", []byte(told), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(127)
	}
}

// TestScripts tests the output of the commands that need no privilege. The expected output is
// in the scripts. There is no -update for it.
func TestScripts(t *testing.T) { runScripts(t, "testdata/script") }

func runScripts(t *testing.T, folder string) {
	testscript.Run(t, testscript.Params{
		Dir:                 folder,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":        exits,
			"unprivileged": unprivileged,
			"deadsocket":   deadSocket,
			"service":      service,
			"daemon":       fakeDaemon,
			"asked":        asked,
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Setup: func(e *testscript.Env) error {
			// The path of a socket can have 107 bytes. The work folder, named after the
			// script, would take most of them.
			folder, err := os.MkdirTemp("", "kw")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(folder) })
			e.Setenv("RUN", folder)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // otherwise each program ends a second late
			return nil
		},
	})
}

// exits runs a program, which must end with exactly this exit code:
//
//	exits 2 knockwall check
//
// The commands stdout and stderr then match its output, as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var failure *exec.ExitError
	got := 0
	switch {
	case errors.As(err, &failure):
		got = failure.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// unprivileged is exits for a program without the capability CAP_NET_ADMIN, even if root
// runs the tests.
func unprivileged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: unprivileged CODE PROGRAM [ARGUMENT...]")
	}
	if os.Geteuid() == 0 {
		// setpriv of util-linux. If it cannot drop the capability, it runs nothing and ends
		// with code 127 or 1 and its own name on stderr.
		args = slices.Concat(args[:1], []string{"setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"}, args[1:])
	}
	exits(ts, false, args)
}

// deadSocket creates a socket at which nobody listens.
func deadSocket(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: deadsocket PATH")
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: args[0]})
	ts.Check(err)
	l.SetUnlinkOnClose(false)
	ts.Check(l.Close())
}

// service listens at a TCP port of 127.0.0.1 and sets $PORT to its number. It answers each
// connection with a line and the received text in capitals.
func service(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: service")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("PORT", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 100)
				n, _ := conn.Read(b)
				fmt.Fprintf(conn, "welcome\n%s", strings.ToUpper(string(b[:n])))
			}()
		}
	}()
}

// fakeDaemon listens at a control socket and answers as the named files say. Each file has a
// line with a method, a path and a status code, then the body:
//
//	daemon $RUN/control.sock status.http
//
// It records requests in requests.txt.
func fakeDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: daemon PATH FILE...")
	}
	type answer struct {
		code int
		body string
	}
	answers := map[string]answer{}
	for _, name := range args[1:] {
		first, body, _ := strings.Cut(ts.ReadFile(name), "\n")
		fields := strings.Fields(first)
		if len(fields) != 3 {
			ts.Fatalf("%s: no method, path and code in %q", name, first)
		}
		code, err := strconv.Atoi(fields[2])
		ts.Check(err)
		answers[fields[0]+" "+fields[1]] = answer{code, body}
	}
	requests, err := os.Create(ts.MkAbs("requests.txt"))
	ts.Check(err)
	var mu sync.Mutex
	l, err := net.Listen("unix", args[0])
	ts.Check(err)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(requests, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+string(b)))
		a, ok := answers[r.Method+" "+r.RequestURI]
		if !ok {
			a, ok = answers[r.Method+" "+r.URL.Path]
		}
		if !ok {
			a = answer{http.StatusTeapot, `{"error": "the script says nothing of this"}`}
		}
		rw.WriteHeader(a.code)
		_, _ = io.WriteString(rw, a.body)
	})}
	go func() { _ = server.Serve(l) }()
	ts.Defer(func() {
		server.Close()
		requests.Close()
	})
}

// asked waits until the daemon has received a number of requests.
func asked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: asked TIMES")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	eventually.True(ts, "the daemon is asked "+args[0]+" times", func() bool {
		return strings.Count(ts.ReadFile("requests.txt"), "\n") >= want
	})
}

// commands returns all commands that a user can type.
func commands() []*cobra.Command {
	root := rootCommand()
	root.InitDefaultHelpCmd()
	return append(root.Commands(), root)
}

func TestEachCommandHasHelpThatTeachesByExample(t *testing.T) {
	for _, c := range commands() {
		t.Run(c.Name(), func(t *testing.T) {
			var out, errs strings.Builder
			arguments := append(strings.Fields(c.CommandPath())[1:], "--help")
			if code := run(t.Context(), arguments, strings.NewReader(""), &out, &errs); code != exitDone || errs.Len() > 0 {
				t.Errorf("exit code %d, stderr %q", code, errs.String())
			}
			_, examples, found := strings.Cut(out.String(), "\nExamples:\n")
			if !found || !strings.Contains(examples, c.CommandPath()) {
				t.Errorf("no example of %q:\n%s", c.CommandPath(), out.String())
			}
			for line := range strings.Lines(out.String()) {
				line = strings.TrimSuffix(line, "\n")
				if n := utf8.RuneCountInString(line); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
				if strings.HasSuffix(line, " ") {
					t.Errorf("blanks at the end: %q", line)
				}
			}
		})
	}
}

func TestEachCommandRefusesWhatItDoesNotKnowAsWrongUsage(t *testing.T) {
	for _, c := range commands() {
		arguments := append(strings.Fields(c.CommandPath())[1:], "--no-such-flag")
		var out, errs strings.Builder
		if code := run(t.Context(), arguments, strings.NewReader(""), &out, &errs); code != exitUsage {
			t.Errorf("%v: exit code %d", arguments, code)
		}
		want := fmt.Sprintf("knockwall: unknown flag: --no-such-flag. See %q\n", c.CommandPath()+" --help")
		if errs.String() != want {
			t.Errorf("%v: stderr %q, want %q", arguments, errs.String(), want)
		}
		if out.Len() > 0 {
			t.Errorf("%v: stdout %q", arguments, out.String())
		}
	}
}

func TestEachScriptIsRun(t *testing.T) {
	files, err := os.ReadDir("testdata/script")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".txtar" {
			t.Errorf("%s is not a script: its name must end in .txtar", f.Name())
		}
	}
}
