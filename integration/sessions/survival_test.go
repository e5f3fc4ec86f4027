package sessions

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// An established session goes on, whatever happens to its window and to the daemon.
// Strangers are refused at every moment. The kernel admits clients with an open window even
// without a daemon.
func TestSessionsSurvive(t *testing.T) {
	t.Parallel()
	for _, family := range []struct {
		name   string
		server netip.Addr
	}{{"IPv4", lab.Server4}, {"IPv6", lab.Server6}} {
		t.Run(family.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			stranger, guest := lab.Source(1, family.server), lab.Source(2, family.server)
			d := l.Run(lab.RulesWith("", "1s"))
			session := l.Enter(guest, family.server)

			check := func(when string, admitted bool) {
				t.Helper()
				if err := lab.Exchange(session); err != nil {
					t.Fatalf("%s, the session is dead: %v", when, err)
				}
				if l.AdmitsAtOnce(stranger, family.server, 22) {
					t.Fatalf("%s, a stranger gets in", when)
				}
				if got := l.Admitted(admitted, guest, family.server, 22); got != admitted {
					t.Fatalf("%s, the guest's new connection is admitted: %v, want %v", when, got, admitted)
				}
			}
			d.WaitForExpiry()
			check("after the window's end", false)

			d.Stop(syscall.SIGTERM)
			check("after the daemon has stopped", false)
			d = l.Run(lab.RulesWith("", "8s"))
			check("after the daemon has started again", false)

			opened := time.Now() // the earliest time
			l.Knock(guest, family.server, lab.Knocks...)
			d.WaitFor("opened", guest.String())
			d.Stop(syscall.SIGKILL)
			check("with the daemon killed and the window open", true)
			d = l.Run(lab.RulesWith("", "8s"))
			d.WaitFor("windows open: 1")
			check("with the daemon restarted and the window open", true)
			if left := d.Status().Windows[0].LeftSeconds; left > (8*time.Second-time.Since(opened)).Seconds()+0.5 {
				t.Errorf("the window has %.1f s left, %s after it was opened for 8 s", left, time.Since(opened))
			}
			d.Stop(syscall.SIGKILL)
			eventually.True(t, "the kernel ends the window", func() bool { return len(l.KernelWindows()) == 0 })
			// The kernel counts in ticks. The daemon asks it in milliseconds.
			if over := time.Since(opened) - 8*time.Second; over < -100*time.Millisecond {
				t.Errorf("the window ended %s before its time", -over)
			}
			check("with the daemon killed and the window over", false)
		})
	}
}

// An ssh session from before the wall goes on, although the kernel did not track
// connections then: the next segment comes from the client, and conntrack alone cannot
// assign it.
func TestASessionFromBeforeTheWallGoesOn(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		l := lab.New(t)
		l.ServeTCP(22)
		session, err := l.Dial(lab.Source(1, server), server, 22, lab.Deadline)
		lab.Must(t, err)
		defer session.Close()
		lab.Must(t, lab.Exchange(session))
		l.Run(lab.RulesWith("", "1s"))
		if err := lab.Exchange(session); err != nil {
			t.Errorf("%s: the session is dead: %v", server, err)
		}
		if l.AdmitsAtOnce(lab.Source(1, server), server, 22) {
			t.Errorf("%s: its client gets in again without knocking", server)
		}
	}
}

// With on_stop = "remove" the wall goes when the daemon is stopped. When the daemon is
// killed, the wall stays.
func TestOnStop(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.RulesWith(`on_stop = "remove"`, "1s"))
	d.Stop(syscall.SIGKILL)
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("after the daemon was killed, a stranger gets in")
	}
	d = l.Run(lab.RulesWith(`on_stop = "remove"`, "1s"))
	if err := d.Stop(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon ends with %v", err)
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the wall is in force after the daemon has stopped")
	}
	if out := l.Nft("list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind: %s", out)
	}
}

// With on_failure = "open" strangers get in while no daemon runs, and only then.
func TestOnFailureOpen(t *testing.T) {
	t.Parallel()
	for _, closed := range []string{"drop", "reject"} {
		l := lab.New(t)
		l.ServeTCP(22)
		d := l.Run(`door "ssh" {
  ports      = [22]
  sequence   = [4113, "27911/udp", 1840]
  on_failure = "open"
  closed     = "` + closed + `"
}`)
		if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
			t.Errorf("%s: a stranger gets in while the daemon runs", closed)
		}
		d.Stop(syscall.SIGKILL)
		if !l.Admits(lab.Client4, lab.Server4, 22) {
			t.Errorf("%s: a stranger is refused while no daemon runs", closed)
		}
	}
}

// Trusted sources need not knock, with a daemon or without.
func TestTrusted(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeTCP(23)
	d := l.Run(`wall { trusted = ["10.1.0.1", "2001:db8:1::1"] }
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  trusted  = ["10.1.0.2", "2001:db8:1::2/128"]
}
door "telnet" {
  ports    = [23]
  sequence = [4113, 1840, 27911]
}`)
	for _, alive := range []bool{true, false} {
		for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
			for n, want := range map[int][2]bool{1: {true, true}, 2: {true, false}, 3: {false, false}} {
				if got := [2]bool{l.Admitted(want[0], lab.Source(n, to), to, 22), l.Admitted(want[1], lab.Source(n, to), to, 23)}; got != want {
					t.Errorf("daemon alive %v: %s is admitted to ssh and telnet: %v, want %v", alive, lab.Source(n, to), got, want)
				}
			}
		}
		if alive {
			d.Stop(syscall.SIGKILL)
		}
	}
}
