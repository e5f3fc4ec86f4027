package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
)

const misuseRules = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}`

// fails starts a daemon that must end by itself, with code 1 and one sentence
// on stderr that has all of the words.
func (l *lab) fails(rules, control string, words ...string) {
	l.t.Helper()
	cmd := knockwall("run", "--config", l.rules(rules), "--control", control)
	var out output
	cmd.Stderr = &out
	must(l.t, on(l.server, cmd))
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		l.t.Errorf("the exit code is %d, want 1", code)
	}
	for _, w := range words {
		if !strings.Contains(out.String(), w) {
			l.t.Errorf("%q is not in the message:\n%s", w, &out)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		l.t.Errorf("the message has %d lines, want 1:\n%s", n, &out)
	}
}

// A second daemon is told so, whatever it shares with the first, and the first
// minds its doors as if nothing had been.
func TestASecondDaemonChangesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	d := l.run(misuseRules)
	before := l.nft("list", "ruleset")
	l.fails(misuseRules, d.control, "is running already", d.control)
	l.fails(misuseRules, filepath.Join(l.folder, "other"), "is in use", "7100", "nflog_group")
	l.fails(`wall { nflog_group = 7200 }`+"\n"+misuseRules, filepath.Join(l.folder, "other"), "queue 7100 is in use")
	if after := l.nft("list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed from\n%s\nto\n%s", before, after)
	}
	l.knock(client4, server4, tcp(4113), udp(27911), tcp(1840))
	if !l.letsIn(client4, server4, 22) {
		t.Error("the first daemon does not open any more")
	}
}

// Another program's group or queue is named, and nothing is changed.
func TestAGroupOrQueueOfAnotherProgram(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var group *nflog.Log
	must(t, l.server.Do(func() (err error) {
		group, err = nflog.Listen(7101, deaf{})
		return err
	}))
	control := filepath.Join(l.folder, "control")
	l.fails(misuseRules, control, "NFLOG group 7101 is in use", "nflog_group")
	group.Close()

	var queue *nfqueue.Queue
	must(t, l.server.Do(func() (err error) {
		queue, err = nfqueue.Listen(nfqueue.Config{Number: 7103}, deaf{})
		return err
	}))
	l.fails(misuseRules, control, "queue 7103 is in use", "queue in the rule files")
	queue.Close()
	if out := l.nft("list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind: %s", out)
	}
	l.run(misuseRules) // nobody has them any more
}

// deaf hears nothing.
type deaf struct{}

func (deaf) Logged([]byte, packet.Packet, []byte) {}
func (deaf) Lost(uint32)                          {}
func (deaf) Queued(uint32, packet.Packet)         {}
func (deaf) Unreadable(uint32)                    {}
func (deaf) Failed(error)                         {}

// Without the privilege, run says what it needs, in one sentence.
func TestRunWithoutPrivilege(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cmd := knockwall("run", "--config", l.rules(misuseRules), "--control", filepath.Join(l.folder, "control"))
	var out output
	cmd.Stderr = &out
	// A user namespace of one's own has no say over the network namespace.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}}
	must(t, on(l.server, cmd))
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(out.String(), "CAP_NET_ADMIN") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("exit code %d, message %q", code, out.String())
	}
	if out := l.nft("list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind: %s", out)
	}
}

// A broken rule file is an error of configuration where no rules are kept that were in
// force, and a wall that stands stays as it is.
func TestABrokenRuleFileLeavesTheWallAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	d := l.run(misuseRules)
	d.end(syscall.SIGKILL)
	must(t, os.RemoveAll(d.control+".rules"))
	before := l.nft("list", "ruleset")
	d = l.launch(`door "ssh" { ports = [99999] }`)
	d.ended()
	if code := d.cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("the exit code is %d, want 2", code)
	}
	for _, w := range []string{"rules.hcl", "line 1", "99999", "No sequence"} {
		if !strings.Contains(d.log.String(), w) {
			t.Errorf("%q is not in the message:\n%s", w, d.log)
		}
	}
	if after := l.nft("list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed to\n%s", after)
	}
	if l.admits(client4, server4, 22) {
		t.Error("a stranger gets in")
	}
}

// A socket that a killed daemon has left is no hindrance; a file that is no
// socket is not touched.
func TestTheControlSocketsPath(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.run(misuseRules)
	d.end(syscall.SIGKILL)
	if _, err := os.Stat(d.control); err != nil {
		t.Fatalf("the killed daemon's socket is not there, so that this tests nothing: %v", err)
	}
	d = l.run(misuseRules)
	info, err := os.Stat(d.control)
	must(t, err)
	if mode := info.Mode().Perm(); mode != 0o660 {
		t.Errorf("the socket's mode is %o, want 660", mode)
	}
	d.end(syscall.SIGTERM)
	if _, err := os.Stat(d.control); err == nil {
		t.Error("the daemon has left its socket behind")
	}

	file := filepath.Join(l.folder, "file")
	must(t, os.WriteFile(file, []byte("mine"), 0o600))
	l.fails(misuseRules, file, "is not a socket", "--control")
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// Garbage on the control socket, and connections that say nothing, do not keep
// anybody from getting in or from asking.
func TestGarbageOnTheControlSocket(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	d := l.run(misuseRules)
	for n := range 300 {
		conn, err := net.Dial("unix", d.control)
		must(t, err)
		defer conn.Close()
		switch n % 3 {
		case 1:
			fmt.Fprintf(conn, "GET /v1/status HTTP/1.1\r\nX: ")
		case 2:
			conn.Write([]byte{0, 1, 2, 0xff, '\r', '\n', '\r', '\n'})
		}
	}
	d.status()
	l.knock(client4, server4, tcp(4113), udp(27911), tcp(1840))
	if !l.letsIn(client4, server4, 22) {
		t.Error("refused after the knocks")
	}
}
