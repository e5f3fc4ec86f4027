package systemd

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// ruleFile is the rule file of a machine.
const ruleFile = "/etc/knockwall.d/rules.hcl"

// rounds returns how often to repeat a test that could succeed by chance.
func rounds() int {
	if testing.Short() {
		return 1
	}
	return 3
}

// newPackaged boots a machine with the package and a rule file. The service is not started.
// A program answers on port 22.
func newPackaged(l *lab.Lab, rules string) *machine {
	l.T.Helper()
	l.ServeTCP(22)
	m := newMachine(l)
	packaged(l.T, m.outside(""))
	m.does("sh", "-ec", `
		systemd-sysusers /usr/lib/sysusers.d/knockwall.conf
		systemd-tmpfiles --create /usr/lib/tmpfiles.d/knockwall.conf
		install --directory --owner=root --group=knockwall --mode=0750 /etc/knockwall.d
		systemctl daemon-reload`)
	m.rules(rules)
	return m
}

// rules writes the machine's rule file.
func (m *machine) rules(text string) {
	m.t.Helper()
	m.write(ruleFile, text, 0o644)
}

// configure adds lines to the unit of the service.
func (m *machine) configure(service string) {
	m.t.Helper()
	m.write(machineUnits+"knockwall.service.d/test.conf", "[Service]\n"+service+"\n", 0o644)
	m.does("systemctl", "daemon-reload")
}

// property returns a property of the service.
func (m *machine) property(name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.does("systemctl", "show", "--value", "--property", name, "knockwall.service"))
}

// states returns the states of the socket and of the service. It is no error if they are
// not active.
func (m *machine) states() string {
	m.t.Helper()
	states, _ := m.tell("systemctl", "is-active", "knockwall.socket", "knockwall.service")
	return strings.Join(strings.Fields(states), " ")
}

// addUsers adds a user in the daemon's group, and a user who is not in it.
func (m *machine) addUsers() {
	m.t.Helper()
	m.does("systemd-sysusers", "--inline", "u member - -", "m member knockwall", "u other - -")
}

// tellAs is tell as another user than root.
func (m *machine) tellAs(user, name string, args ...string) (string, error) {
	m.t.Helper()
	return m.tell("setpriv", append([]string{"--reuid=" + user, "--regid=" + user, "--init-groups", name}, args...)...)
}

// checkGuards fails the test if a stranger, the n-th client, gets in, or if the next client
// knocks and does not get in.
func checkGuards(l *lab.Lab, when string, n int) {
	l.T.Helper()
	checkStrangers(l, when, n)
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		l.Enter(lab.Source(n+1, server), server)
	}
	checkStrangers(l, when+", while a guest is in", n)
}

// checkStrangers fails the test if a stranger, the n-th client, gets in.
func checkStrangers(l *lab.Lab, when string, n int) {
	l.T.Helper()
	var all sync.WaitGroup
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		all.Go(func() {
			if l.AdmitsAtOnce(lab.Source(n, server), server, 22) {
				l.T.Errorf("%s, a stranger gets in to %s", when, server)
			}
		})
	}
	all.Wait()
}

// Under a real systemd, with the package's units and user, the wall is in force when the
// service has started, and admits clients that knock.
func TestUnitsUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Fatal("strangers are refused although there is no wall yet")
	}
	m.does("systemctl", "start", "knockwall.service")
	checkGuards(l, "when it is started", 1)
	if states := m.states(); states != "active active" {
		t.Errorf("the socket and the service are %s", states)
	}
}

// If only the socket is active, a request starts the daemon, if the user may make it.
func TestColdSocketUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.addUsers()
	m.does("systemctl", "start", "knockwall.socket")
	socket := m.does("stat", "--format=%U:%G %a", "/run/knockwall/control.sock")
	if want := "knockwall:knockwall 660\n"; socket != want {
		t.Errorf("the control socket is %q, want %q", socket, want)
	}
	const cold = "active inactive"
	_, err := m.tellAs("other", "knockwall", "status")
	if err == nil || !strings.Contains(err.Error(), "is not yours to use: try it with sudo, or join its group and log in again: sudo usermod -aG knockwall other") {
		t.Errorf("a user outside the group gets the error: %v", err)
	}
	if states := m.states(); states != cold || !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Errorf("a user without permission has changed something: the socket and the service are %s", states)
	}
	for i, user := range []string{"member", "root"} {
		m.does("systemctl", "stop", "knockwall.service")
		if states := m.states(); states != cold {
			t.Fatalf("before the request of %s, the socket and the service are %s", user, states)
		}
		out, err := m.tellAs(user, "knockwall", "status")
		if err != nil || !strings.HasPrefix(out, "The daemon has run the wall (table inet knockwall) since") {
			t.Errorf("%s gets the answer %q: %v", user, out, err)
		}
		if states := m.states(); states != "active active" {
			t.Errorf("after the request of %s, the socket and the service are %s", user, states)
		}
		checkGuards(l, fmt.Sprintf("after the request of %s", user), 10*i+1)
	}
}

