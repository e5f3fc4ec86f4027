package integration

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client at the control socket that is silent or sends garbage disturbs neither the
// network nor the next client at the socket.
func TestNonsenseAtTheControlSocketDisturbsNobody(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	d := l.run(firstRules)
	info, err := os.Stat(d.control)
	must(t, err)
	if info.Mode().Perm() != 0o660 {
		t.Errorf("the control socket's mode is %v", info.Mode())
	}
	garbage := make([]byte, 64<<10)
	rand.Read(garbage)
	for n := range 300 {
		conn, err := net.Dial("unix", d.control)
		must(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(deadline))
		switch n % 4 { // one in four sends nothing
		case 1:
			conn.Write([]byte("GET /v1/status HTTP/1.1\r\nHost:"))
		case 2:
			conn.Write(garbage) // the daemon answers and closes the connection
		case 3:
			conn.Write([]byte("POST /v1/windows HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"))
		}
	}
	for n := range 100 {
		must(t, firstSYN(l, nth(n+1, server4), server4))
	}
	if got := len(d.status().Windows); got != 100 {
		t.Errorf("%d windows are open, want 100", got)
	}
	client, err := net.Dial("unix", d.control)
	must(t, err)
	client.Close()
	if l.admits(client4, server4, 22) {
		t.Error("a stranger gets in")
	}
}

// curl can use the API as its page describes.
func TestCurlAtTheControlSocket(t *testing.T) {
	t.Parallel()
	curl := needs(t, "curl")
	l := newLab(t)
	l.serve(22)
	d := l.run(firstRules)
	ask := func(arguments ...string) string {
		t.Helper()
		out, err := exec.Command(curl, append([]string{"-sS", "--max-time", "10", "--unix-socket", d.control}, arguments...)...).CombinedOutput()
		if err != nil {
			t.Errorf("curl %v: %v\n%s", arguments, err, out)
		}
		return string(out)
	}
	guest := nth(1, server6)
	out := ask("http://knockwall/v1/windows", "-d", fmt.Sprintf(`{"door": "ssh", "source": %q, "window": "5m"}`, guest))
	if !strings.Contains(out, `"left_seconds": 300`) || !l.letsIn(guest, server6, 22) {
		t.Errorf("the window does not open: %s", out)
	}
	out = ask("-X", "DELETE", "http://knockwall/v1/windows/ssh/"+guest.String()+"?sessions=true")
	if !strings.Contains(out, `"closed": true`) || l.admits(guest, server6, 22) {
		t.Errorf("the window does not close: %s", out)
	}
	if out := ask("http://knockwall/v1/events"); !strings.Contains(out, `"event":"opened","door":"ssh","source":"`+guest.String()+`"`) {
		t.Errorf("the events: %s", out)
	}
	if out := ask("http://knockwall/metrics"); !strings.Contains(out, `knockwall_windows_total{door="ssh",event="opened"} 1`) {
		t.Errorf("the metrics: %s", out)
	}
	ask("-X", "POST", "http://knockwall/v1/down")
	if err := d.ended(); err != nil {
		t.Errorf("the daemon ends with %v", err)
	}
	if !l.letsIn(client4, server4, 22) || strings.TrimSpace(l.nft("list", "tables")) != "" {
		t.Error("the wall is not down")
	}
}

// Somebody who starts the daemon on a terminal, over an ssh session whose port will
// close, is warned before the wall is in force.
func TestWarnedOfLockingOneselfOut(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	path := l.rules(firstRules)
	for _, c := range []struct {
		name, session string
		warned        bool
	}{
		{"over the port that closes", "198.51.100.7 40000 192.0.2.1 22", true},
		{"over another port", "198.51.100.7 40000 192.0.2.1 2222", false},
		{"not over ssh", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			terminal, screen := openTerminal(t)
			cmd := knockwall("run", "--config", path, "--control", filepath.Join(l.folder, "terminal"))
			for _, variable := range os.Environ() {
				if !strings.HasPrefix(variable, "SSH_CONNECTION=") {
					cmd.Env = append(cmd.Env, variable)
				}
			}
			if c.session != "" {
				cmd.Env = append(cmd.Env, "SSH_CONNECTION="+c.session)
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
			must(t, on(l.server, cmd))
			defer func() {
				cmd.Process.Signal(syscall.SIGTERM)
				cmd.Wait()
			}()
			eventually(t, "the wall stands", func() bool { return strings.Contains(screen.String(), "guarding ") })
			before, _, _ := strings.Cut(screen.String(), "guarding ")
			if warned := strings.Contains(before, "from 198.51.100.7 to port 22, which is about to close"); warned != c.warned {
				t.Errorf("warned: %v, want %v. The screen:\n%s", warned, c.warned, screen)
			}
		})
	}
}

// openTerminal makes a terminal. screen is its output.
func openTerminal(t *testing.T) (terminal *os.File, screen *output) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { master.Close() })
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { terminal.Close() })
	screen = &output{}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			screen.Write(bytes.ReplaceAll(b[:n], []byte("\r\n"), []byte("\n")))
		}
	}()
	return terminal, screen
}
