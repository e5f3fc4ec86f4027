package reload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
)

// reloadRules are rule files that differ in everything that a reload may change, and have
// the same door for ssh.
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

// traffic is a guest with a window that connects again and again, new guests that knock and
// connect, strangers, and a session, all at the same time.
type traffic struct {
	lab       *lab.Lab
	server    netip.Addr
	stop      chan struct{}
	end       func()
	all       sync.WaitGroup
	guests    atomic.Int64 // connections of the guest
	newcomers atomic.Int64
	strangers atomic.Int64
	changing  sync.Mutex // held while a newcomer changes the wall by knocking
}

// startTraffic lets all of them come until stop is closed. Newcomers come only if newcomers
// is true.
func startTraffic(l *lab.Lab, server netip.Addr, newcomers bool) *traffic {
	l.T.Helper()
	w := &traffic{lab: l, server: server, stop: make(chan struct{})}
	w.end = sync.OnceFunc(func() {
		close(w.stop)
		w.all.Wait()
	})
	guest, stranger := lab.Source(1, server), lab.Source(2, server)
	session := l.Enter(guest, server)
	l.T.Cleanup(w.end)
	w.keep(&w.guests, func() error { return l.OnFirstSYN(guest, server) })
	w.keep(new(atomic.Int64), func() error { return lab.Exchange(session) })
	w.keep(&w.strangers, func() error {
		if l.AdmitsAtOnce(stranger, server, 22) {
			return fmt.Errorf("a stranger gets in")
		}
		return nil
	})
	if newcomers {
		w.keep(&w.newcomers, func() error {
			w.changing.Lock()
			defer w.changing.Unlock()
			return l.OnFirstSYN(lab.Source(100+int(w.newcomers.Load()), server), server, lab.Knocks...)
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
				w.lab.T.Errorf("at %s: %v", time.Now().Format("15:04:05.000"), err)
				return
			}
			n.Add(1)
		}
	})
}

// listed returns the wall as nft lists it, while no newcomer knocks: nft does not finish a
// listing that changes all the time.
func (w *traffic) listed() string {
	w.changing.Lock()
	defer w.changing.Unlock()
	return w.lab.Nft("list", "table", "inet", "knockwall")
}

// 100 reloads, of files that change various things, cost nobody a single SYN: neither
// clients with a window, nor clients that knock and connect during a reload.
func TestAHundredReloadsCostNobodyASYN(t *testing.T) {
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(fmt.Sprint(server), func(t *testing.T) {
			l := lab.New(t)
			l.ServeTCP(22)
			d := l.Run(reloadRules[0])
			w := startTraffic(l, server, true)
			reloads := 50
			if testing.Short() {
				reloads = 10
			}
			client := control.NewClient(d.Control)
			for n := range reloads {
				l.WriteRules(reloadRules[(n+1)%len(reloadRules)])
				if _, err := client.Reload(context.Background(), ""); err != nil {
					t.Fatalf("reload %d: %v", n, err)
				}
				if t.Failed() {
					t.Fatalf("after reload %d", n)
				}
				if n%10 == 0 {
					// A broken file in between changes nothing.
					l.WriteRules("door {")
					before := w.listed()
					if _, err := client.Reload(context.Background(), ""); err == nil {
						t.Error("a broken file was accepted")
					}
					if after := w.listed(); lab.WithoutCounters(after) != lab.WithoutCounters(before) {
						t.Error("a broken file has changed the table")
					}
				}
				time.Sleep(10 * time.Millisecond) // so that there is some traffic under each
			}
			w.end()
			t.Logf("meanwhile %d connections of a guest, %d newcomers, %d tries of strangers",
				w.guests.Load(), w.newcomers.Load(), w.strangers.Load())
			if w.guests.Load() < int64(reloads) || w.newcomers.Load() < int64(reloads) {
				t.Error("there was too little traffic to prove anything")
			}
			if n := d.Logged(" reloaded "); n != reloads {
				t.Errorf("%d reloads are in the audit trail, want %d", n, reloads)
			}
		})
	}
}

// Stopping and starting the daemon costs a client with a window no SYN, either.
func TestRestartsCostNoGuestASYN(t *testing.T) {
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(fmt.Sprint(server), func(t *testing.T) {
			l := lab.New(t)
			l.ServeTCP(22)
			d := l.Run(reloadRules[0])
			w := startTraffic(l, server, false)
			restarts := 10
			if testing.Short() {
				restarts = 4
			}
			for n := range restarts {
				if err := d.Stop(syscall.SIGTERM); err != nil {
					t.Errorf("the daemon ends with %v", err)
				}
				d = l.Run(reloadRules[n%len(reloadRules)])
				if t.Failed() {
					t.Fatalf("after restart %d", n)
				}
			}
			w.end()
			t.Logf("meanwhile %d connections of a guest", w.guests.Load())
		})
	}
}

