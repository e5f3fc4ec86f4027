package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// unownedVariable makes this program a daemon that does not use table ownership. The
// kernel then lets others change its wall, as kernels before Linux 6.9 do. The arguments
// are the rule files and the control socket.
const unownedVariable = "KNOCKWALL_UNOWNED"

// unownedDaemon is a minimal `knockwall run`.
func unownedDaemon(rules, path string) error {
	kernel, err := nft.OpenKernel()
	if err != nil {
		return err
	}
	kernel.DisableFeatures(nft.Features{NativeQueue: kernel.Features().NativeQueue})
	listener, err := control.Listen(path)
	if err != nil {
		return err
	}
	history := audit.NewHistory()
	w := wall.New(wall.KernelEdges(kernel), audit.Sinks{history, audit.Text(os.Stderr)})
	raise := func(confirm time.Duration) (int, string, error) {
		loaded := ruleset.Load(rules)
		switch {
		case loaded.Config == nil:
			return 0, "", &control.RulesError{Diagnostics: loaded.Diagnostics.Error()}
		case confirm != 0:
			return len(loaded.Config.Doors), "", w.Try(loaded.Config, confirm)
		}
		return len(loaded.Config.Doors), "", w.Apply(loaded.Config)
	}
	doors, _, err := raise(0)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "guarding %d doors, and no table is owned\n", doors)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() {
		served <- control.Serve(ctx, listener, control.Daemon{Wall: w, History: history, Reload: raise, Confirm: w.Confirm})
	}()
	if err := w.Run(ctx); err != nil {
		return err
	}
	return <-served
}

// runUnowned starts a daemon whose table others can change, and waits until the wall is
// in force.
func (l *lab) runUnowned(rules string) *daemon {
	l.t.Helper()
	if !l.owned() {
		return l.run(rules) // this kernel has no other tables
	}
	return l.runOfTests(rules)
}

// runOfTests starts this program as a daemon, and waits until the wall is in force.
func (l *lab) runOfTests(rules string) *daemon {
	l.t.Helper()
	self, err := os.Executable()
	must(l.t, err)
	control := filepath.Join(l.folder, "control")
	cmd := exec.Command(self, l.rules(rules), control)
	cmd.Env = []string{unownedVariable + "=1"}
	return l.launchCommand(control, cmd).guards()
}

// attack is a change of another program to the server's tables.
type attack struct {
	name     string
	script   func(l *lab) string // for nft
	spares   bool                // the kernel accepts it and leaves out tables with another owner
	harmless bool                // it does not affect the wall
	unhooks  bool                // it removes a chain of others that packets pass
}

func said(script string) func(*lab) string { return func(*lab) string { return script } }

const (
	foreignTable = "table inet foreign {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 1 drop\n\t}\n}\n"
	// A table with the wall's name that is not the wall's.
	falseTable = "table inet knockwall {\n\tchain wall {\n\t\taccept\n\t}\n}\n"
)

var attacks = []attack{
	{name: "nft flush ruleset", script: said("flush ruleset"), spares: true, unhooks: true},
	{name: "nft delete table", script: said("delete table inet knockwall")},
	{name: "nft flush table", script: said("flush table inet knockwall")},
	{name: "nft delete rule", script: func(l *lab) string {
		return "delete rule inet knockwall prerouting handle " + l.lastHandle("prerouting")
	}},
	{name: "nft delete chain", script: said("flush chain inet knockwall wall; flush chain inet knockwall ended; delete chain inet knockwall ssh_refuse")},
	{name: "nft insert rule", script: said("insert rule inet knockwall prerouting accept")},
	{name: "systemctl reload nftables", script: said("flush ruleset\n" + foreignTable), spares: true, unhooks: true},
	{name: "another table of that name", script: said("delete table inet knockwall\n" + falseTable)},
	{name: "ufw reload", script: said("add table ip filter; add chain ip filter INPUT; delete table ip filter"), spares: true, harmless: true},
	{name: "another inet table", script: said("add table inet passing; delete table inet passing"), spares: true, harmless: true},
}

