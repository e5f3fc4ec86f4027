package daemon

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

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// A client at the control socket that is silent or sends garbage disturbs neither the
// network nor the next client at the socket.
func TestNonsenseAtTheControlSocketDisturbsNobody(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.SSHRules)
	info, err := os.Stat(d.Control)
	lab.Must(t, err)
	if info.Mode().Perm() != 0o660 {
		t.Errorf("the control socket's mode is %v", info.Mode())
	}
	garbage := make([]byte, 64<<10)
	rand.Read(garbage)
	for n := range 300 {
		conn, err := net.Dial("unix", d.Control)
		lab.Must(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(lab.Deadline))
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
		lab.Must(t, l.OnFirstSYN(lab.Source(n+1, lab.Server4), lab.Server4, lab.Knocks...))
	}
	if got := len(d.Status().Windows); got != 100 {
		t.Errorf("%d windows are open, want 100", got)
	}
	client, err := net.Dial("unix", d.Control)
	lab.Must(t, err)
	client.Close()
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("a stranger gets in")
	}
}

// curl can use the API as its page describes.
func TestCurlAtTheControlSocket(t *testing.T) {
	t.Parallel()
	curl := lab.NeedsProgram(t, "curl")
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.SSHRules)
	ask := func(arguments ...string) string {
		t.Helper()
		out, err := exec.Command(curl, append([]string{"-sS", "--max-time", "10", "--unix-socket", d.Control}, arguments...)...).CombinedOutput()
		if err != nil {
			t.Errorf("curl %v: %v\n%s", arguments, err, out)
		}
		return string(out)
	}
	guest := lab.Source(1, lab.Server6)
	out := ask("http://knockwall/v1/windows", "-d", fmt.Sprintf(`{"door": "ssh", "source": %q, "window": "5m"}`, guest))
	if !strings.Contains(out, `"left_seconds": 300`) || !l.Admits(guest, lab.Server6, 22) {
		t.Errorf("the window does not open: %s", out)
	}
	out = ask("-X", "DELETE", "http://knockwall/v1/windows/ssh/"+guest.String()+"?sessions=true")
	if !strings.Contains(out, `"closed": true`) || l.AdmitsAtOnce(guest, lab.Server6, 22) {
		t.Errorf("the window does not close: %s", out)
	}
	if out := ask("http://knockwall/v1/events"); !strings.Contains(out, `"event":"opened","door":"ssh","source":"`+guest.String()+`"`) {
		t.Errorf("the events: %s", out)
	}
	if out := ask("http://knockwall/metrics"); !strings.Contains(out, `knockwall_windows_total{door="ssh",event="opened"} 1`) {
		t.Errorf("the metrics: %s", out)
	}
	ask("-X", "POST", "http://knockwall/v1/down")
	if err := d.WaitForExit(); err != nil {
		t.Errorf("the daemon ends with %v", err)
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) || strings.TrimSpace(l.Nft("list", "tables")) != "" {
		t.Error("the wall is not down")
	}
}

// Somebody who starts the daemon on a terminal, over an ssh session whose port will
// close, is warned before the wall is in force.
func TestWarnedOfLockingOneselfOut(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	path := l.WriteRules(lab.SSHRules)
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
			cmd := lab.Knockwall("run", "--config", path, "--control", filepath.Join(l.Folder, "terminal"))
			for _, variable := range os.Environ() {
				if !strings.HasPrefix(variable, "SSH_CONNECTION=") {
					cmd.Env = append(cmd.Env, variable)
				}
			}
			if c.session != "" {
				cmd.Env = append(cmd.Env, "SSH_CONNECTION="+c.session)
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
			lab.Must(t, lab.StartOn(l.Server, cmd))
			defer func() {
				cmd.Process.Signal(syscall.SIGTERM)
				cmd.Wait()
			}()
			eventually.True(t, "the wall stands", func() bool { return strings.Contains(screen.String(), "guarding ") })
			before, _, _ := strings.Cut(screen.String(), "guarding ")
			if warned := strings.Contains(before, "from 198.51.100.7 to port 22, which is about to close"); warned != c.warned {
				t.Errorf("warned: %v, want %v. The screen:\n%s", warned, c.warned, screen)
			}
		})
	}
}

// openTerminal makes a terminal. screen is its output.
func openTerminal(t *testing.T) (terminal *os.File, screen *lab.Output) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	lab.Must(t, err)
	t.Cleanup(func() { master.Close() })
	lab.Must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	lab.Must(t, err)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	lab.Must(t, err)
	t.Cleanup(func() { terminal.Close() })
	screen = &lab.Output{}
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
