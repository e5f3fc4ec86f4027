//go:build linux

package daemon

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleVariable is the environment variable that makes this test binary run a part of the
// daemon instead of the tests. Its value is the role.
const roleVariable = "KNOCKWALL_TEST_ROLE"

var roles = map[string]func() error{
	"signals": waitForSignals,
	"daemon":  func() error { return runDaemon(0) },
	"trial":   func() error { return runDaemon(time.Second) },
}

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runDaemon runs a daemon with the rule file and the control socket in the arguments.
func runDaemon(confirm time.Duration) error {
	return Run(context.Background(), Options{Config: os.Args[1], Control: os.Args[2], Confirm: confirm, Stderr: os.Stderr})
}

// child is a process with a role. It is killed at the end of the test.
type child struct {
	*exec.Cmd
	lines *bufio.Scanner // of stdout and stderr
}

// patience is how long a test waits for what it expects.
const patience = 20 * time.Second

// start starts a process with a role, in a network of its own if isolated.
func start(t *testing.T, role string, isolated bool, environment []string, arguments ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], arguments...)
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role, "NOTIFY_SOCKET=", "STATE_DIRECTORY=", "GORACE=atexit_sleep_ms=0"), environment...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if isolated {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
		if os.Geteuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
	}
	if err := cmd.Start(); err != nil {
		if isolated && os.Getenv("CI") == "" {
			t.Skipf("needs a network of its own: %v", err)
		}
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &child{cmd, bufio.NewScanner(r)}
}

// signal sends a signal.
func (c *child) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := c.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// expect waits for a line.
func (c *child) expect(t *testing.T, want string) {
	t.Helper()
	if !c.lines.Scan() || c.lines.Text() != want {
		t.Fatalf("the next line is %q, want %q: %v", c.lines.Text(), want, c.lines.Err())
	}
}