// commit runs nft with the attack's script, and returns nft's error.
func (l *lab) commit(a attack) error {
	l.t.Helper()
	path := filepath.Join(l.folder, "attack.nft")
	must(l.t, os.WriteFile(path, []byte(a.script(l)+"\n"), 0o600))
	return l.tryNft("-f", path)
}

// tryNft runs nft on the server. Its error contains nft's message.
func (l *lab) tryNft(arguments ...string) error {
	l.t.Helper()
	cmd := exec.Command(needs(l.t, "nft"), arguments...)
	var problem bytes.Buffer
	cmd.Stderr = &problem
	must(l.t, on(l.server, cmd))
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, &problem)
	}
	return nil
}

var handle = regexp.MustCompile(`# handle (\d+)`)

// lastHandle returns the handle of a chain's last rule.
func (l *lab) lastHandle(chain string) string {
	l.t.Helper()
	all := handle.FindAllStringSubmatch(l.nft("-a", "list", "chain", "inet", "knockwall", chain), -1)
	return all[len(all)-1][1]
}

// meanwhile repeats try until stop is called. If try fails, the test fails. stop returns
// the number of tries.
func (l *lab) meanwhile(try func() error) (stop func() int) {
	l.t.Helper()
	var all sync.WaitGroup
	var stopped atomic.Bool
	tries := 0
	all.Go(func() {
		for !stopped.Load() {
			if err := try(); err != nil {
				l.t.Errorf("at %s: %v", time.Now().Format("15:04:05.000"), err)
				return
			}
			tries++
		}
	})
	stop = func() int {
		stopped.Store(true)
		all.Wait()
		return tries
	}
	l.t.Cleanup(func() { stop() })
	return stop
}

// strangersMeanwhile lets strangers try to connect, one after the other.
func (l *lab) strangersMeanwhile(server netip.Addr) (stop func() int) {
	l.t.Helper()
	strangers := 0
	return l.meanwhile(func() error {
		if strangers++; l.admits(nth(1000+strangers, server), server, 22) {
			return fmt.Errorf("a stranger gets in to %s", server)
		}
		return nil
	})
}

// talksOn sends data over a session and checks the answer, then leaves some time to
// others.
func talksOn(session net.Conn) error {
	time.Sleep(time.Millisecond)
	return talks(session)
}

// listing returns the wall's table as nft lists it, without values that change by
// themselves.
func (l *lab) listing() string {
	l.t.Helper()
	return changing.ReplaceAllString(l.nft("list", "table", "inet", "knockwall"), "")
}

// span is the time between two moments.
type span struct{ from, to time.Time }

// ends returns when windows expire, by door and source. The windows were read at some
// moment between before and after, so each result is a span.
func ends(windows []nft.Window, before, after time.Time) map[string]span {
	m := map[string]span{}
	for _, w := range windows {
		m[w.Door+" "+w.Source.String()] = span{before.Add(w.Left), after.Add(w.Left)}
	}
	return m
}

// windowEnds returns when the kernel's windows expire.
func (l *lab) windowEnds() map[string]span {
	l.t.Helper()
	before := time.Now()
	windows := l.kernelWindows()
	return ends(windows, before, time.Now())
}

// sameWindows returns an error if windows are missing, are too many, or expire at another
// time than they should.
func sameWindows(want, got map[string]span, tolerance time.Duration) error {
	for w := range got {
		if _, ok := want[w]; !ok {
			return fmt.Errorf("a window is open that should not be: %s", w)
		}
	}
	for w, x := range want {
		y, ok := got[w]
		switch {
		case !ok:
			return fmt.Errorf("a window is missing: %s", w)
		case y.from.Sub(x.to) > tolerance:
			return fmt.Errorf("the window %s ends %s too late", w, y.from.Sub(x.to))
		case x.from.Sub(y.to) > tolerance:
			return fmt.Errorf("the window %s ends %s too early", w, x.from.Sub(y.to))
		}
	}
	return nil
}

