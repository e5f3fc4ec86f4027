package integration

import (
	"net/netip"
	"testing"
	"time"
)

// Under a real systemd, with the units and the user that the package has, the
// wall stands when the service is started, and opens to those who knock.
func TestUnitsUnderSystemd(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	began := time.Now()
	m := l.newMachine()
	t.Logf("the machine booted in %s", time.Since(began))
	m.install()
	l.serve(22)
	if !l.letsIn(client4, server4, 22) {
		t.Fatal("strangers are refused before there is a wall")
	}
	m.write("/etc/knockwall.d/ssh.hcl", survivalRules("", "10m"), 0o644)
	m.does("systemctl", "start", "knockwall.service")
	for _, server := range []netip.Addr{server4, server6} {
		if l.admits(nth(1, server), server, 22) {
			t.Errorf("%s: a stranger gets in", server)
		}
		l.enter(nth(2, server), server)
		if l.admits(nth(1, server), server, 22) {
			t.Errorf("%s: a stranger gets in after a guest", server)
		}
	}
	if state := m.does("systemctl", "is-active", "knockwall.service"); state != "active\n" {
		t.Errorf("the service is %q", state)
	}
}
