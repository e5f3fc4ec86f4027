package daemon

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
)

// unknown is a rule file with knocks that stand in no manual: the daemon does not warn of it.
var unknown = strings.Replace(lab.SSHRules, "4113", "4118", 1)

// fails starts a daemon that must end by itself, with exit code 1 and one sentence on
// stderr that contains all of the words.
func fails(l *lab.Lab, rules, control string, words ...string) {
	l.T.Helper()
	cmd := lab.Knockwall("run", "--config", l.WriteRules(rules), "--control", control)
	var out lab.Output
	cmd.Stderr = &out
	lab.Must(l.T, lab.StartOn(l.Server, cmd))
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		l.T.Errorf("the exit code is %d, want 1", code)
	}
	for _, w := range words {
		if !strings.Contains(out.String(), w) {
			l.T.Errorf("%q is not in the message:\n%s", w, &out)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		l.T.Errorf("the message has %d lines, want 1:\n%s", n, &out)
	}
}

// A second daemon fails and says why, whatever it shares with the first. The first
// continues undisturbed.
func TestASecondDaemonChangesNothing(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.SSHRules)
	before := l.Nft("list", "ruleset")
	fails(l, unknown, d.Control, "is running already", d.Control)
	fails(l, unknown, filepath.Join(l.Folder, "other"), "is in use", "7100", "nflog_group")
	fails(l, `wall { nflog_group = 7200 }`+"\n"+unknown, filepath.Join(l.Folder, "other"), "queue 7100 is in use")
	if after := l.Nft("list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed from\n%s\nto\n%s", before, after)
	}
	l.Knock(lab.Client4, lab.Server4, lab.TCP(4113), lab.UDP(27911), lab.TCP(1840))
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the first daemon does not open its door any more")
	}
}

// If another program uses the group or a queue, the message names it, and nothing changes.
func TestAGroupOrQueueOfAnotherProgram(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	var group *nflog.Log
	lab.Must(t, l.Server.Do(func() (err error) {
		group, err = nflog.Listen(7101, deaf{})
		return err
	}))
	control := filepath.Join(l.Folder, "control")
	fails(l, unknown, control, "NFLOG group 7101 is in use", "nflog_group")
	group.Close()

	var queue *nfqueue.Queue
	lab.Must(t, l.Server.Do(func() (err error) {
		queue, err = nfqueue.Listen(nfqueue.Config{Number: 7103}, deaf{})
		return err
	}))
	fails(l, unknown, control, "queue 7103 is in use", "queue in the rule files")
	queue.Close()
	if out := l.Nft("list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind: %s", out)
	}
	l.Run(lab.SSHRules) // nobody uses them any more
}

// deaf is a handler that does nothing.
type deaf struct{}

func (deaf) Logged([]byte, packet.Packet, []byte) {}

func (deaf) Lost(uint32) {}

func (deaf) Queued(uint32, packet.Packet) {}

func (deaf) Unreadable(uint32) {}

func (deaf) Failed(error) {}

// Without the privilege, run names it in one sentence.
func TestRunWithoutPrivilege(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	cmd := lab.Knockwall("run", "--config", l.WriteRules(unknown), "--control", filepath.Join(l.Folder, "control"))
	var out lab.Output
	cmd.Stderr = &out
	// A process in a new user namespace has no privileges in a network namespace that is
	// older.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}}
	lab.Must(t, lab.StartOn(l.Server, cmd))
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(out.String(), "CAP_NET_ADMIN") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("exit code %d, message %q", code, out.String())
	}
	if out := l.Nft("list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind: %s", out)
	}
}