// Whenever the daemon is killed, as it starts, reloads or stops, no window is lost, none is
// open longer than it should be, and no stranger gets in. The moments are random: between
// two changes of the kernel's state all moments are the same.
func TestKilledAtAnyMoment(t *testing.T) {
	l := lab.New(t)
	l.ServeTCP(22)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	d := l.Run(reloadRules[0])
	guest := lab.Source(1, lab.Server4)
	l.Knock(guest, lab.Server4, lab.Knocks...)
	d.WaitFor("opened", guest.String())
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
			if l.AdmitsAtOnce(lab.Source(1000+n, lab.Server4), lab.Server4, 22) {
				strangers.Store(true)
				return
			}
		}
	})
	for n := range rounds {
		path := l.WriteRules(reloadRules[n%len(reloadRules)])
		wait := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
		var what string
		switch n % 3 {
		case 0:
			what = "starts"
			lab.Must(t, d.Cmd.Process.Kill())
			d.WaitForExit()
			d = l.LaunchFile(path)
			time.Sleep(wait)
		case 1:
			what = "reloads"
			go control.NewClient(d.Control).Reload(context.Background(), "")
			time.Sleep(wait / 4)
		case 2:
			what = "stops"
			lab.Must(t, d.Cmd.Process.Signal(syscall.SIGTERM))
			time.Sleep(wait)
		}
		d.Cmd.Process.Kill()
		d.WaitForExit()
		windows := l.KernelWindows()
		if len(windows) != 1 || windows[0].Source.Addr() != guest {
			t.Fatalf("killed %s after it %s: the windows are %v", wait, what, windows)
		}
		if over := windows[0].Left - time.Until(until); over > time.Second || over < -time.Second {
			t.Fatalf("killed %s after it %s: the window has %s left, and should have %s", wait, what, windows[0].Left, time.Until(until))
		}
		if !l.Admits(guest, lab.Server4, 22) {
			t.Fatalf("killed %s after it %s: the guest is refused", wait, what)
		}
		d = l.Run(reloadRules[n%len(reloadRules)])
		if strangers.Load() {
			t.Fatalf("killed %s after it %s: a stranger got in", wait, what)
		}
	}
	close(stop)
	tries.Wait()
}

