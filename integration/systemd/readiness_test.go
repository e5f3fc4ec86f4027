package systemd

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// When systemctl start returns, the wall is in force. Units that systemd starts afterwards
// find it in force.
func TestReadinessUnderSystemd(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "nft")
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	for range rounds() {
		// One shell does both, because entering the machine twice takes longer than the
		// start.
		out, err := m.tell("sh", "-c", "systemctl start knockwall.service; nft list tables")
		if err != nil || out != "table inet knockwall\n" {
			t.Fatalf("right after the start, the tables are %q: %v", out, err)
		}
		if l.AdmitsAtOnce(lab.Source(1, lab.Server4), lab.Server4, 22) {
			t.Fatal("right after the start, a stranger gets in")
		}
		m.does("knockwall", "down")
	}

	m.does("systemctl", "start", "knockwall.service")
	says := func(want string) {
		t.Helper()
		var got string
		defer func() {
			if t.Failed() {
				t.Logf("the status is %q", got)
			}
		}()
		m.eventually("the status is "+want, func() bool { got = m.property("StatusText"); return got == want })
	}
	says("1 door guarded, no windows open")
	m.does("knockwall", "open", "ssh", "198.51.100.7", "--window", "1h")
	m.does("knockwall", "open", "ssh", "2001:db8:7::7", "--window", "1h")
	says("1 door guarded, 2 windows open")
	m.does("knockwall", "close", "ssh", "198.51.100.7")
	says("1 door guarded, 1 window open")
	m.does("knockwall", "close", "ssh", "2001:db8:7::7")
	says("1 door guarded, no windows open")
	// A busy machine may not see this one while it is open.
	m.does("knockwall", "open", "ssh", "198.51.100.7", "--window", "100ms")
	m.eventually("the window has expired", func() bool {
		return len(m.entries("KNOCKWALL_SOURCE=198.51.100.7", "KNOCKWALL_EVENT=expired")) == 1
	})
	says("1 door guarded, no windows open")
	m.rules(lab.RulesWith("", "10m") + telnetDoor)
	m.does("systemctl", "reload", "knockwall.service")
	says("2 doors guarded, no windows open")
}

const brokenRules = "# one line\ndoor \"ssh\" {\n  ports    = [99999]\n  sequence = [4113, 27911, 1840]\n}\n"

// diagnosed reports whether the errors in the journal since the cursor say what is wrong
// with brokenRules, and where. The journal reads the name of a process (_COMM) only later,
// when the daemon may have ended. The identifier comes with the message.
func (m *machine) diagnosed(cursor string) bool {
	m.t.Helper()
	lines := strings.Split(m.synced("--unit=knockwall", "--after-cursor="+cursor, "--output=cat", "PRIORITY=3", "SYSLOG_IDENTIFIER=knockwall"), "\n")
	at := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, "on "+ruleFile+" line 3") })
	return at >= 0 && slices.ContainsFunc(lines[at:], func(line string) bool {
		return strings.TrimLeft(line, " ") == "^^^^^"
	})
}

// cursor returns the cursor of the journal's end.
func (m *machine) cursor() string {
	m.t.Helper()
	_, cursor, ok := strings.Cut(m.synced("--lines=1", "--show-cursor"), "-- cursor: ")
	if !ok {
		m.t.Fatal("the journal is empty")
	}
	return strings.TrimSpace(cursor)
}

// With wrong rule files the start fails and says why. systemd tries again until the files
// are correct, however long that takes.
func TestStartWithBrokenRulesUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, brokenRules)
	if got := m.property("RestartUSec"); got != "2s" {
		t.Errorf("systemd starts it again after %s, want 2s", got)
	}
	m.configure("RestartSec=20ms")
	cursor := m.cursor()
	if _, err := m.tell("systemctl", "start", "knockwall.service"); err == nil {
		t.Error("the start with broken rules succeeds")
	}
	if !m.diagnosed(cursor) {
		t.Error("the errors in the journal do not say what is wrong")
	}
	m.eventually("systemd has started it more often than its default limit allows", func() bool {
		n, err := strconv.Atoi(m.property("NRestarts"))
		return err == nil && n > 10
	})
	m.rules(lab.RulesWith("", "10m"))
	m.settled()
	checkGuards(l, "when the rules are correct again", 1)
}