// A broken rule file is a configuration error if no former rules are kept. A wall that is
// in force does not change.
func TestABrokenRuleFileLeavesTheWallAlone(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.SSHRules)
	d.Stop(syscall.SIGKILL)
	lab.Must(t, os.RemoveAll(d.Control+".rules"))
	before := l.Nft("list", "ruleset")
	d = l.Launch(`door "ssh" { ports = [99999] }`)
	d.WaitForExit()
	if code := d.Cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("the exit code is %d, want 2", code)
	}
	for _, w := range []string{"rules.hcl", "line 1", "99999", "No sequence"} {
		if !strings.Contains(d.Log.String(), w) {
			t.Errorf("%q is not in the message:\n%s", w, d.Log)
		}
	}
	if after := l.Nft("list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed to\n%s", after)
	}
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("a stranger gets in")
	}
}

// A socket that a killed daemon has left behind is replaced. A file that is no socket is
// not touched.
func TestTheControlSocketsPath(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	d := l.Run(lab.SSHRules)
	d.Stop(syscall.SIGKILL)
	if _, err := os.Stat(d.Control); err != nil {
		t.Fatalf("the killed daemon's socket is not there, so that this tests nothing: %v", err)
	}
	d = l.Run(lab.SSHRules)
	info, err := os.Stat(d.Control)
	lab.Must(t, err)
	if mode := info.Mode().Perm(); mode != 0o660 {
		t.Errorf("the socket's mode is %o, want 660", mode)
	}
	d.Stop(syscall.SIGTERM)
	if _, err := os.Stat(d.Control); err == nil {
		t.Error("the daemon has left its socket behind")
	}

	file := filepath.Join(l.Folder, "file")
	lab.Must(t, os.WriteFile(file, []byte("mine"), 0o600))
	fails(l, unknown, file, "is not a socket", "--control")
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// Garbage at the control socket, and silent connections, do not disturb clients at the door
// or at the socket.
func TestGarbageOnTheControlSocket(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.SSHRules)
	for n := range 300 {
		conn, err := net.Dial("unix", d.Control)
		lab.Must(t, err)
		defer conn.Close()
		switch n % 3 {
		case 1:
			fmt.Fprintf(conn, "GET /v1/status HTTP/1.1\r\nX: ")
		case 2:
			conn.Write([]byte{0, 1, 2, 0xff, '\r', '\n', '\r', '\n'})
		}
	}
	d.Status()
	l.Knock(lab.Client4, lab.Server4, lab.TCP(4113), lab.UDP(27911), lab.TCP(1840))
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("refused after the knocks")
	}
}

// When the terminal or the reader of its messages disappears, the daemon stops cleanly or
// goes on.
func TestTheTerminalGoes(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.RulesWith(`on_stop = "remove"`, "1s"))
	if err := d.Stop(syscall.SIGHUP); err != nil {
		t.Errorf("after SIGHUP the daemon ends with %v", err)
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("after SIGHUP the wall is still in force, although on_stop is remove")
	}

	reader := exec.Command("sh", "-c", `"$0" run --config "$1" --control "$2" 2>&1 | head -1`,
		lab.Knockwall().Path, l.WriteRules(lab.RulesWith("", "30s")), filepath.Join(l.Folder, "piped"))
	reader.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	lab.Must(t, lab.StartOn(l.Server, reader))
	t.Cleanup(func() {
		syscall.Kill(-reader.Process.Pid, syscall.SIGKILL)
		reader.Wait()
	})
	eventually.True(t, "the wall is in force again", func() bool { return !l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) })
	for n := range 3 {
		l.Knock(lab.Source(n+1, lab.Server4), lab.Server4, lab.Knocks...)
		eventually.True(t, "the daemon opens the door although nobody reads its messages", func() bool { return l.AdmitsAtOnce(lab.Source(n+1, lab.Server4), lab.Server4, 22) })
	}
}

// The daemon does not start beside another wall's table, even its own under a former
// name: both would queue to the same numbers.
func TestAWallOfAnotherNameIsNotBuiltOver(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	d := l.Run(lab.SSHRules)
	d.Stop(syscall.SIGTERM)
	before := l.Nft("list", "ruleset")
	fails(l, "wall { table = \"house\" }\n"+unknown, filepath.Join(l.Folder, "other"),
		"table inet knockwall", "nft delete table inet knockwall")
	if after := l.Nft("list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed to\n%s", after)
	}
}
