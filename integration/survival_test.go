package integration

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

var survivalKnocks = []packet.Port{tcp(4113), udp(27911), tcp(1840)}

func survivalRules(wall, window string) string {
	return `wall { ` + wall + ` }
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "` + window + `"
}`
}

// enter knocks and connects.
func (l *lab) enter(from, to netip.Addr) net.Conn {
	l.t.Helper()
	l.knock(from, to, survivalKnocks...)
	conn, err := l.dial(from, to, 22, deadline)
	must(l.t, err)
	l.t.Cleanup(func() { conn.Close() })
	must(l.t, talks(conn))
	return conn
}

// An established session goes on whatever becomes of the window and the daemon,
// strangers are refused at every moment, and an open window admits to its end by
// the kernel's own hand.
func TestSessionsSurvive(t *testing.T) {
	t.Parallel()
	for _, family := range []struct {
		name   string
		server netip.Addr
	}{{"IPv4", server4}, {"IPv6", server6}} {
		t.Run(family.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.serve(22)
			stranger, guest := nth(1, family.server), nth(2, family.server)
			d := l.run(survivalRules("", "1s"))
			session := l.enter(guest, family.server)

			check := func(when string, admitted bool) {
				t.Helper()
				if err := talks(session); err != nil {
					t.Fatalf("%s the session is dead: %v", when, err)
				}
				if l.admits(stranger, family.server, 22) {
					t.Fatalf("%s a stranger gets in", when)
				}
				if got := l.admitted(admitted, guest, family.server, 22); got != admitted {
					t.Fatalf("%s the guest's new connection is admitted: %v, want %v", when, got, admitted)
				}
			}
			d.waitForEnd()
			check("after the window's end", false)

			d.end(syscall.SIGTERM)
			check("after the daemon has stopped", false)
			d = l.run(survivalRules("", "8s"))
			check("after the daemon has started again", false)

			opened := time.Now() // not before
			l.knock(guest, family.server, survivalKnocks...)
			d.waitFor("opened", guest.String())
			d.end(syscall.SIGKILL)
			check("with the daemon killed and the window open", true)
			d = l.run(survivalRules("", "8s"))
			d.waitFor("windows open: 1")
			check("with the daemon restarted and the window open", true)
			if left := d.status().Windows[0].LeftSeconds; left > (8*time.Second-time.Since(opened)).Seconds()+0.5 {
				t.Errorf("the window has %.1f s left, %s after it was opened for 8 s", left, time.Since(opened))
			}
			d.end(syscall.SIGKILL)
			eventually(t, "the kernel ends the window", func() bool { return len(l.kernelWindows()) == 0 })
			// The kernel counts in its ticks, and what it is asked for in milliseconds.
			if over := time.Since(opened) - 8*time.Second; over < -100*time.Millisecond {
				t.Errorf("the window ended %s before its time", -over)
			}
			check("with the daemon killed and the window over", false)
		})
	}
}

// Whoever puts up a wall over an ssh session keeps that session, though the
// kernel did not follow connections before: the first segment after comes from
// the client, which is what conntrack cannot make out by itself.
func TestASessionFromBeforeTheWallGoesOn(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{server4, server6} {
		l := newLab(t)
		l.serve(22)
		session, err := l.dial(nth(1, server), server, 22, deadline)
		must(t, err)
		defer session.Close()
		must(t, talks(session))
		l.run(survivalRules("", "1s"))
		if err := talks(session); err != nil {
			t.Errorf("%s: the session is dead: %v", server, err)
		}
		if l.admits(nth(1, server), server, 22) {
			t.Errorf("%s: its client gets in again without knocking", server)
		}
	}
}

// on_stop = "remove" takes the wall down with the daemon, if it is asked to
// stop; when it is killed the wall stands.
func TestOnStop(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	d := l.run(survivalRules(`on_stop = "remove"`, "1s"))
	d.end(syscall.SIGKILL)
	if l.admits(client4, server4, 22) {
		t.Error("the daemon was killed, and a stranger gets in")
	}
	d = l.run(survivalRules(`on_stop = "remove"`, "1s"))
	if err := d.end(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon ends with %v", err)
	}
	if !l.letsIn(client4, server4, 22) {
		t.Error("the wall was to go with the daemon, and stands")
	}
	if out := l.nft("list", "tables"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind: %s", out)
	}
}

// on_failure = "open" lets strangers in while no daemon runs, and only then.
func TestOnFailureOpen(t *testing.T) {
	t.Parallel()
	for _, closed := range []string{"drop", "reject"} {
		l := newLab(t)
		l.serve(22)
		d := l.run(`door "ssh" {
  ports      = [22]
  sequence   = [4113, "27911/udp", 1840]
  on_failure = "open"
  closed     = "` + closed + `"
}`)
		if l.admits(client4, server4, 22) {
			t.Errorf("%s: a stranger gets in while the daemon runs", closed)
		}
		d.end(syscall.SIGKILL)
		if !l.letsIn(client4, server4, 22) {
			t.Errorf("%s: a stranger is refused while no daemon runs", closed)
		}
	}
}

// Trusted sources need not knock, be the daemon alive or dead.
func TestTrusted(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.serve(23)
	d := l.run(`wall { trusted = ["10.1.0.1", "2001:db8:1::1"] }
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
		for _, to := range []netip.Addr{server4, server6} {
			for n, want := range map[int][2]bool{1: {true, true}, 2: {true, false}, 3: {false, false}} {
				if got := [2]bool{l.admitted(want[0], nth(n, to), to, 22), l.admitted(want[1], nth(n, to), to, 23)}; got != want {
					t.Errorf("daemon alive %v: %s is admitted to ssh and telnet: %v, want %v", alive, nth(n, to), got, want)
				}
			}
		}
		if alive {
			d.end(syscall.SIGKILL)
		}
	}
}
