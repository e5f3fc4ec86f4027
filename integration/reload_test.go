package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/control"
)

// reloadRules are rule files that differ in all that a reload may change, and
// have the same door for ssh.
var reloadRules = []string{`
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "10m"
}
`, `
wall {
  hold        = "250ms"
  max_sources = 1000
  trusted     = ["198.51.100.0/24"]
}
door "web" {
  ports    = [443]
  sequence = [1840, 4113]
}
door "ssh" {
  ports    = [22, 2222]
  sequence = [4113, "27911/udp", 1840]
  window   = "11m"
}
`, `
wall {
  nflog_group = 7200
  queue       = 7200
}
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "10m"
  closed   = "drop"
}
door "vpn" {
  ports    = ["51820/udp"]
  sequence = ["27911/udp", 9]
}
`}

// traffic is a guest with a window, who connects again and again, new guests who
// knock and connect, strangers, and a session, all at once.
type traffic struct {
	lab       *lab
	server    netip.Addr
	stop      chan struct{}
	end       func()
	all       sync.WaitGroup
	guests    atomic.Int64 // connections of the guest
	newcomers atomic.Int64
	strangers atomic.Int64
	changing  sync.Mutex // held while a newcomer changes the wall by knocking
}

// start lets everybody come until stopped; newcomers only where asked for.
func (l *lab) startTraffic(server netip.Addr, newcomers bool) *traffic {
	l.t.Helper()
	w := &traffic{lab: l, server: server, stop: make(chan struct{})}
	w.end = sync.OnceFunc(func() {
		close(w.stop)
		w.all.Wait()
	})
	guest, stranger := nth(1, server), nth(2, server)
	session := l.enter(guest, server)
	l.t.Cleanup(w.end)
	w.keep(&w.guests, func() error { return l.onFirstSYN(guest, server) })
	w.keep(new(atomic.Int64), func() error { return talks(session) })
	w.keep(&w.strangers, func() error {
		if l.admits(stranger, server, 22) {
			return fmt.Errorf("a stranger gets in")
		}
		return nil
	})
	if newcomers {
		w.keep(&w.newcomers, func() error {
			w.changing.Lock()
			defer w.changing.Unlock()
			return l.onFirstSYN(nth(100+int(w.newcomers.Load()), server), server, survivalKnocks...)
		})
	}
	return w
}

func (w *traffic) keep(n *atomic.Int64, try func() error) {
	w.all.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			if err := try(); err != nil {
				w.lab.t.Errorf("at %s: %v", time.Now().Format("15:04:05.000"), err)
				return
			}
			n.Add(1)
		}
	})
}

// listed is the wall as nft lists it, which takes for ever where it changes all the time.
func (w *traffic) listed() string {
	w.changing.Lock()
	defer w.changing.Unlock()
	return w.lab.nft("list", "table", "inet", "knockwall")
}

// 100 reloads, of files that change this and that, cost nobody a single SYN: not
// who has a window, and not who knocks and connects in the middle of one.
func TestAHundredReloadsCostNobodyASYN(t *testing.T) {
	for _, server := range []netip.Addr{server4, server6} {
		t.Run(fmt.Sprint(server), func(t *testing.T) {
			l := newLab(t)
			l.serve(22)
			d := l.run(reloadRules[0])
			w := l.startTraffic(server, true)
			reloads := 50
			if testing.Short() {
				reloads = 10
			}
			client := control.NewClient(d.control)
			for n := range reloads {
				l.rules(reloadRules[(n+1)%len(reloadRules)])
				if _, err := client.Reload(context.Background(), ""); err != nil {
					t.Fatalf("reload %d: %v", n, err)
				}
				if t.Failed() {
					t.Fatalf("after reload %d", n)
				}
				if n%10 == 0 {
					// A broken file in between changes nothing.
					l.rules("door {")
					before := w.listed()
					if _, err := client.Reload(context.Background(), ""); err == nil {
						t.Error("a broken file was taken")
					}
					if after := w.listed(); squeezeCounters(after) != squeezeCounters(before) {
						t.Error("a broken file has changed the table")
					}
				}
				time.Sleep(10 * time.Millisecond) // so that some of the traffic is under each
			}
			w.end()
			t.Logf("meanwhile %d connections of a guest, %d newcomers, %d tries of strangers",
				w.guests.Load(), w.newcomers.Load(), w.strangers.Load())
			if w.guests.Load() < int64(reloads) || w.newcomers.Load() < int64(reloads) {
				t.Error("too little traffic to prove anything")
			}
			if n := d.logged(" reloaded "); n != reloads {
				t.Errorf("%d reloads are in the audit trail, want %d", n, reloads)
			}
		})
	}
}

// squeezeCounters leaves out of a listing what changes by itself.
func squeezeCounters(listing string) string {
	return changing.ReplaceAllString(listing, "")
}

