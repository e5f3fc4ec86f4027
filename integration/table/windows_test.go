package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Windows that are opened in one transaction, in the real kernel.

const windowRules = `
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
door "web" {
  ports         = [443]
  sequence      = [4114, 1841]
  source_prefix = { ipv4 = 24, ipv6 = 64 }
}`

// openings is a wall on the server without a daemon.
type openings struct {
	*lab.Lab
	kernel *nft.Kernel
	config *ruleset.Config
	began  time.Time // no window was opened before
}

func newOpenings(t testing.TB) *openings {
	t.Helper()
	l := lab.New(t)
	loaded := ruleset.Load(l.WriteRules(windowRules))
	if loaded.Config == nil {
		t.Fatal(loaded.Diagnostics)
	}
	o := &openings{Lab: l, config: loaded.Config, began: time.Now()}
	lab.Must(t, l.Server.Do(func() (err error) {
		o.kernel, err = nft.OpenKernel()
		return err
	}))
	t.Cleanup(func() { o.kernel.Close() })
	lab.Must(t, o.kernel.Install(tableAt(t, o.config, time.Now()), nil, ""))
	return o
}

// window returns the window of a door's n-th source.
func (o *openings) window(door string, n int, v6 bool, left time.Duration) nft.Window {
	var addr netip.Addr
	if v6 {
		a := netip.MustParseAddr("2001:db8:2::").As16()
		binary.BigEndian.PutUint32(a[4:], uint32(n)) // different sources with any prefix length
		addr = netip.AddrFrom16(a)
	} else {
		addr = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 11<<24+uint32(n)<<8)))
	}
	return nft.Window{Door: door, Source: o.config.Door(door).SourcePrefix.Of(addr), Left: left}
}

// several returns n windows, of both doors and IP versions.
func (o *openings) several(n int, left time.Duration) (windows []nft.Window) {
	for i := range n {
		windows = append(windows, o.window([]string{"ssh", "web"}[i%2], i/4, i/2%2 == 1, left))
	}
	return windows
}

func (o *openings) open(windows []nft.Window) error {
	return o.kernel.OpenWindows(o.config.Wall.Table, windows)
}

type source struct {
	door string
	packet.Source
}

// left returns the open windows, and how much time they have left.
func (o *openings) left() map[source]time.Duration {
	o.T.Helper()
	windows, err := lab.WindowsIn(o.kernel, o.config.Wall.Table)
	lab.Must(o.T, err)
	left := map[source]time.Duration{}
	for _, w := range windows {
		left[source{w.Door, w.Source}] = w.Left
	}
	return left
}

// check fails the test unless exactly these windows are open, with their time left or less,
// by the time that the test has taken.
func (o *openings) check(windows []nft.Window) {
	o.T.Helper()
	// While the kernel still enlarges a set, a listing may lack some elements.
	open := o.left()
	eventually.True(o.T, fmt.Sprintf("%d windows are open", len(windows)), func() bool {
		open = o.left()
		return len(open) == len(windows)
	})
	for _, w := range windows {
		if left := open[source{w.Door, w.Source}]; left > w.Left || left < w.Left-time.Since(o.began)-lab.Deadline {
			o.T.Fatalf("%s is open at %s for %s, want %s", w.Source, w.Door, left, w.Left)
		}
	}
}

func TestWindowsAreOpenedInOneTransaction(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 4, 1000, 4096, 10_000} { // the last does not fit into one message
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			o := newOpenings(t)
			windows := o.several(n, 30*time.Minute)
			lab.Must(t, o.open(windows))
			o.check(windows)
			for i := range windows {
				windows[i].Left = 3 * time.Hour
				if i%3 == 0 {
					windows[i].Left = time.Minute // less than before
				}
			}
			lab.Must(t, o.open(windows))
			o.check(windows)
		})
	}
}

func TestSomeWindowsAreOpenedAndOthersRefreshedInOneTransaction(t *testing.T) {
	t.Parallel()
	o := newOpenings(t)
	windows := o.several(200, 2*time.Hour)
	first := o.several(100, time.Minute)
	lab.Must(t, o.open(first))
	lab.Must(t, o.open(windows[50:]))
	o.check(append(first[:50], windows[50:]...))
}

// Windows are refreshed before, after and at the moment at which they expire.
func TestWindowsAreRefreshedWhenTheirTimeIsUp(t *testing.T) {
	t.Parallel()
	o := newOpenings(t)
	const rounds, each, length = 200, 50, 5 * time.Millisecond
	all := o.several(rounds*each, length)
	for i := range rounds {
		windows := all[i*each : (i+1)*each]
		lab.Must(t, o.open(windows))
		// The refreshes begin before the windows expire and end afterwards, in ticks of the
		// kernel.
		time.Sleep(time.Duration(i) * 3 * length / rounds)
		for j := range windows {
			windows[j].Left = time.Hour
		}
		lab.Must(t, o.open(windows))
	}
	o.check(all)
}

// If one window of a transaction cannot be opened, none is, and open windows stay open.
func TestATransactionThatFailsOpensNoWindow(t *testing.T) {
	t.Parallel()
	o := newOpenings(t)
	all := o.several(100, time.Hour)
	lab.Must(t, o.open(all))
	fits := []nft.Window{o.window("web", 1000, false, time.Hour), o.window("ssh", 1000, true, time.Hour)}
	wrong := o.window("ssh", 1001, false, time.Hour)
	wrong.Source = packet.Source{} // no address makes a key
	err := o.open(append(fits, wrong))
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "opening web for 11.3.232.0/24 and 2 more") {
		t.Errorf("a window that cannot be opened: %v", err)
	}
	o.check(all)
	lab.Must(t, o.open(fits))
	o.check(append(all, fits...))
}

