package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/wall"
)

// Daemon is a knockwall daemon on the server.
type Daemon struct {
	Lab     *Lab
	Cmd     *exec.Cmd
	Log     *Output // stderr
	Control string  // path of the control socket
	exited  chan error
}

// BinaryPath returns the path of the program under test.
func BinaryPath() string { return os.Getenv(binaryVariable) }

// Knockwall returns a command that runs the program under test.
func Knockwall(arguments ...string) *exec.Cmd {
	return exec.Command(BinaryPath(), arguments...)
}

// WriteRules writes the lab's only rule file and returns its path.
func (l *Lab) WriteRules(text string) string {
	l.T.Helper()
	path := filepath.Join(l.Folder, "rules.hcl")
	Must(l.T, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// Launch starts a daemon with a rule file, and waits for nothing.
func (l *Lab) Launch(rules string) *Daemon {
	l.T.Helper()
	return l.LaunchFile(l.WriteRules(rules))
}

// LaunchFile is Launch with the path of a rule file, and with more arguments for
// `knockwall run`.
func (l *Lab) LaunchFile(path string, arguments ...string) *Daemon {
	l.T.Helper()
	control := filepath.Join(l.Folder, "control")
	return l.LaunchCommand(control, Knockwall(append([]string{"run", "--config", path, "--control", control}, arguments...)...))
}

// LaunchCommand starts a daemon that another command runs. control is the path of its
// control socket. When the test ends, the daemon is killed; the test fails if the daemon
// had a data race.
func (l *Lab) LaunchCommand(control string, cmd *exec.Cmd) *Daemon {
	l.T.Helper()
	d := &Daemon{Lab: l, Cmd: cmd, Log: &Output{}, Control: control, exited: make(chan error, 1)}
	d.Cmd.Stderr = d.Log
	Must(l.T, StartOn(l.Server, d.Cmd))
	go func() { d.exited <- d.Cmd.Wait() }()
	l.T.Cleanup(func() {
		d.Cmd.Process.Kill()
		// The race detector reports a race, but the program goes on.
		if _, race, found := strings.Cut(d.Log.String(), "WARNING: DATA RACE"); found {
			l.T.Errorf("the daemon has a data race:%.8000s", race)
		}
		if l.T.Failed() {
			l.T.Logf("the daemon said:\n%s", Tail(d.Log.String(), 4000))
		}
	})
	return d
}

// Run starts a daemon with a rule file, and waits until the wall is in force.
func (l *Lab) Run(rules string) *Daemon {
	l.T.Helper()
	return l.RunFile(l.WriteRules(rules))
}

// RunFile is Run with the path of a rule file.
func (l *Lab) RunFile(path string) *Daemon {
	l.T.Helper()
	return l.LaunchFile(path).waitUntilGuarding()
}

// waitUntilGuarding waits until the wall is in force.
func (d *Daemon) waitUntilGuarding() *Daemon {
	d.Lab.T.Helper()
	eventually.True(d.Lab.T, "the daemon guards", func() bool {
		select {
		case err := <-d.exited:
			d.Lab.T.Fatalf("the daemon ended: %v\n%s", err, d.Log)
		default:
		}
		return strings.Contains(d.Log.String(), "guarding ") || strings.Contains(d.Log.String(), " is NOT guarded: ")
	})
	return d
}

// Stop sends the daemon a signal, waits until the daemon has ended, and returns its error.
func (d *Daemon) Stop(signal syscall.Signal) error {
	d.Lab.T.Helper()
	Must(d.Lab.T, d.Cmd.Process.Signal(signal))
	return d.WaitForExit()
}

// WaitForExit waits until the daemon has ended, and returns its error.
func (d *Daemon) WaitForExit() error {
	d.Lab.T.Helper()
	select {
	case err := <-d.exited:
		return err
	case <-time.After(Deadline):
		d.Lab.T.Fatal("the daemon does not end")
		return nil
	}
}

// Status asks the daemon for its status.
func (d *Daemon) Status() wall.Status {
	d.Lab.T.Helper()
	s, err := control.NewClient(d.Control).Status(context.Background(), wall.WindowQuery{})
	Must(d.Lab.T, err)
	return s
}

// Logged counts the lines of the log that contain all of the words.
func (d *Daemon) Logged(words ...string) (n int) {
lines:
	for line := range strings.Lines(d.Log.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		n++
	}
	return n
}

// WaitFor waits until the log has a line that contains all of the words.
func (d *Daemon) WaitFor(words ...string) {
	d.Lab.T.Helper()
	eventually.True(d.Lab.T, "the log has "+strings.Join(words, ", "), func() bool { return d.Logged(words...) > 0 })
}

// WaitForCount waits until the log has n lines that contain all of the words.
func (d *Daemon) WaitForCount(n int, words ...string) {
	d.Lab.T.Helper()
	eventually.True(d.Lab.T, fmt.Sprintf("the log has %d times %s", n, strings.Join(words, ", ")), func() bool { return d.Logged(words...) >= n })
}

// WaitForExpiry waits until all windows have expired, in the daemon and in the kernel,
// whose clock has ticks of up to 10 ms.
func (d *Daemon) WaitForExpiry() {
	d.Lab.T.Helper()
	d.WaitFor("expired")
	eventually.True(d.Lab.T, "the windows are over in the kernel, too", func() bool { return len(d.Lab.KernelWindows()) == 0 })
}