// A wall on trial goes away unless it is confirmed. After a reload on trial the former
// rules return.
func TestTrial(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeTCP(23)
	trial := func(arguments ...string) *lab.Daemon {
		t.Helper()
		d := l.LaunchFile(l.WriteRules(lab.RulesWith("", "30s")), arguments...)
		d.WaitFor("on trial until")
		return d
	}
	confirm := func(d *lab.Daemon) error {
		_, err := control.NewClient(d.Control).Confirm(context.Background())
		return err
	}
	revert := func(d *lab.Daemon) error {
		_, err := control.NewClient(d.Control).Revert(context.Background())
		return err
	}

	d := trial("--confirm", "10s")
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("a stranger gets in during the trial")
	}
	if err := d.WaitForExit(); err == nil {
		t.Error("the daemon ends without an error, although the wall was not confirmed")
	}
	d.WaitFor("not confirmed in time")
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the wall was not confirmed, but is in force")
	}

	d = trial("--confirm", "5m")
	lab.Must(t, revert(d))
	if err := d.WaitForExit(); err != nil {
		t.Errorf("the trial is ended by hand, and run ends with %v", err)
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the trial is ended, but the wall is in force")
	}

	d = trial("--confirm", "5m")
	session := l.Enter(lab.Source(1, lab.Server4), lab.Server4)
	lab.Must(t, confirm(d))
	if confirm(d) == nil {
		t.Error("a second confirm succeeds")
	}
	lab.Must(t, lab.Exchange(session))
	if !l.Admits(lab.Source(1, lab.Server4), lab.Server4, 22) {
		t.Error("the window was lost when the wall was confirmed")
	}
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("a stranger gets in after the wall was confirmed")
	}

	lab.Must(t, os.WriteFile(l.Folder+"/rules.hcl", []byte(`door "telnet" {
  ports    = [23]
  sequence = [1, 2, 3]
}`), 0o600))
	_, err := control.NewClient(d.Control).Reload(context.Background(), "10s")
	lab.Must(t, err)
	if !l.Admits(lab.Client4, lab.Server4, 22) || l.AdmitsAtOnce(lab.Client4, lab.Server4, 23) {
		t.Error("the rules on trial are not in force")
	}
	if status := d.Status(); status.FilesDiffer || status.Unconfirmed != nil {
		t.Errorf("the rules on trial are those of the files, and nobody can know yet that they are not confirmed: %+v", status)
	}
	d.WaitFor("the former ones are back")
	if status := d.Status(); !status.FilesDiffer || status.Unconfirmed == nil || time.Since(status.Unconfirmed.Since) > time.Minute || status.Unconfirmed.Boot {
		t.Errorf("the status does not say why the former rules are in force: %+v", status)
	}
	if out := strings.Join(strings.Fields(l.RunOnServer("status", "--control", d.Control)), " "); !strings.Contains(out, "nobody confirmed them. Try them again") || strings.Contains(out, "or boot") {
		t.Errorf("the status: %s", out)
	}
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) || !l.Admits(lab.Client4, lab.Server4, 23) {
		t.Error("the former rules are not in force")
	}
	_, err = control.NewClient(d.Control).Reload(context.Background(), "5m")
	lab.Must(t, err)
	lab.Must(t, revert(d))
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) || !l.Admits(lab.Client4, lab.Server4, 23) {
		t.Error("the trial is ended, and the former rules are not in force")
	}
	if revert(d) == nil || confirm(d) == nil {
		t.Error("a trial that is ended can be ended or confirmed again")
	}
	d.Stop(syscall.SIGKILL)
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("a confirmed wall has gone with the daemon")
	}

	// Rules that were not confirmed come into force by a reload, but not by a restart or by
	// the daemon's death during a trial.
	d = l.RunFile(filepath.Join(l.Folder, "rules.hcl"))
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) || !l.Admits(lab.Client4, lab.Server4, 23) {
		t.Error("a restart has put unconfirmed rules in force")
	}
	_, err = control.NewClient(d.Control).Reload(context.Background(), "5m")
	lab.Must(t, err)
	d.Stop(syscall.SIGKILL)
	d = l.RunFile(filepath.Join(l.Folder, "rules.hcl"))
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) || !l.Admits(lab.Client4, lab.Server4, 23) {
		t.Error("the daemon was killed during a trial, but the rules on trial are in force")
	}
	_, err = control.NewClient(d.Control).Reload(context.Background(), "5m")
	lab.Must(t, err)
	lab.Must(t, confirm(d))
	d.Stop(syscall.SIGTERM)
	d = l.RunFile(filepath.Join(l.Folder, "rules.hcl"))
	if !l.Admits(lab.Client4, lab.Server4, 22) || l.AdmitsAtOnce(lab.Client4, lab.Server4, 23) {
		t.Error("confirmed rules are not in force after a restart")
	}

	// down removes the wall, and says so only if it has.
	lab.Must(t, d.Cmd.Process.Signal(syscall.SIGTERM))
	down := lab.Knockwall("down", "--control", d.Control)
	lab.Must(t, lab.StartOn(l.Server, down))
	if err := down.Wait(); err == nil && !l.Admits(lab.Client4, lab.Server4, 23) {
		t.Error("down says that the wall is down, but it is in force")
	}
	d.WaitForExit()
	d = l.RunFile(filepath.Join(l.Folder, "rules.hcl"))

	// A first wall cannot be on trial if another is in force, because the other could not
	// be brought back.
	d.Stop(syscall.SIGKILL)
	d = l.LaunchFile(filepath.Join(l.Folder, "rules.hcl"), "--confirm", "5m")
	if err := d.WaitForExit(); err == nil || d.Logged("a wall is installed already") == 0 {
		t.Errorf("a trial while a wall is in force ends with %v", err)
	}
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 23) {
		t.Error("a trial that was refused has taken the wall down")
	}
	// A table with a chain of the same name is not a wall.
	const foreign = "table inet foreign {\n\tchain wall {\n\t\ttcp dport 1 drop\n\t}\n}\n"
	l.LoadNft(foreign)
	// The wall remains one if somebody adds a chain to it.
	l.Nft("add", "chain", "inet", "knockwall", "mine", "{ type filter hook input priority 0; }")
	lab.Must(t, l.Server.Do(func() error { return lab.Knockwall("down", "--control", d.Control).Run() }))
	if got := l.Nft("list", "table", "inet", "foreign"); got != foreign {
		t.Errorf("another table has changed:\n%s", got)
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) || !l.Admits(lab.Client4, lab.Server4, 23) {
		t.Error("the wall is in force after down")
	}

	// If the daemon is killed during the trial, the wall goes away if the kernel supports
	// that.
	d = trial("--confirm", "5m")
	owned := l.SupportsOwnership()
	d.Stop(syscall.SIGKILL)
	eventually.True(t, "the wall goes with the daemon if the kernel supports that", func() bool {
		return l.AdmitsWithin(lab.Client4, lab.Server4, 22, lab.Short) == owned
	})
}