// ticks is the tolerance for the end of an unchanged window: the kernel counts in ticks.
const ticks = 50 * time.Millisecond

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
	l := newLab(t)
	l.needsOwnership(t)
	l.serve(22)
	d := l.run(survivalRules("", "10m"))
	// When another program removes any chain that packets pass, the kernel drops all
	// packets in queues (nf_queue_nf_hook_drop). Clients retransmit those packets.
	var unhooking, again atomic.Int64 // unhooking is odd during such an attack
	var stops []func() int
	for _, server := range []netip.Addr{server4, server6} {
		guest := nth(1, server)
		session := l.enter(guest, server)
		stops = append(stops,
			l.meanwhile(func() error {
				before := unhooking.Load()
				err := l.onFirstSYN(guest, server)
				if err != nil && strings.Contains(err.Error(), "retransmissions") && (before%2 == 1 || unhooking.Load() != before) {
					again.Add(1)
					return nil
				}
				return err
			}),
			l.meanwhile(func() error { return talksOn(session) }),
			l.strangersMeanwhile(server))
	}
	before := l.listing()
	windows := l.windowEnds()
	if len(windows) != 2 {
		t.Fatalf("the windows are %v", windows)
	}
	for n, began := 0, time.Now(); n < strikes() && !tired(t, began, n); n++ {
		a := attacks[n%len(attacks)]
		if a.unhooks {
			unhooking.Add(1)
		}
		err := l.commit(a)
		if a.unhooks {
			unhooking.Add(1)
		}
		if a.spares && err != nil {
			t.Errorf("round %d, %s: %v", n, a.name, err)
		}
		if !a.spares && (err == nil || !strings.Contains(err.Error(), "Operation not permitted")) {
			t.Errorf("round %d, %s is not refused, but says: %v", n, a.name, err)
		}
		if diff := cmp.Diff(before, l.listing()); diff != "" {
			t.Errorf("round %d, %s has changed the wall (-before +after):\n%s", n, a.name, diff)
		}
		if err := sameWindows(windows, l.windowEnds(), ticks); err != nil {
			t.Errorf("round %d, %s: %v", n, a.name, err)
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
	if n := d.status().Counters.Healed; n != 0 || d.logged(" healed ") != 0 {
		t.Errorf("nothing was to be healed, and %d times it was", n)
	}
}

// healLimit is how soon the wall must be back, on a machine that can do as much in a
// quarter of the time without a daemon.
const healLimit = 100 * time.Millisecond

// If the kernel lets others change the wall, the daemon puts it back at once, with all
// windows and their time. A client with a window connects at every moment. Strangers do
// not connect once the wall is back.
func TestAWallThatOthersChangeIsPutBack(t *testing.T) {
	l := newLab(t)
	l.serve(22)
	rules := survivalRules("", "10m")
	d := l.runUnowned(rules)
	table, k, changes := l.follow(rules)
	yardstick := newYardstick(t, table)

	client := control.NewClient(d.control)
	for _, source := range []string{"198.51.100.7", "2001:db8:7::7"} {
		_, err := client.Open(context.Background(), "ssh", source, "1h")
		must(t, err)
	}
	var stops []func() int
	for _, server := range []netip.Addr{server4, server6} {
		guest := nth(1, server)
		session := l.enter(guest, server)
		stops = append(stops,
			l.meanwhile(func() error {
				// The client retransmits a SYN that the attack costs, after a second.
				conn, err := l.dial(guest, server, 22, deadline)
				if err != nil {
					return fmt.Errorf("the guest is refused: %w", err)
				}
				defer conn.Close()
				if err := talks(conn); err != nil {
					return fmt.Errorf("the guest got in from %s, and then nothing passes: %w", conn.LocalAddr(), err)
				}
				return nil
			}),
			l.meanwhile(func() error {
				if err := talksOn(session); err != nil {
					return fmt.Errorf("the session has died: %w", err)
				}
				return nil
			}))
	}
	before := l.listing()
	windows := l.windowEnds()
	if len(windows) != 4 {
		t.Fatalf("the windows are %v", windows)
	}

	var late time.Duration
	var afterNft, gaps, reference []time.Duration
	damage, slow := 0, 0
	for n, began := 0, time.Now(); n < strikes() && !tired(t, began, n); n++ {
		a := attacks[n%len(attacks)]
		for len(changes) > 0 {
			<-changes
		}
		measure := again(yardstick)
		if err := l.commit(a); err != nil {
			t.Fatalf("round %d, %s: %v", n, a.name, err)
		}
		returned := time.Now()
		eventually(t, "the wall stands again after "+a.name, func() bool {
			// A table that is replaced during the read gives an error.
			intact, err := k.Intact(table)
			return err == nil && intact
		})
		took := time.Since(returned)
		beside := measure()
		var lay time.Duration
		if !a.harmless {
			lay = gap(t, changes)
		}
		// The time until the wall is back may be added to a window, but only once: it
		// stays until the wall is put back again.
		if !a.harmless {
			// On a busy machine a transaction takes as long as other transactions take at
			// that time.
			late = max(lay, took) + beside
		}
		if err := sameWindows(windows, l.windowEnds(), ticks+late); err != nil {
			t.Errorf("round %d, %s: %v", n, a.name, err)
		}
		if diff := cmp.Diff(before, l.listing()); diff != "" {
			t.Errorf("round %d, %s has changed the wall (-before +after):\n%s", n, a.name, diff)
		}
		server := []netip.Addr{server4, server6}[n%2]
		if l.connects(nth(1000+n, server), server, 22, short/2) {
			t.Errorf("round %d, %s: a stranger gets in through the wall that was put back", n, a.name)
		}
		if !a.harmless {
			damage++
			afterNft, gaps, reference = append(afterNft, took), append(gaps, lay), append(reference, beside)
			switch worst := max(took, lay); {
			case worst <= healLimit:
			case worst <= 4*beside:
				slow++
			default:
				t.Errorf("round %d, %s: the wall lay down for %s, %s of it after nft had ended; without a daemon %s are needed",
					n, a.name, lay, took, beside)
			}
		}
		eventually(t, fmt.Sprintf("round %d, %s: %d attacks are healed", n, a.name, damage), func() bool {
			return d.status().Counters.Healed == uint64(damage)
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
	if got := d.status().Counters.Healed; got != uint64(damage) {
		t.Errorf("%d attacks, and healed %d times", damage, got)
	}
	eventually(t, "each is in the audit trail, with who did it", func() bool { return d.logged(" healed ", "by nft (process ") == damage })
	if n := d.logged(" healed "); n != damage {
		t.Errorf("%d attacks, and %d of them in the audit trail", damage, n)
	}
	for _, m := range []struct {
		what string
		took []time.Duration
	}{
		{"from the end of nft to the wall's standing again", afterNft},
		{"from nft's change to the daemon's, as the kernel tells them", gaps},
		{"the slowest of the same without a daemon, at the same time", reference},
	} {
		slices.Sort(m.took)
		t.Logf("%s: median %s, slowest %s", m.what, m.took[len(m.took)/2], m.took[len(m.took)-1])
	}
	if slow > 0 {
		t.Logf("in %d of %d rounds it took more than %s, and at the same time this machine needed a quarter of that without a daemon",
			slow, damage, healLimit)
	}
}

// change is another program's transaction, as the kernel reports it.
type change struct {
	nft.Change
	at time.Time
}

// follow returns the table that a daemon without ownership has installed for the rules, a
// kernel connection to examine it, and the changes to it.
func (l *lab) follow(rules string) (*nft.Table, *nft.Kernel, <-chan change) {
	l.t.Helper()
	loaded := ruleset.Load(l.rules(rules))
	table := tableAt(l.t, loaded.Config, time.Now())
	changes := make(chan change, 1000)
	var k *nft.Kernel
	must(l.t, l.server.Do(func() (err error) {
		if k, err = nft.OpenKernel(); err != nil {
			return err
		}
		l.t.Cleanup(func() { k.Close() })
		k.DisableFeatures(nft.Features{NativeQueue: k.Features().NativeQueue})
		w, err := k.Watch(func(c nft.Change) { changes <- change{c, time.Now()} }, func(err error) { l.t.Error(err) })
		if err == nil {
			l.t.Cleanup(func() { w.Close() })
		}
		return err
	}))
	return table, k, changes
}

// gap returns the time from nft's change of the wall to the daemon's.
func gap(t *testing.T, changes <-chan change) time.Duration {
	t.Helper()
	var began time.Time
	patience := time.After(deadline)
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
	must(t, err)
	t.Cleanup(func() { host.Close() })
	var keeper, other *nft.Kernel
	back := make(chan error, 1)
	must(t, host.Do(func() (err error) {
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
		run  func(*lab, string) *daemon
	}{{"owned", (*lab).run}, {"not owned", (*lab).runUnowned}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			owned := c.name == "owned"
			if owned {
				l.needsOwnership(t)
			}
			l.serve(22)
			d := c.run(l, survivalRules("", "10m"))
			client := control.NewClient(d.control)
			rounds := 10
			if testing.Short() {
				rounds = 2
			}
			for round := range rounds {
				var guests []netip.Addr
				for _, server := range []netip.Addr{server4, server6} {
					guest := nth(1+round, server)
					guests = append(guests, guest)
					l.enter(guest, server)
				}
				saved := filepath.Join(l.folder, "saved.nft")
				must(t, os.WriteFile(saved, []byte(loadable(t, l.nft("list", "ruleset"))), 0o600))
				for _, guest := range guests {
					_, err := client.Close(context.Background(), "ssh", guest.String(), false)
					must(t, err)
				}
				healed := d.status().Counters.Healed
				must(t, l.tryNft("flush", "ruleset"))
				err := l.tryNft("-f", saved)
				if owned != (err != nil) {
					t.Fatalf("loading the saved ruleset: %v", err)
				}
				if !owned {
					eventually(t, "both changes are undone", func() bool { return d.status().Counters.Healed == healed+2 })
				}
				if windows := l.kernelWindows(); len(windows) != 0 {
					t.Errorf("round %d: open again: %v", round, windows)
				}
				for _, guest := range guests {
					server := server4
					if guest.Is6() {
						server = server6
					}
					if l.admits(guest, server, 22) {
						t.Errorf("round %d: %s gets in, whose window was closed", round, guest)
					}
				}
				if windows := d.status().Windows; len(windows) != 0 {
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
	l := newLab(t)
	l.serve(22)
	loaded := ruleset.Load(l.rules(survivalRules("", "10m")))
	table := tableAt(t, loaded.Config, time.Now())
	guest := nth(1, server4)
	source := loaded.Config.Doors[0].SourcePrefix.Of(guest)
	must(t, l.server.Do(func() error {
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
				"installed": func() error { return k.Install(table, windows, "") },
				"restored":  func() error { return k.Restore(table, windows) },
				"opened":    func() error { return k.OpenWindows(table.Name, windows[:1]) },
			} {
				if err := put(); err != nil {
					return err
				}
				// No daemon reads the queues: sources with a window are admitted, and no
				// others.
				for end := time.Now().Add(short); l.connects(guest, server4, 22, short/4); {
					if time.Now().After(end) {
						t.Errorf("%s with %s left, the window is still open:\n%s", name, left, l.nft("list", "set", "inet", "knockwall", "ssh_open4"))
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
