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
)

// mark is in the environment of all that the tests start, so that what is left of
// it is found in the end.
var mark = fmt.Sprintf("KNOCKWALL_COMMAND_TEST=%d", os.Getpid())

// roleVariable says what a test binary is to do instead of the tests.
const roleVariable = "KNOCKWALL_COMMAND_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "visitor":
		visit(os.Args[1])
		os.Exit(0)
	case "stubborn":
		signal.Ignore(unix.SIGTERM)
		fmt.Println(os.Getpid())
		time.Sleep(time.Hour) // To wait for nothing is a deadlock, to a Go without cgo.
	}
	code := m.Run()
	if left := leftOver(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "processes are left: %q\n", left)
		code = 1
	}
	os.Exit(code)
}

// visit connects to a socket, and ends when the other end does, but not so soon that
// one too many, which runs meanwhile, would not have come.
func visit(path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, conn)
	time.Sleep(30 * time.Millisecond)
}

// leftOver returns the processes that the tests have started, and that do not end
// though they have had time for it.
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

// job returns a job that runs for as long as a test may take.
func job(arguments ...string) command.Job {
	return command.Job{Arguments: arguments, Environment: []string{mark}, Timeout: time.Minute}
}

// script returns a job for a shell.
func script(text string, arguments ...string) command.Job {
	return job(append([]string{"/bin/sh", "-c", text, "sh"}, arguments...)...)
}

// runner returns a runner, and what it reports. It is closed when the test ends.
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

// gone waits until a process has ended. It may not have been waited for by whoever
// took it over.
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

// number reads a process number from what was written.
func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 2 {
		t.Fatalf("%q is no process", s)
	}
	return n
}

// gate holds up a command that reads it, until it is opened.
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

// reached returns once a command is held up, and open lets it go.
func (g gate) reached() (open func()) {
	g.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		file, err := os.OpenFile(g.path, os.O_WRONLY|unix.O_NONBLOCK, 0) // not without a reader
		if err == nil {
			return func() { file.Close() }
		}
	}
	g.t.Fatal("nobody comes to the gate")
	return nil
}
