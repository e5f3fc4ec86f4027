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
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
)

// fails starts a daemon that must end by itself, with code 1 and one sentence
// on stderr that has all of the words.
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

// A second daemon is told so, whatever it shares with the first, and the first
// minds its doors as if nothing had been.
func TestASecondDaemonChangesNothing(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.SSHRules)
	before := l.Nft("list", "ruleset")
	fails(l, lab.SSHRules, d.Control, "is running already", d.Control)
	fails(l, lab.SSHRules, filepath.Join(l.Folder, "other"), "is in use", "7100", "nflog_group")
	fails(l, `wall { nflog_group = 7200 }`+"\n"+lab.SSHRules, filepath.Join(l.Folder, "other"), "queue 7100 is in use")
	if after := l.Nft("list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed from\n%s\nto\n%s", before, after)
	}
	l.Knock(lab.Client4, lab.Server4, lab.TCP(4113), lab.UDP(27911), lab.TCP(1840))
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the first daemon does not open any more")
	}
}

// Another program's group or queue is named, and nothing is changed.
func TestAGroupOrQueueOfAnotherProgram(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	var group *nflog.Log
	lab.Must(t, l.Server.Do(func() (err error) {
		group, err = nflog.Listen(7101, deaf{})
		return err
	}))
	control := filepath.Join(l.Folder, "control")
	fails(l, lab.SSHRules, control, "NFLOG group 7101 is in use", "nflog_group")
	group.Close()

	var queue *nfqueue.Queue
	lab.Must(t, l.Server.Do(func() (err error) {
		queue, err = nfqueue.Listen(nfqueue.Config{Number: 7103}, deaf{})
		return err
	}))
	fails(l, lab.SSHRules, control, "queue 7103 is in use", "queue in the rule files")
	queue.Close()
	if out := l.Nft("list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind: %s", out)
	}
	l.Run(lab.SSHRules) // nobody has them any more
}

// deaf hears nothing.
type deaf struct{}

func (deaf) Logged([]byte, packet.Packet, []byte) {}

func (deaf) Lost(uint32) {}

func (deaf) Queued(uint32, packet.Packet) {}

func (deaf) Unreadable(uint32) {}

func (deaf) Failed(error) {}

// Without the privilege, run says what it needs, in one sentence.
func TestRunWithoutPrivilege(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	cmd := lab.Knockwall("run", "--config", l.WriteRules(lab.SSHRules), "--control", filepath.Join(l.Folder, "control"))
	var out lab.Output
	cmd.Stderr = &out
	// A user namespace of one's own has no say over the network namespace.
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

// A broken rule file is an error of configuration where no rules are kept that were in
// force, and a wall that stands stays as it is.
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

// A socket that a killed daemon has left is no hindrance; a file that is no
// socket is not touched.
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
	fails(l, lab.SSHRules, file, "is not a socket", "--control")
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// Garbage on the control socket, and connections that say nothing, do not keep
// anybody from getting in or from asking.
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
		t.Error("after SIGHUP the wall stands, and was to go with the daemon")
	}

	reader := exec.Command("sh", "-c", `"$0" run --config "$1" --control "$2" 2>&1 | head -1`,
		lab.Knockwall().Path, l.WriteRules(lab.RulesWith("", "30s")), filepath.Join(l.Folder, "piped"))
	reader.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	lab.Must(t, lab.StartOn(l.Server, reader))
	t.Cleanup(func() {
		syscall.Kill(-reader.Process.Pid, syscall.SIGKILL)
		reader.Wait()
	})
	lab.Eventually(t, "the wall stands again", func() bool { return !l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) })
	for n := range 3 {
		l.Knock(lab.Source(n+1, lab.Server4), lab.Server4, lab.Knocks...)
		lab.Eventually(t, "with nobody to read its messages, the daemon opens", func() bool { return l.AdmitsAtOnce(lab.Source(n+1, lab.Server4), lab.Server4, 22) })
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
	fails(l, "wall { table = \"house\" }\n"+lab.SSHRules, filepath.Join(l.Folder, "other"),
		"table inet knockwall", "nft delete table inet knockwall")
	if after := l.Nft("list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed to\n%s", after)
	}
}
