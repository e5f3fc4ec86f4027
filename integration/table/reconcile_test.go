package table

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/ruleset"
)

// strikes returns the number of attacks. An emulated machine makes as many as it can in
// two minutes.
func strikes() int {
	if testing.Short() {
		return 20
	}
	return 40
}

const strikesPatience = 2 * time.Minute

// tired reports whether the attacks must end now.
func tired(t *testing.T, began time.Time, n int) bool {
	t.Helper()
	tired := time.Since(began) > strikesPatience
	if tired {
		t.Logf("this machine is so slow that only %d of %d attacks were tried", n, strikes())
	}
	return tired
}

// If the kernel supports table ownership, nobody else removes or changes the wall, and
// clients do not notice attempts.
func TestNobodyElseChangesAnOwnedWall(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.NeedsOwnership(t)
	l.ServeTCP(22)
	d := l.Run(lab.RulesWith("", "10m"))
	// When another program removes any chain that packets pass, the kernel drops all
	// packets in queues (nf_queue_nf_hook_drop). Clients retransmit those packets.
	var unhooking, again atomic.Int64 // unhooking is odd during such an attack
	var stops []func() int
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		guest := lab.Source(1, server)
		session := l.Enter(guest, server)
		stops = append(stops,
			l.Meanwhile(func() error {
				before := unhooking.Load()
				err := l.OnFirstSYN(guest, server)
				if err != nil && strings.Contains(err.Error(), "retransmissions") && (before%2 == 1 || unhooking.Load() != before) {
					again.Add(1)
					return nil
				}
				return err
			}),
			l.Meanwhile(func() error { return lab.ExchangeAndPause(session) }),
			l.StrangersMeanwhile(server))
	}
	before := l.Listing()
	windows := l.WindowEnds()
	if len(windows) != 2 {
		t.Fatalf("the windows are %v", windows)
	}
	for n, began := 0, time.Now(); n < strikes() && !tired(t, began, n); n++ {
		a := lab.Attacks[n%len(lab.Attacks)]
		if a.Unhooks {
			unhooking.Add(1)
		}
		err := l.Commit(a)
		if a.Unhooks {
			unhooking.Add(1)
		}
		if a.Spares && err != nil {
			t.Errorf("round %d, %s: %v", n, a.Name, err)
		}
		if !a.Spares && (err == nil || !strings.Contains(err.Error(), "Operation not permitted")) {
			t.Errorf("round %d, %s is not refused, but says: %v", n, a.Name, err)
		}
		if diff := cmp.Diff(before, l.Listing()); diff != "" {
			t.Errorf("round %d, %s has changed the wall (-before +after):\n%s", n, a.Name, diff)
		}
		if err := lab.SameWindows(windows, l.WindowEnds(), lab.Tick); err != nil {
			t.Errorf("round %d, %s: %v", n, a.Name, err)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	for i, stop := range stops {
		tries := stop()
		t.Logf("meanwhile %d tries of %s", tries, []string{"a guest", "a session", "strangers"}[i%3])
		if tries == 0 {
			t.Error("without traffic this proves nothing")
		}
	}
	t.Logf("%d SYNs were sent again that the kernel had dropped with a chain of others", again.Load())
	if n := d.Status().Counters.Healed; n != 0 || d.Logged(" healed ") != 0 {
		t.Errorf("nothing was to be healed, and %d times it was", n)
	}
}

// healLimit is how soon the wall must be back in half of the rounds, on a machine that can do
// as much in a quarter of the time without a daemon. In each round it may take as much longer
// as four times what the machine needs then: any process waits for its turn now and then.
const healLimit = 100 * time.Millisecond

// If the kernel lets others change the wall, the daemon puts it back at once, with all
// windows and their time. A client with a window connects at every moment. Strangers do
// not connect once the wall is back.
func TestAWallThatOthersChangeIsPutBack(t *testing.T) {
	l := lab.New(t)
	l.ServeTCP(22)
	rules := lab.RulesWith("", "10m")
	d := l.RunUnowned(rules)
	table, k, changes := follow(l, rules)
	yardstick := newYardstick(t, table)

	client := control.NewClient(d.Control)
	for _, source := range []string{"198.51.100.7", "2001:db8:7::7"} {
		_, err := client.Open(context.Background(), "ssh", source, "1h")
		lab.Must(t, err)
	}
	var stops []func() int
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		guest := lab.Source(1, server)
		session := l.Enter(guest, server)
		stops = append(stops,
			l.Meanwhile(func() error {
				// The client retransmits a SYN that the attack costs, after a second.
				conn, err := l.Dial(guest, server, 22, lab.Deadline)
				if err != nil {
					return fmt.Errorf("the guest is refused: %w", err)
				}
				defer conn.Close()
				if err := lab.Exchange(conn); err != nil {
					return fmt.Errorf("the guest got in from %s, and then nothing passes: %w", conn.LocalAddr(), err)
				}
				return nil
			}),
			l.Meanwhile(func() error {
				if err := lab.ExchangeAndPause(session); err != nil {
					return fmt.Errorf("the session has died: %w", err)
				}
				return nil
			}))
	}
	before := l.Listing()
	windows := l.WindowEnds()
	if len(windows) != 4 {
		t.Fatalf("the windows are %v", windows)
	}

	var late time.Duration
	var afterNft, gaps, reference []time.Duration
	damage := 0
	for n, began := 0, time.Now(); n < strikes() && !tired(t, began, n); n++ {
		a := lab.Attacks[n%len(lab.Attacks)]
		for len(changes) > 0 {
			<-changes
		}
		measure := again(yardstick)
		if err := l.Commit(a); err != nil {
			t.Fatalf("round %d, %s: %v", n, a.Name, err)
		}
		returned := time.Now()
		eventually.True(t, "the wall stands again after "+a.Name, func() bool {
			// A table that is replaced during the read gives an error.
			intact, err := k.Intact(table)
			return err == nil && intact
		})
		took := time.Since(returned)
		beside := measure()
		var lay time.Duration
		if !a.Harmless {
			lay = gap(t, changes)
		}
		// The time until the wall is back may be added to a window, but only once: it
		// stays until the wall is put back again.
		if !a.Harmless {
			// On a busy machine a transaction takes as long as other transactions take at
			// that time.
			late = max(lay, took) + beside
		}
		if err := lab.SameWindows(windows, l.WindowEnds(), lab.Tick+late); err != nil {
			t.Errorf("round %d, %s: %v", n, a.Name, err)
		}
		if diff := cmp.Diff(before, l.Listing()); diff != "" {
			t.Errorf("round %d, %s has changed the wall (-before +after):\n%s", n, a.Name, diff)
		}
		server := []netip.Addr{lab.Server4, lab.Server6}[n%2]
		if l.AdmitsWithin(lab.Source(1000+n, server), server, 22, lab.Short/2) {
			t.Errorf("round %d, %s: a stranger gets in through the wall that was put back", n, a.Name)
		}
		if !a.Harmless {
			damage++
			afterNft, gaps, reference = append(afterNft, took), append(gaps, lay), append(reference, beside)
			if max(took, lay) > healLimit+4*beside {
				t.Errorf("round %d, %s: the wall lay down for %s, %s of it after nft had ended; without a daemon %s are needed",
					n, a.Name, lay, took, beside)
			}
		}
		eventually.True(t, fmt.Sprintf("round %d, %s: %d attacks are healed", n, a.Name, damage), func() bool {
			return d.Status().Counters.Healed == uint64(damage)
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	for i, stop := range stops {
		tries := stop()
		t.Logf("meanwhile %d tries of %s", tries, []string{"a guest", "a session"}[i%2])
		if tries == 0 {
			t.Error("without traffic this proves nothing")
		}
	}
	if got := d.Status().Counters.Healed; got != uint64(damage) {
		t.Errorf("%d attacks, and healed %d times", damage, got)
	}
	eventually.True(t, "each is in the audit trail, with who did it", func() bool { return d.Logged(" healed ", "by nft (process ") == damage })
	if n := d.Logged(" healed "); n != damage {
		t.Errorf("%d attacks, and %d of them in the audit trail", damage, n)
	}
	median := func(what string, took []time.Duration) time.Duration {
		slices.Sort(took)
		m := took[len(took)/2]
		t.Logf("%s: median %s, slowest %s", what, m, took[len(took)-1])
		return m
	}
	needed := median("the slowest of the same without a daemon, at the same time", reference)
	down := max(median("from the end of nft to the wall's standing again", afterNft),
		median("from nft's change to the daemon's, as the kernel tells them", gaps))
	if down > max(healLimit, 4*needed) {
		t.Errorf("half of the time the wall lay down for %s or longer; without a daemon %s are needed", down, needed)
	}
}

// change is another program's transaction, as the kernel reports it.
type change struct {
	nft.Change
	at time.Time
}

// follow returns the table that a daemon without ownership has installed for the rules, a
// kernel connection to examine it, and the changes to it.
func follow(l *lab.Lab, rules string) (*nft.Table, *nft.Kernel, <-chan change) {
	l.T.Helper()
	loaded := ruleset.Load(l.WriteRules(rules))
	table := tableAt(l.T, loaded.Config, time.Now())
	changes := make(chan change, 1000)
	var k *nft.Kernel
	lab.Must(l.T, l.Server.Do(func() (err error) {
		if k, err = nft.OpenKernel(); err != nil {
			return err
		}
		l.T.Cleanup(func() { k.Close() })
		k.DisableFeatures(nft.Features{NativeQueue: k.Features().NativeQueue})
		w, err := k.Watch(func(c nft.Change) { changes <- change{c, time.Now()} }, func(err error) { l.T.Error(err) })
		if err == nil {
			l.T.Cleanup(func() { w.Close() })
		}
		return err
	}))
	return table, k, changes
}

// gap returns the time from nft's change of the wall to the daemon's.
func gap(t *testing.T, changes <-chan change) time.Duration {
	t.Helper()
	var began time.Time
	patience := time.After(lab.Deadline)
	for {
		select {
		case c := <-changes:
			switch nft := strings.HasPrefix(c.By, "nft "); {
			case !slices.Contains(c.Tables, "knockwall"):
			case nft && began.IsZero():
				began = c.at
			case !nft && !began.IsZero():
				return c.at.Sub(began)
			}
		case <-patience:
			t.Fatal("the kernel does not tell of the changes")
		}
	}
}

// newYardstick returns a function that measures how long this machine takes now to notice
// the removal of a table and to put it back, on a host without a daemon.
func newYardstick(t *testing.T, table *nft.Table) func() time.Duration {
	t.Helper()
	host, err := netlab.NewHost()
	lab.Must(t, err)
	t.Cleanup(func() { host.Close() })
	var keeper, other *nft.Kernel
	back := make(chan error, 1)
	lab.Must(t, host.Do(func() (err error) {
		for _, k := range []**nft.Kernel{&keeper, &other} {
			if *k, err = nft.OpenKernel(); err != nil {
				return err
			}
			t.Cleanup(func() { (*k).Close() })
			(*k).DisableFeatures(nft.Features{NativeQueue: (*k).Features().NativeQueue})
		}
		if err := keeper.Install(table, nil, ""); err != nil {
			return err
		}
		w, err := keeper.Watch(func(nft.Change) { back <- keeper.Restore(table, nil) }, func(err error) { t.Error(err) })
		if err == nil {
			t.Cleanup(func() { w.Close() })
		}
		return err
	}))
	return func() time.Duration {
		began := time.Now()
		_, err := other.Remove(table.Name)
		if err == nil {
			err = <-back
		}
		if err != nil {
			t.Errorf("measuring this machine: %v", err)
		}
		return time.Since(began)
	}
}

// again repeats measure until the returned function is called, which returns the longest
// result.
func again(measure func() time.Duration) func() time.Duration {
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for {
			most = max(most, measure())
			select {
			case <-stop:
				longest <- most
				return
			default:
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-longest
	}
}

// A ruleset that was saved with an open window contains the window. Loading it after the
// window was closed opens nothing.
func TestASavedRulesetReopensNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		run  func(*lab.Lab, string) *lab.Daemon
	}{{"owned", (*lab.Lab).Run}, {"not owned", (*lab.Lab).RunUnowned}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			owned := c.name == "owned"
			if owned {
				l.NeedsOwnership(t)
			}
			l.ServeTCP(22)
			d := c.run(l, lab.RulesWith("", "10m"))
			client := control.NewClient(d.Control)
			rounds := 10
			if testing.Short() {
				rounds = 2
			}
			for round := range rounds {
				var guests []netip.Addr
				for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
					guest := lab.Source(1+round, server)
					guests = append(guests, guest)
					l.Enter(guest, server)
				}
				saved := filepath.Join(l.Folder, "saved.nft")
				lab.Must(t, os.WriteFile(saved, []byte(loadable(t, l.Nft("list", "ruleset"))), 0o600))
				for _, guest := range guests {
					_, err := client.Close(context.Background(), "ssh", guest.String(), false)
					lab.Must(t, err)
				}
				healed := d.Status().Counters.Healed
				lab.Must(t, l.TryNft("flush", "ruleset"))
				err := l.TryNft("-f", saved)
				if owned != (err != nil) {
					t.Fatalf("loading the saved ruleset: %v", err)
				}
				if !owned {
					eventually.True(t, "both changes are undone", func() bool { return d.Status().Counters.Healed == healed+2 })
				}
				if windows := l.KernelWindows(); len(windows) != 0 {
					t.Errorf("round %d: open again: %v", round, windows)
				}
				for _, guest := range guests {
					server := lab.Server4
					if guest.Is6() {
						server = lab.Server6
					}
					if l.AdmitsAtOnce(guest, server, 22) {
						t.Errorf("round %d: %s gets in, whose window was closed", round, guest)
					}
				}
				if windows := d.Status().Windows; len(windows) != 0 {
					t.Errorf("round %d: the daemon has windows open: %v", round, windows)
				}
			}
		})
	}
}

