//go:build linux

package command_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/eventually"
)

// mark is in the environment of every process that the tests start, so that the tests can
// find what is left at the end.
var mark = fmt.Sprintf("KNOCKWALL_COMMAND_TEST=%d", os.Getpid())

// roleVariable selects what the test binary does instead of running tests.
const roleVariable = "KNOCKWALL_COMMAND_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "visitor":
		visit(os.Args[1])
		os.Exit(0)
	case "stubborn":
		signal.Ignore(unix.SIGTERM)
		fmt.Println(os.Getpid())
		time.Sleep(time.Hour) // Go without cgo would report a deadlock if nothing could wake it
	}
	code := m.Run()
	if left := leftOver(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "processes are left: %q\n", left)
		code = 1
	}
	os.Exit(code)
}

// visit connects to a socket and ends when the other end closes. It gives a surplus
// process time to connect.
func visit(path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, conn)
	time.Sleep(30 * time.Millisecond)
}

// leftOver returns the processes that the tests started and that do not end in time.
func leftOver() []string {
	var left []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		left = nil
		folders, _ := filepath.Glob("/proc/[0-9]*")
		for _, folder := range folders {
			environment, _ := os.ReadFile(folder + "/environ")
			if strings.Contains(string(environment), mark) && filepath.Base(folder) != strconv.Itoa(os.Getpid()) {
				arguments, _ := os.ReadFile(folder + "/cmdline")
				left = append(left, string(arguments))
			}
		}
		if len(left) == 0 {
			break
		}
	}
	return left
}

// job returns a job whose time limit is that of a test.
func job(arguments ...string) command.Job {
	return command.Job{Arguments: arguments, Environment: []string{mark}, Timeout: time.Minute}
}

// script returns a job for a shell.
func script(text string, arguments ...string) command.Job {
	return job(append([]string{"/bin/sh", "-c", text, "sh"}, arguments...)...)
}

// runner returns a runner and its results. The runner is closed when the test ends.
func runner(t *testing.T) (*command.Runner, <-chan command.Result) {
	t.Helper()
	results := make(chan command.Result, 10_000)
	r := command.NewRunner(func(result command.Result) { results <- result })
	t.Cleanup(func() { r.Close(0) })
	return r, results
}

// next returns the next result.
func next(t *testing.T, results <-chan command.Result) command.Result {
	t.Helper()
	select {
	case result := <-results:
		return result
	case <-time.After(30 * time.Second):
		t.Fatal("nothing ends")
		panic("not reached")
	}
}

// run runs one job.
func run(t *testing.T, j command.Job) command.Result {
	t.Helper()
	r, results := runner(t)
	if !r.Run(j) {
		t.Fatal("it is not taken")
	}
	return next(t, results)
}

// gone waits until a process has ended. It may be a zombie whose new parent has not
// reaped it.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if !alive(t, pid) {
			return
		}
	}
	t.Errorf("process %d has not ended", pid)
	_ = unix.Kill(pid, unix.SIGKILL)
}

func alive(t *testing.T, pid int) bool {
	t.Helper()
	if unix.Kill(pid, 0) == unix.ESRCH {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// number parses a process id from a command's output.
func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 2 {
		t.Fatalf("%q is no process", s)
	}
	return n
}

// gate blocks commands that read it until it is opened.
type gate struct {
	t    *testing.T
	path string
}

func newGate(t *testing.T) gate {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return gate{t, path}
}

func (g gate) job(key string) command.Job {
	j := job("cat", g.path)
	j.Key = key
	return j
}

// reached returns when a command is blocked. open unblocks it.
func (g gate) reached() (open func()) {
	g.t.Helper()
	var file *os.File
	eventually.True(g.t, "a command has come to the gate", func() bool {
		var err error
		file, err = os.OpenFile(g.path, os.O_WRONLY|unix.O_NONBLOCK, 0) // this fails without a reader
		return err == nil
	})
	return func() { file.Close() }
}
