//go:build linux && !client

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/host"
)

// tellSession is a program that prints over which ssh connection it was started.
func tellSession() {
	s, ok := host.Session()
	fmt.Println(ok, s.Client, s.Server)
}

func TestTheSessionIsFoundInTheEnvironmentOfThisProcessOrAnAncestor(t *testing.T) {
	program, err := exec.LookPath("session")
	if err != nil {
		t.Fatal(err)
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		lacks(t, "needs a shell")
	}
	// The user of this test may be connected by ssh.
	s, ok := host.Session()
	ours := fmt.Sprintln(ok, s.Client, s.Server)
	const (
		variable = "SSH_CONNECTION=198.51.100.7 50000 192.0.2.1 22"
		found    = "true 198.51.100.7:50000 192.0.2.1:22\n"
		invalid  = "false invalid AddrPort invalid AddrPort\n"
	)
	// The shell does not exec the program, as another command follows.
	child := []string{shell, "-c", program + "; :"}
	for _, test := range []struct {
		name      string
		arguments []string
		variables []string
		want      string
	}{
		{"its own", []string{program}, []string{variable}, found},
		{"its parent's", []string{shell, "-c", "env -i " + program + "; :"}, []string{variable}, found},
		{"its grandparent's", []string{shell, "-c", "env -i " + shell + " -c '" + program + "; :'; :"}, []string{variable}, found},
		{"the nearest", []string{shell, "-c", "SSH_CONNECTION='203.0.113.9 1 203.0.113.1 2' " + program + "; :"}, []string{variable},
			"true 203.0.113.9:1 203.0.113.1:2\n"},
		{"whatever else there is", child, []string{"XSSH_CONNECTION=1 2 3 4", "SSH_CONNECTIONS=1 2 3 4", "A=\nSSH_CONNECTION=1 2 3 4", variable}, found},
		{"nobody's but the test's", child, []string{"SSH_CLIENT=198.51.100.7 50000 22"}, ours},
		{"one that says nothing", []string{program}, []string{"SSH_CONNECTION="}, invalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(test.arguments[0], test.arguments[1:]...)
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, test.variables...)
			got, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// lacks skips the test on a machine that lacks a requirement. In CI it fails the test.
func lacks(t *testing.T, format string, a ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, a...)
	}
	t.Skipf(format, a...)
}

// isolated runs a command in its own network namespace, where its wall affects nobody else.
func isolated(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// pseudoterminal returns both ends of a pseudoterminal.
func pseudoterminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// said runs the daemon in its own network namespace, with the environment of an ssh session.
// It returns the daemon's output up to when the door is guarded.
func said(t *testing.T, from io.Reader, stderr *os.File, flags ...string) string {
	t.Helper()
	program, err := exec.LookPath("knockwall")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	rules := filepath.Join(folder, "ssh.hcl")
	if err := os.WriteFile(rules, []byte("door \"ssh\" {\n  ports = [22]\n  sequence = [4118, \"27917/udp\", 1847]\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"run", "--config", rules, "--control", filepath.Join(folder, "control.sock")}, flags...)...)
	cmd.Env = append(os.Environ(), "SSH_CONNECTION=198.51.100.7 50000 192.0.2.1 22", "NOTIFY_SOCKET=")
	cmd.Stderr = stderr
	isolated(cmd)
	if err := cmd.Start(); err != nil {
		lacks(t, "needs a network of its own: %v", err)
	}
	stderr.Close()
	watchdog := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Signal(unix.SIGTERM) }()
	var text strings.Builder
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		text.WriteString(line + "\n")
		if strings.HasPrefix(line, "guarding ssh: ") {
			return text.String()
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, unix.EIO) { // the end of a terminal
		t.Error(err)
	}
	lacks(t, "needs a kernel on which run works: %s", text.String())
	return ""
}

func TestOnlyAtATerminalRunWarnsOfALockout(t *testing.T) {
	t.Run("at a terminal", func(t *testing.T) {
		user, program := pseudoterminal(t)
		text := said(t, user, program)
		if !strings.HasPrefix(text, "You are here by ssh, from 198.51.100.7 to port 22,") || !strings.Contains(text, "\nSafer: start with --confirm 2m,") {
			t.Errorf("run says\n%s", text)
		}
	})
	t.Run("at a terminal, on trial", func(t *testing.T) {
		user, program := pseudoterminal(t)
		text := said(t, user, program, "--confirm", "2m")
		if !strings.HasPrefix(text, "You are here by ssh, ") || strings.Contains(text, "Safer:") || !strings.Contains(text, "\nThe wall is on trial:") {
			t.Errorf("run says\n%s", text)
		}
	})
	t.Run("at none", func(t *testing.T) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		if text := said(t, read, write); strings.Contains(text, "ssh, from") || !strings.HasPrefix(text, "guarding ssh: ") {
			t.Errorf("run says\n%s", text)
		}
	})
}