// loadable changes a saved ruleset so that nft can load it. nft lists the flags of an
// owned table and the NFQUEUE target of x_tables, but cannot load them. Neither affects
// the sets.
func loadable(t *testing.T, saved string) string {
	t.Helper()
	saved = regexp.MustCompile(`(?m)^\tflags owner(,persist)?$`).ReplaceAllString(saved, "")
	saved = regexp.MustCompile(`(?m)(xt target "?NFQUEUE"?|queue num).*$`).ReplaceAllString(saved, "drop")
	if !strings.Contains(saved, "expires") {
		t.Fatalf("no window was saved:\n%s", saved)
	}
	return saved
}

// A window whose remaining time is less than the kernel's unit has expired. It must not
// get into a new table: the kernel would take a time-out of 0 for none.
func TestAWindowThatIsNearlyOverIsNotPutBackForEver(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	loaded := ruleset.Load(l.WriteRules(lab.RulesWith("", "10m")))
	table := tableAt(t, loaded.Config, time.Now())
	guest := lab.Source(1, lab.Server4)
	source := loaded.Config.Doors[0].SourcePrefix.Of(guest)
	lab.Must(t, l.Server.Do(func() error {
		k, err := nft.OpenKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		if err := k.Install(table, nil, ""); err != nil {
			return err
		}
		for _, left := range []time.Duration{time.Nanosecond, 999 * time.Microsecond} {
			windows := []nft.Window{{Door: "ssh", Source: source, Left: left}}
			for name, put := range map[string]func() error{
				"installed": func() error { return k.Install(table, slices.Values(windows), "") },
				"restored":  func() error { return k.Restore(table, slices.Values(windows)) },
				"opened":    func() error { return k.OpenWindows(table.Name, windows[:1]) },
			} {
				if err := put(); err != nil {
					return err
				}
				// No daemon reads the queues: sources with a window are admitted, and no
				// others.
				for end := time.Now().Add(lab.Short); l.AdmitsWithin(guest, lab.Server4, 22, lab.Short/4); {
					if time.Now().After(end) {
						t.Errorf("%s with %s left, the window is still open:\n%s", name, left, l.Nft("list", "set", "inet", "knockwall", "open4"))
						break
					}
				}
				if _, err := k.Remove(table.Name); err != nil {
					return err
				}
				if err := k.Install(table, nil, ""); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}