// All doors share the sets of windows. A door that goes, or that takes other sources for one,
// leaves no window there for when it is the same again.
func TestAWindowGoesWithItsDoor(t *testing.T) {
	t.Parallel()
	const only = `
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}`
	o := newOpenings(t)
	install := func(rules string, given []nft.Window) { // all that are open
		t.Helper()
		loaded := ruleset.Load(o.WriteRules(rules))
		if loaded.Config == nil {
			t.Fatal(loaded.Diagnostics)
		}
		lab.Must(t, o.kernel.Install(tableAt(t, loaded.Config, time.Now()), slices.Values(given), ""))
	}
	ssh := []nft.Window{o.window("ssh", 1, false, time.Hour), o.window("ssh", 2, true, time.Hour)}
	web := []nft.Window{o.window("web", 1, false, time.Hour), o.window("web", 2, true, time.Hour)}
	lab.Must(t, o.open(slices.Concat(ssh, web)))
	for name, rules := range map[string]string{
		"removed": only,
		"changed": strings.Replace(windowRules, "ipv4 = 24, ipv6 = 64", "ipv4 = 32, ipv6 = 128", 1),
	} {
		install(rules, slices.Concat(ssh, web))
		o.check(ssh)
		install(windowRules, ssh)
		o.check(ssh)
		install(rules, ssh)
		install(windowRules, slices.Concat(ssh, web))
		o.check(slices.Concat(ssh, web))
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// A table that takes other addresses for one source is another one, though it has as many
// rules in the same chains.
func TestATableThatDividesSourcesOtherwiseIsNotIntact(t *testing.T) {
	t.Parallel()
	o := newOpenings(t)
	o.config.Doors[1].Closed = ruleset.Reject // no set for its knocks has the prefix in its name
	lab.Must(t, o.kernel.Install(tableAt(t, o.config, time.Now()), nil, ""))
	other := *o.config
	other.Doors = slices.Clone(other.Doors)
	other.Doors[1].SourcePrefix.IPv4 = 16
	for c, want := range map[*ruleset.Config]bool{o.config: true, &other: false} {
		if intact, err := o.kernel.Intact(tableAt(t, c, time.Now())); err != nil || intact != want {
			t.Errorf("the table of %v is intact: %v, %v", c.Doors[1].SourcePrefix, intact, err)
		}
	}
}

// The kernel remembers sources whose last knock may be on its way. It does not remember
// sources that have only sent the first knock, because anybody can do that with one packet.
func TestASourceIsNotRememberedAfterItsFirstKnock(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(server.String(), func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			d := l.Run(`door "ssh" {
  ports       = [22]
  sequence    = [4113, "27911/udp", 1840]
  seq_timeout = "2m"
}`) // nft is slow on a busy machine
			set := "knocking4"
			if server.Is6() {
				set = "knocking6"
			}
			remembered := func(who netip.Addr) bool {
				return strings.Contains(l.Nft("list", "set", "inet", "knockwall", set), " "+who.String()+" ")
			}
			begun, further := lab.Source(1, server), lab.Source(2, server)
			l.Knock(begun, server, lab.TCP(4113), lab.TCP(4113))
			l.Knock(further, server, lab.TCP(4113))
			d.WaitFor("knock", "source="+further.String()+" ", "step=1")
			for _, who := range []netip.Addr{begun, further} {
				if remembered(who) {
					t.Errorf("%s is remembered after the first knock", who)
				}
			}
			l.Knock(further, server, lab.UDP(27911))
			eventually.True(t, "a source is remembered after the second knock", func() bool { return remembered(further) })
			if remembered(begun) {
				t.Error("a source that repeats the first knock is remembered")
			}
			l.Knock(further, server, lab.TCP(1840))
			d.WaitFor("opened", "source="+further.String()+" ")
		})
	}
}

// If the windows of an installed table cannot be read, none of them count as read: a reload
// would close the others.
func TestWindowsThatCannotBeReadAreUnknown(t *testing.T) {
	t.Parallel()
	o := newOpenings(t)
	lab.Must(t, o.open(o.several(4, time.Minute)))
	// Afterwards it asks in the network of its caller, which has no such table.
	lab.Must(t, o.kernel.Close())
	if windows, err := lab.WindowsIn(o.kernel, o.config.Wall.Table); err == nil {
		t.Errorf("the windows are %v", windows)
	}
}

// While no daemon runs, another process may have added a map that names a chain, which then
// cannot be deleted by itself. The next daemon replaces the whole table, with its windows.
// Some kernels before 6.4 do not delete chains either that the table's own maps have named.
func TestATableWithChainsInUseIsReplaced(t *testing.T) {
	t.Parallel()
	o := newOpenings(t)
	open := o.several(4, time.Minute)
	lab.Must(t, o.open(open))
	lab.Must(t, o.kernel.Close())
	o.Nft("add map inet knockwall foreign { type inet_service : verdict; elements = { 1 : goto web_admit, 2 : goto web_knock }; }")
	loaded := ruleset.Load(o.WriteRules(lab.SSHRules))
	if loaded.Config == nil {
		t.Fatal(loaded.Diagnostics)
	}
	lab.Must(t, o.Server.Do(func() (err error) {
		o.kernel, err = nft.OpenKernel()
		return err
	}))
	open = slices.DeleteFunc(open, func(w nft.Window) bool { return w.Door != "ssh" })
	table := tableAt(t, loaded.Config, time.Now())
	lab.Must(t, o.kernel.Install(table, slices.Values(open), ""))
	o.check(open)
	if intact, err := o.kernel.Intact(table); err != nil || !intact {
		t.Errorf("the table is as it was installed: %v, %v", intact, err)
	}
}