// Stopping and starting costs no SYN of who has a window, either.
func TestRestartsCostNoGuestASYN(t *testing.T) {
	for _, server := range []netip.Addr{server4, server6} {
		t.Run(fmt.Sprint(server), func(t *testing.T) {
			l := newLab(t)
			l.serve(22)
			d := l.run(reloadRules[0])
			w := l.startTraffic(server, false)
			restarts := 10
			if testing.Short() {
				restarts = 4
			}
			for n := range restarts {
				if err := d.end(syscall.SIGTERM); err != nil {
					t.Errorf("the daemon ends with %v", err)
				}
				d = l.run(reloadRules[n%len(reloadRules)])
				if t.Failed() {
					t.Fatalf("after restart %d", n)
				}
			}
			w.end()
			t.Logf("meanwhile %d connections of a guest", w.guests.Load())
		})
	}
}

// Whenever the daemon is killed, as it starts, as it reloads, as it stops, no
// window is lost, none is open longer than it should be, and no stranger gets
// in. When that is, is left to chance: between two changes of the kernel's state
// all moments are the same.
func TestKilledAtAnyMoment(t *testing.T) {
	l := newLab(t)
	l.serve(22)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	d := l.run(reloadRules[0])
	guest := nth(1, server4)
	l.knock(guest, server4, survivalKnocks...)
	d.waitFor("opened", guest.String())
	until := time.Now().Add(10 * time.Minute)
	var strangers atomic.Bool
	stop := make(chan struct{})
	var tries sync.WaitGroup
	tries.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if l.admits(nth(1000+n, server4), server4, 22) {
				strangers.Store(true)
				return
			}
		}
	})
	for n := range rounds {
		path := l.rules(reloadRules[n%len(reloadRules)])
		wait := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
		var what string
		switch n % 3 {
		case 0:
			what = "starts"
			must(t, d.cmd.Process.Kill())
			d.ended()
			d = l.launchFile(path)
			time.Sleep(wait)
		case 1:
			what = "reloads"
			go control.NewClient(d.control).Reload(context.Background(), "")
			time.Sleep(wait / 4)
		case 2:
			what = "stops"
			must(t, d.cmd.Process.Signal(syscall.SIGTERM))
			time.Sleep(wait)
		}
		d.cmd.Process.Kill()
		d.ended()
		windows := l.kernelWindows()
		if len(windows) != 1 || windows[0].Source.Addr() != guest {
			t.Fatalf("killed %s after it %s: the windows are %v", wait, what, windows)
		}
		if over := windows[0].Left - time.Until(until); over > time.Second || over < -time.Second {
			t.Fatalf("killed %s after it %s: the window has %s left, and should have %s", wait, what, windows[0].Left, time.Until(until))
		}
		if !l.letsIn(guest, server4, 22) {
			t.Fatalf("killed %s after it %s: the guest is refused", wait, what)
		}
		d = l.run(reloadRules[n%len(reloadRules)])
		if strangers.Load() {
			t.Fatalf("killed %s after it %s: a stranger got in", wait, what)
		}
	}
	close(stop)
	tries.Wait()
}