// A reload that succeeds puts the new rules in force. A reload that fails says why and
// changes nothing. Both are true for systemctl and for a signal.
func TestReloadUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(23)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.does("systemctl", "start", "knockwall.service")
	pid := m.property("MainPID")
	telnet := func(want bool, when string) {
		t.Helper()
		if got := l.Admitted(want, lab.Source(1, lab.Server6), lab.Server6, 23); got != want {
			t.Errorf("%s, strangers get in at the other port: %v", when, got)
		}
	}
	telnet(true, "before")
	both := lab.RulesWith("", "10m") + telnetDoor

	m.rules(both)
	m.does("systemctl", "reload", "knockwall.service")
	telnet(false, "after a reload")
	m.settled()
	l.Knock(lab.Source(2, lab.Server6), lab.Server6, lab.TCP(5227), lab.TCP(911), lab.TCP(30411))
	if !l.Admits(lab.Source(2, lab.Server6), lab.Server6, 23) {
		t.Error("a client that knocks at the new door does not get in")
	}

	m.rules(brokenRules)
	cursor := m.cursor()
	if _, err := m.tell("systemctl", "reload", "knockwall.service"); err == nil {
		t.Error("the reload of broken rules succeeds")
	}
	if got := m.property("ExecReload"); !strings.Contains(got, "status=2 ") {
		t.Errorf("the exit code of the reload is not that for wrong files: %s", got)
	}
	if !m.diagnosed(cursor) {
		t.Error("the errors in the journal do not say why the reload failed")
	}
	m.settled()
	telnet(false, "after a reload that failed")

	cursor = m.cursor()
	m.does("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "knockwall.service")
	m.eventually("the journal says why the signal changed nothing", func() bool { return m.diagnosed(cursor) })
	m.settled()
	telnet(false, "after a signal that failed")

	m.rules(lab.RulesWith("", "10m"))
	m.does("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "knockwall.service")
	m.eventually("the signal puts the new rules in force", func() bool { return m.property("StatusText") == "1 door guarded, no windows open" })
	telnet(true, "after a signal")
	m.settled()
	checkGuards(l, "after all that", 10)
	if now := m.property("MainPID"); now != pid || m.property("NRestarts") != "0" {
		t.Error("another daemon runs now")
	}
}

// If systemd has no socket for the daemon, the daemon makes its own.
func TestWithoutSocketUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.does("systemctl", "mask", "knockwall.socket")
	m.does("systemctl", "start", "knockwall.service")
	checkGuards(l, "without a socket unit", 1)
	if socket, want := m.does("stat", "--format=%U:%G %a", "/run/knockwall/control.sock"), "knockwall:knockwall 660\n"; socket != want {
		t.Errorf("the control socket is %q, want %q", socket, want)
	}
	m.does("knockwall", "status")
}

// A machine with unreadable rule files boots with the last rules in force, and reports
// that.
func TestBootWithUnreadableRulesUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.does("systemctl", "start", "knockwall.service")
	m.does("knockwall", "down")
	cursor := m.cursor()
	m.does("chmod", "600", ruleFile)
	m.does("chown", "root:root", ruleFile)
	m.does("systemctl", "start", "knockwall.service")
	checkGuards(l, "with rule files that the daemon cannot read", 1)
	if out := m.does("knockwall", "status"); !strings.Contains(out, "degraded: ") || !strings.Contains(out, "permission denied") {
		t.Errorf("the status is %s", out)
	}
	if out := m.does("journalctl", "--unit=knockwall", "--after-cursor="+cursor, "--priority=err", "--output=cat"); !strings.Contains(out, "the last rules that were in force are in force") {
		t.Errorf("the journal's errors are %s", out)
	}
	m.does("chmod", "644", ruleFile)
	m.eventually("the daemon notices that it can read the files", func() bool {
		return !strings.Contains(m.does("knockwall", "status"), "degraded: ")
	})
}