// down takes the wall down for good: no request brings it back.
func TestDownUnderSystemd(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "nft")
	lab.NeedsProgram(t, "curl")
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.addUsers()
	bare := func(when string) {
		t.Helper()
		if tables := l.Nft("list", "tables"); strings.TrimSpace(tables) != "" || !l.Admits(lab.Client4, lab.Server4, 22) {
			t.Errorf("%s, the wall is not down: %s", when, tables)
		}
	}
	down := func(when string, words ...string) {
		t.Helper()
		out := m.does("knockwall", "down")
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("%s, down does not say %q: %s", when, w, out)
			}
		}
		bare(when)
		if out, err := m.tell("knockwall", "status"); err == nil || !strings.Contains(err.Error(), "no knockwall listens") ||
			!strings.Contains(err.Error(), "start it with `sudo systemctl start knockwall`") {
			t.Errorf("%s, after down, status says %q: %v", when, out, err)
		}
		if states := m.states(); strings.Contains(strings.ReplaceAll(states, "inactive", ""), "active") {
			t.Errorf("%s, after down, the socket and the service are %s", when, states)
		}
		bare(when + ", after a request")
	}
	start := func() {
		t.Helper()
		m.does("systemctl", "start", "knockwall.service")
		if l.AdmitsAtOnce(lab.Source(1, lab.Server4), lab.Server4, 22) {
			t.Error("after the start, strangers get in")
		}
	}

	start()
	down("with a daemon", "The wall is down, and the daemon has ended", "knockwall.socket is stopped too")

	start()
	m.does("systemctl", "stop", "knockwall.service")
	if l.AdmitsAtOnce(lab.Source(1, lab.Server4), lab.Server4, 22) {
		t.Error("after the service was stopped, strangers get in")
	}
	cursor := m.cursor()
	down("with no daemon", "is removed. No daemon used it", "knockwall.socket is stopped too")
	if entries := m.does("journalctl", "--after-cursor="+cursor, "--quiet", "--unit=knockwall.service"); entries != "" {
		t.Errorf("down has started a daemon: %s", entries)
	}

	start()
	out, err := m.tellAs("member", "knockwall", "down")
	if err != nil || !strings.Contains(out, "sudo systemctl stop knockwall.socket") {
		t.Errorf("a user in the group runs down and gets %q: %v", out, err)
	}
	bare("after a user in the group has run down")
	m.eventually("the service has ended, but the socket is active", func() bool { return m.states() == "active inactive" })

	// Other programs go on making requests, and systemctl is slow.
	m.write("/usr/local/bin/systemctl", "#!/bin/sh\nsleep 0.2\nexec /usr/bin/systemctl \"$@\"\n", 0o755)
	m.does("systemd-run", "--quiet", "--unit=asks", "sh", "-c",
		"while :; do curl --silent --max-time 1 --unix-socket /run/knockwall/control.sock http://knockwall/v1/status >/run/asked; done")
	start()
	m.eventually("other programs make requests", func() bool { return m.does("cat", "/run/asked") != "" })
	down("while other programs make requests", "The wall is down")
	m.does("systemctl", "stop", "asks.service")

	// If there is another wall without a daemon, the daemon does not take it down. down
	// without a daemon does.
	m.write("/root/second.hcl", "wall {\n  table = \"second\"\n  nflog_group = 7200\n  queue = 7200\n}\n"+telnetDoor, 0o644)
	m.does("sh", "-ec", `knockwall run --config /root/second.hcl --control /run/second.sock 2>&1 &
		until nft list table inet second >/run/second; do kill -0 $!; sleep 0.1; done
		kill $!
		wait $!`)
	start()
	if out := m.does("knockwall", "down"); strings.Contains(out, "second") {
		t.Errorf("beside another wall, down says %q", out)
	}
	if tables := l.Nft("list", "tables"); tables != "table inet second\n" {
		t.Errorf("after down beside another wall, the tables are %q", tables)
	}
	down("with another wall that was left behind", "The table inet second is removed. No daemon used it")

	// A wall without doors has no queues that show whether a daemon uses it.
	m.rules("")
	m.does("systemctl", "start", "knockwall.service")
	down("without doors", "The wall is down, and the daemon has ended")
}

// Rules on trial end with the daemon: the next daemon uses the former rules.
func TestTrialAndRestartUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(23)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.does("systemctl", "start", "knockwall.service")
	m.rules(lab.RulesWith("", "10m") + telnetDoor)
	m.does("knockwall", "reload", "--confirm", "1m")
	if l.AdmitsAtOnce(lab.Source(1, lab.Server4), lab.Server4, 23) {
		t.Error("the rules on trial are not in force")
	}
	m.does("systemctl", "restart", "knockwall.service")
	if !l.Admits(lab.Source(1, lab.Server4), lab.Server4, 23) {
		t.Error("after a restart, the rules that nobody has confirmed are in force")
	}
	checkGuards(l, "after a restart in a trial", 1)
	if out := m.does("journalctl", "--unit=knockwall", "--priority=warning", "--output=cat"); !strings.Contains(out, "were on trial and not confirmed") {
		t.Errorf("the journal does not warn of that: %s", out)
	}
	m.does("systemctl", "reload", "knockwall.service")
	if l.AdmitsAtOnce(lab.Source(1, lab.Server4), lab.Server4, 23) {
		t.Error("after a reload, the new rules are not in force")
	}
}

const telnetDoor = `
door "telnet" {
  ports    = [23]
  sequence = [5227, 911, 30411]
}`

// settled waits until the service is active. While it starts or reloads, it is not.
func (m *machine) settled() {
	m.t.Helper()
	m.eventually("the service is active and running", func() bool {
		return m.property("ActiveState") == "active" && m.property("SubState") == "running"
	})
}