// A wall on trial goes again unless it is confirmed, and the former rules return
// after a reload on trial.
func TestTrial(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.serve(23)
	trial := func(arguments ...string) *daemon {
		t.Helper()
		d := l.launchFile(l.rules(survivalRules("", "30s")), arguments...)
		d.waitFor("on trial until")
		return d
	}
	confirm := func(d *daemon) error {
		return control.NewClient(d.control).Confirm(context.Background())
	}

	d := trial("--confirm", "1s")
	if l.admits(client4, server4, 22) {
		t.Error("a stranger gets in during the trial")
	}
	if err := d.ended(); err == nil {
		t.Error("the daemon ends without an error, though the wall was not confirmed")
	}
	d.waitFor("not confirmed in time")
	if !l.letsIn(client4, server4, 22) {
		t.Error("the wall was not confirmed, and stands")
	}

	d = trial("--confirm", "5m")
	session := l.enter(nth(1, server4), server4)
	must(t, confirm(d))
	if confirm(d) == nil {
		t.Error("confirmed twice")
	}
	must(t, talks(session))
	if !l.letsIn(nth(1, server4), server4, 22) {
		t.Error("the window was lost when the wall was confirmed")
	}
	if l.admits(client4, server4, 22) {
		t.Error("a stranger gets in after the wall was confirmed")
	}

	must(t, os.WriteFile(l.folder+"/rules.hcl", []byte(`door "telnet" {
  ports    = [23]
  sequence = [1, 2, 3]
}`), 0o600))
	_, err := control.NewClient(d.control).Reload(context.Background(), "1s")
	must(t, err)
	if !l.letsIn(client4, server4, 22) || l.admits(client4, server4, 23) {
		t.Error("the rules on trial are not in force")
	}
	d.waitFor("the former ones are back")
	if l.admits(client4, server4, 22) || !l.letsIn(client4, server4, 23) {
		t.Error("the former rules are not in force")
	}
	d.end(syscall.SIGKILL)
	if l.admits(client4, server4, 22) {
		t.Error("a wall that was confirmed has gone with the daemon")
	}

	// What was not confirmed does not come into force by a restart, nor by the
	// daemon's death in the middle of a trial, but by a reload.
	d = l.runFile(filepath.Join(l.folder, "rules.hcl"))
	if l.admits(client4, server4, 22) || !l.letsIn(client4, server4, 23) {
		t.Error("a restart has put rules in force that were not confirmed")
	}
	_, err = control.NewClient(d.control).Reload(context.Background(), "5m")
	must(t, err)
	d.end(syscall.SIGKILL)
	d = l.runFile(filepath.Join(l.folder, "rules.hcl"))
	if l.admits(client4, server4, 22) || !l.letsIn(client4, server4, 23) {
		t.Error("the daemon was killed in a trial, and the rules on trial are in force")
	}
	_, err = control.NewClient(d.control).Reload(context.Background(), "5m")
	must(t, err)
	must(t, confirm(d))
	d.end(syscall.SIGTERM)
	d = l.runFile(filepath.Join(l.folder, "rules.hcl"))
	if !l.letsIn(client4, server4, 22) || l.admits(client4, server4, 23) {
		t.Error("rules that were confirmed are not in force after a restart")
	}

	// What is to be removed is removed, and it is said truly.
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	down := knockwall("down", "--control", d.control)
	must(t, on(l.server, down))
	if err := down.Wait(); err == nil && !l.letsIn(client4, server4, 23) {
		t.Error("down says that the wall is down, and it stands")
	}
	d.ended()
	d = l.runFile(filepath.Join(l.folder, "rules.hcl"))

	// Where a wall stands, a first wall cannot be on trial: it could not be brought
	// back.
	d.end(syscall.SIGKILL)
	d = l.launchFile(filepath.Join(l.folder, "rules.hcl"), "--confirm", "5m")
	if err := d.ended(); err == nil || d.logged("a wall is installed already") == 0 {
		t.Errorf("a trial over a standing wall ends with %v", err)
	}
	if l.admits(client4, server4, 23) {
		t.Error("a trial that was refused has taken the wall down")
	}
	// A table with a chain of the same name is not a wall.
	const foreign = "table inet foreign {\n\tchain wall {\n\t\ttcp dport 1 drop\n\t}\n}\n"
	l.nftScript(foreign)
	// And a wall is one though somebody has put a chain into it.
	l.nft("add", "chain", "inet", "knockwall", "mine", "{ type filter hook input priority 0; }")
	must(t, l.server.Do(func() error { return knockwall("down", "--control", d.control).Run() }))
	if got := l.nft("list", "table", "inet", "foreign"); got != foreign {
		t.Errorf("another table has changed:\n%s", got)
	}
	if !l.letsIn(client4, server4, 22) || !l.letsIn(client4, server4, 23) {
		t.Error("the wall was to come down")
	}

	// Killed during the trial, the wall goes where the kernel sees to that.
	d = trial("--confirm", "5m")
	owned := l.owned()
	d.end(syscall.SIGKILL)
	eventually(t, "the wall goes with the daemon, where it can", func() bool {
		return l.connects(client4, server4, 22, short) == owned
	})
}

// What is established ends with its window where that is asked for, for both
// sides, and only for that source and door.
func TestClosingEndsSessions(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{server4, server6} {
		l := newLab(t)
		l.serve(22)
		d := l.run(survivalRules("", "30s"))
		client := control.NewClient(d.control)
		guest, other := nth(1, server), nth(2, server)
		sessions := []net.Conn{l.enter(guest, server), l.enter(guest, server)}
		kept := l.enter(other, server)

		closed, err := client.Close(context.Background(), "ssh", guest.String(), false)
		must(t, err)
		if !closed.Closed || closed.Ended != 0 {
			t.Errorf("closed: %+v", closed)
		}
		if l.admits(guest, server, 22) {
			t.Error("a new connection gets in through a closed window")
		}
		for _, s := range sessions {
			must(t, talks(s))
		}

		closed, err = client.Close(context.Background(), "ssh", guest.String(), true)
		must(t, err)
		if closed.Closed || closed.Ended < len(sessions) {
			t.Errorf("closed with sessions: %+v", closed)
		}
		for i, s := range sessions {
			s.SetDeadline(time.Now().Add(2 * time.Second))
			if err := ping(s); err == nil {
				t.Errorf("session %d goes on", i)
			}
		}
		must(t, talks(kept))
		again := l.enter(guest, server)
		must(t, talks(again))
		must(t, talks(kept))
	}
}
