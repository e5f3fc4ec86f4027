package systemd

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
)

// restarted is how much the end of a window may differ after a restart: the kernel counts
// in ticks, and the time that it takes to put a window back may be added.
const restarted = 2 * lab.Tick

// systemd starts a daemon again that hangs or was killed, and the new daemon keeps the
// windows as they were.
func TestWatchdogUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.does("systemctl", "start", "knockwall.service")
	if got := m.property("WatchdogUSec"); got != "10s" {
		t.Errorf("the time of the watchdog is %q", got)
	}
	// Shorter than in the unit, and so is the test.
	m.configure("WatchdogSec=5s\nTimeoutAbortSec=1s")
	m.does("systemctl", "restart", "knockwall.service")
	fed := m.property("WatchdogTimestampMonotonic")
	m.eventually("the daemon feeds the watchdog", func() bool { return m.property("WatchdogTimestampMonotonic") != fed })
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		l.Enter(lab.Source(1, server), server)
	}
	windows := l.WindowEnds()
	if len(windows) != 2 {
		t.Fatalf("the windows are %v", windows)
	}
	for n, signal := range []string{"STOP", "KILL"} {
		pid := m.property("MainPID")
		cursor := m.cursor()
		m.does("systemctl", "kill", "--kill-whom=main", "--signal="+signal, "knockwall.service")
		m.eventually("after SIG"+signal+" another daemon runs", func() bool {
			now := m.property("MainPID")
			return now != pid && now != "0"
		})
		m.settled()
		if got, want := m.property("NRestarts"), fmt.Sprint(n+1); got != want {
			t.Errorf("after SIG%s systemd has started it again %s times, want %s", signal, got, want)
		}
		if signal == "STOP" && m.does("journalctl", "--after-cursor="+cursor, "--quiet", "--grep=Watchdog timeout") == "" {
			t.Error("the watchdog has not ended it")
		}
		if err := lab.SameWindows(windows, l.WindowEnds(), restarted); err != nil {
			t.Errorf("after SIG%s: %v", signal, err)
		}
		for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
			if err := l.OnFirstSYN(lab.Source(1, server), server); err != nil {
				t.Errorf("after SIG%s, a client with a window: %v", signal, err)
			}
		}
		checkStrangers(l, "after SIG"+signal, 100*(n+1))
		if got := m.property("StatusText"); got != "1 door guarded, 2 windows open" {
			t.Errorf("after SIG%s the status is %q", signal, got)
		}
	}
}

// Restarts and reloads by systemd cost a client with a window not a single SYN, and admit
// nobody else.
func TestRestartsWithOpenWindowsUnderSystemd(t *testing.T) {
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.does("systemctl", "start", "knockwall.service")
	kinds := []string{"a guest", "a session", "strangers"}
	var stops []func() int
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		guest := lab.Source(1, server)
		session := l.Enter(guest, server)
		stops = append(stops,
			l.Meanwhile(func() error {
				// Without a pause, sockets pile up on the server.
				time.Sleep(time.Millisecond)
				return l.OnFirstSYN(guest, server)
			}),
			l.Meanwhile(func() error { return lab.ExchangeAndPause(session) }),
			l.StrangersMeanwhile(server))
	}
	windows := l.WindowEnds()
	pid := m.property("MainPID")
	for n := range rounds() {
		m.does("systemctl", "restart", "knockwall.service")
		now := m.property("MainPID")
		if now == pid {
			t.Error("after the restart the same daemon runs")
		}
		pid = now
		m.does("systemctl", "reload", "knockwall.service")
		m.does("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "knockwall.service")
		m.settled()
		if err := lab.SameWindows(windows, l.WindowEnds(), restarted); err != nil {
			t.Errorf("after restart %d: %v", n+1, err)
		}
	}
	for i, stop := range stops {
		tries := stop()
		t.Logf("meanwhile %d tries of %s", tries, kinds[i%len(kinds)])
		if tries == 0 {
			t.Error("without traffic this proves nothing")
		}
	}
	if now := m.property("MainPID"); now != pid || m.property("NRestarts") != "0" {
		t.Error("a reload has ended the daemon")
	}
}
