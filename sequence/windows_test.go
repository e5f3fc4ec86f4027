package sequence_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

const window = 30 * time.Second

var aliceSource, bobSource = single(alice), single(bob)

func single(addr netip.Addr) packet.Source {
	return packet.SourcePrefix{IPv4: 32, IPv6: 128}.Of(addr)
}

// connection returns the n-th connection's first packet.
func connection(n int) packet.Packet {
	return packet.Packet{Source: alice, SourcePort: uint16(40000 + n), Port: tcp(22), Sequence: uint32(1000 * n), Flags: packet.SYN}
}

func TestWindowOpensForOneSourceAtOneDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sequence.NewWindows()
		now := time.Now()
		if w.Open(1, aliceSource, now, now.Add(window), 3) {
			t.Error("a new window is said to be refreshed")
		}
		if !w.Get(0, aliceSource).IsNone() || !w.Get(1, bobSource).IsNone() || !w.Get(1, packet.Source{Prefix: netip.MustParsePrefix("192.0.2.0/24")}).IsNone() {
			t.Error("the window is another door's or source's, too")
		}
		win := w.Get(1, aliceSource)
		if win.IsNone() {
			t.Fatal("there is no window")
		}
		if win.Door() != 1 || win.Source() != aliceSource || !win.State().Opened.Equal(now) || !win.Until().Equal(now.Add(window)) || win.Connections() != 0 {
			t.Errorf("window is %+v", win.State())
		}
		if all := w.All(1); len(all) != 1 || all[0] != win || w.Len() != 1 {
			t.Errorf("%d windows, %v", w.Len(), all)
		}
	})
}

func TestWindowIsRefreshedAndStaysOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sequence.NewWindows()
		opened := time.Now()
		w.Open(0, aliceSource, opened, opened.Add(window), 3)
		w.Get(0, aliceSource).Admit(connection(1), time.Time{})
		time.Sleep(window / 2)
		now := time.Now()
		if !w.Open(0, aliceSource, now, now.Add(window), 3) {
			t.Error("an open window is not refreshed")
		}
		win := w.Get(0, aliceSource)
		if w.Len() != 1 || !win.State().Opened.Equal(opened) || !win.Until().Equal(now.Add(window)) {
			t.Errorf("%d windows: %+v", w.Len(), win.State())
		}
		if win.Connections() != 0 {
			t.Errorf("it has admitted %d connections anew", win.Connections())
		}
		if next, ok := w.Next(); !ok || !next.Equal(now.Add(window)) {
			t.Errorf("Next = %v, %t", next, ok)
		}
	})
}

func TestSpentWindowIsOpenedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sequence.NewWindows()
		w.Open(0, aliceSource, time.Now(), time.Now().Add(window), 1)
		win := w.Get(0, aliceSource)
		if win.Spent() {
			t.Error("a new window is spent")
		}
		win.Admit(connection(1), time.Time{})
		if !win.Spent() {
			t.Error("a window for one connection is not spent by one")
		}
		time.Sleep(time.Second)
		now := time.Now()
		if w.Open(0, aliceSource, now, now.Add(window), 1) {
			t.Error("a spent window is said to be refreshed")
		}
		if win := w.Get(0, aliceSource); win.Spent() || !win.State().Opened.Equal(now) || w.Len() != 1 {
			t.Errorf("%d windows: %+v", w.Len(), win.State())
		}
		if got := w.Get(0, aliceSource).Admit(connection(2), time.Time{}); got != sequence.AdmitNew {
			t.Errorf("a new connection: %d", got)
		}
	})
}

func TestAdmit(t *testing.T) {
	type step struct {
		connection  int
		want        sequence.Admission
		connections int
	}
	tests := []struct {
		name  string
		max   int
		steps []step
	}{
		{"one connection", 1, []step{
			{1, sequence.AdmitNew, 1},
			{1, sequence.Replayed, 1},
			{2, sequence.Exhausted, 1},
			{2, sequence.Exhausted, 1},
			{1, sequence.Replayed, 1},
		}},
		{"two connections", 2, []step{
			{1, sequence.AdmitNew, 1},
			{1, sequence.Replayed, 1},
			{2, sequence.AdmitNew, 2},
			{3, sequence.Exhausted, 2},
			{1, sequence.Replayed, 2},
			{2, sequence.Replayed, 2},
		}},
		{"no limit", 0, []step{
			{1, sequence.AdmitNew, 1},
			{2, sequence.AdmitNew, 2},
			{1, sequence.AdmitAgain, 2},
			{3, sequence.AdmitNew, 3},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := sequence.NewWindows()
			w.Open(0, aliceSource, time.Time{}, time.Time{}.Add(window), tt.max)
			win := w.Get(0, aliceSource)
			for i, s := range tt.steps {
				if got := win.Admit(connection(s.connection), time.Time{}); got != s.want || win.Connections() != s.connections {
					t.Errorf("step %d: Admit = %d after %d connections, want %d after %d", i, got, win.Connections(), s.want, s.connections)
				}
			}
		})
	}
}

// A window with a limit takes a repeated first packet for another connection, unless the
// first packet was lost, and the packet comes when its sender may have noticed that.
func TestAdmitRefusesReplays(t *testing.T) {
	for _, tt := range []struct {
		name     string
		max      int
		protocol packet.Protocol
		want     sequence.Admission
	}{
		{"limited", 2, packet.TCP, sequence.Replayed},
		{"spent", 1, packet.TCP, sequence.Replayed},
		{"no limit", 0, packet.TCP, sequence.AdmitAgain},
		{"datagrams", 2, packet.UDP, sequence.AdmitAgain},
	} {
		now := time.Unix(1, 0)
		w := sequence.NewWindows()
		w.Open(0, aliceSource, now, now.Add(window), tt.max)
		win := w.Get(0, aliceSource)
		p, other := connection(1), connection(2)
		p.Port.Protocol, other.Port.Protocol = tt.protocol, tt.protocol
		expect := func(when string, want sequence.Admission) {
			t.Helper()
			if got := win.Admit(p, now); got != want || win.Connections() != 1 {
				t.Errorf("%s, %s: %d after %d connections, want %d", tt.name, when, got, win.Connections(), want)
			}
		}
		expect("the first", sequence.AdmitNew)
		win.Lost(other, now)
		expect("again", tt.want)
		now = now.Add(time.Second)
		expect("a second later", tt.want)
		win.Lost(p, now)
		expect("at once after it was lost", tt.want)
		now = now.Add(time.Second)
		expect("a second after that", tt.want)
		win.Lost(p, now)
		now = now.Add(time.Second)
		expect("a second after it was lost", sequence.AdmitAgain)
		now = now.Add(time.Second)
		expect("and once more", tt.want)
		if win.Counts(p) != (tt.want == sequence.Replayed) {
			t.Errorf("%s: Counts is %t", tt.name, win.Counts(p))
		}
		if !win.Knows(p) || win.Knows(other) {
			t.Errorf("%s: knows both, or none", tt.name)
		}
		w.Open(0, aliceSource, now, now.Add(window), tt.max)
		expect("in a window that is opened anew", sequence.AdmitNew)
	}
}

// A connection is recognized by its destination, its source and its sequence number, all
// of them.
func TestAdmitDistinguishesConnections(t *testing.T) {
	w := sequence.NewWindows()
	w.Open(0, aliceSource, time.Time{}, time.Time{}.Add(window), 0)
	win := w.Get(0, aliceSource)
	p := connection(1)
	for _, change := range []func(){
		func() {}, func() { p.SourcePort++ }, func() { p.Sequence++ }, func() { p.Port.Number++ }, func() { p.Port.Protocol = packet.UDP },
	} {
		change()
		if got := win.Admit(p, time.Time{}); got != sequence.AdmitNew {
			t.Errorf("%+v: %d, want a new connection", p, got)
		}
		if got := win.Admit(p, time.Time{}); got != sequence.AdmitAgain {
			t.Errorf("%+v again: %d, want the same connection", p, got)
		}
	}
}

// A window with a limit recognizes every connection that it has admitted. One without a
// limit recognizes only the latest.
func TestAdmitRemembers(t *testing.T) {
	w := sequence.NewWindows()
	const many = 100
	w.Open(0, aliceSource, time.Time{}, time.Time{}.Add(window), many)
	w.Open(0, bobSource, time.Time{}, time.Time{}.Add(window), 0)
	limited, unlimited := w.Get(0, aliceSource), w.Get(0, bobSource)
	for n := range many {
		for name, win := range map[string]sequence.Window{"limited": limited, "unlimited": unlimited} {
			if got := win.Admit(connection(n), time.Time{}); got != sequence.AdmitNew {
				t.Fatalf("%s: connection %d: %d, want a new one", name, n, got)
			}
		}
		// The latest few are remembered, however often the memory wraps.
		for before := max(0, n-3); before <= n; before++ {
			if got := unlimited.Admit(connection(before), time.Time{}); got != sequence.AdmitAgain {
				t.Errorf("after %d: connection %d: %d, want it known again", n, before, got)
			}
		}
	}
	for n := range many {
		if got := limited.Admit(connection(n), time.Time{}); got != sequence.Replayed {
			t.Errorf("connection %d: %d, want it known again", n, got)
		}
	}
	if got := unlimited.Admit(connection(0), time.Time{}); got != sequence.AdmitNew {
		t.Errorf("a connection of long ago: %d, want what is remembered to be bounded", got)
	}
}

// repeats counts how often a window sends a packet through the rules again, up to a
// bound.
func repeats(win sequence.Window) int {
	const bound = 1000
	n := 0
	for n < bound && win.Repeat() {
		n++
	}
	return n
}

func TestRepeatOnlyWhileTheWindowStandsAndWithALimit(t *testing.T) {
	w := sequence.NewWindows()
	w.Stands(0, aliceSource, time.Time{}.Add(window)) // there is none: nothing happens
	w.Open(0, aliceSource, time.Time{}, time.Time{}.Add(window), 0)
	win := w.Get(0, aliceSource)
	if win.Repeat() {
		t.Error("a packet is repeated before the kernel has the window")
	}
	w.Stands(0, aliceSource, time.Time{}.Add(window))
	budget := repeats(win)
	if budget == 0 || budget == 1000 {
		t.Fatalf("%d packets are repeated, want some, and a bound", budget)
	}
	if win.Repeat() {
		t.Error("a packet is repeated when no more may be")
	}
	// A refresh makes the window stand anew, with all its repeats.
	w.Stands(0, aliceSource, time.Time{}.Add(window))
	w.Open(0, aliceSource, time.Time{}, time.Time{}.Add(window), 0)
	if win.Repeat() {
		t.Error("a packet is repeated before the kernel has the refreshed window")
	}
	w.Stands(0, aliceSource, time.Time{}.Add(window))
	if got := repeats(win); got != budget {
		t.Errorf("%d packets are repeated after a refresh, want %d", got, budget)
	}
}

// The kernel has the window for longer than noted, if the transaction took a while.
// Before a window stands, packets that the kernel's rules only accept need not wait for it.
func TestAWindowOpensUntilItStands(t *testing.T) {
	w := sequence.NewWindows()
	now := time.Now()
	syn, datagram := connection(1), connection(1)
	datagram.Port.Protocol = packet.UDP
	expect := func(what string, p packet.Packet, at time.Time, want bool) {
		t.Helper()
		if got := w.Get(0, aliceSource).Opens(p, at); got != want {
			t.Errorf("%s: it opens: %t", what, got)
		}
	}
	w.Open(0, aliceSource, now, now.Add(window), 0)
	expect("it does not stand", syn, now, true)
	expect("a datagram", datagram, now, false)
	expect("its time is up", syn, now.Add(window), false)
	w.Stands(0, aliceSource, now.Add(window))
	expect("it stands", syn, now, false)
	w.Open(0, aliceSource, now, now.Add(window), 0)
	expect("it is refreshed", syn, now, true)
	w.Open(0, aliceSource, now, now.Add(window), 1)
	expect("with a limit", syn, now, false)
}

func TestAWindowLastsAsLongAsItStands(t *testing.T) {
	w := sequence.NewWindows()
	w.Open(0, aliceSource, time.Time{}, time.Time{}.Add(window), 0)
	w.Open(1, aliceSource, time.Time{}, time.Time{}.Add(window+time.Minute), 0)
	later := time.Time{}.Add(window + time.Hour)
	w.Stands(0, aliceSource, later)
	if next, _ := w.Next(); !next.Equal(time.Time{}.Add(window + time.Minute)) {
		t.Errorf("the next one ends at %s", next)
	}
	if got := w.Get(0, aliceSource).Until(); !got.Equal(later) {
		t.Errorf("it ends at %s, want %s", got, later)
	}
}

func TestWindowsExpireInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sequence.NewWindows()
		if _, ok := w.Next(); ok {
			t.Error("Next of no windows")
		}
		start := time.Now()
		for _, d := range []int{5, 2, 4, 1, 3} {
			w.Open(d, aliceSource, start, start.Add(time.Duration(d)*time.Second), 0)
		}
		expired := func() (doors []int) {
			w.Expire(time.Now(), 10, func(win sequence.Window) { doors = append(doors, win.Door()) })
			return doors
		}
		next := func(want time.Duration) {
			t.Helper()
			if at, ok := w.Next(); !ok || at.Sub(start) != want {
				t.Errorf("Next = %v, %t, want %v", at.Sub(start), ok, want)
			}
		}
		next(time.Second)
		time.Sleep(time.Second - 1)
		if got := expired(); got != nil {
			t.Errorf("too soon: %d", got)
		}
		time.Sleep(time.Nanosecond)
		if diff := cmp.Diff([]int{1}, expired()); diff != "" {
			t.Errorf("at the end of the first (-want +got):\n%s", diff)
		}
		next(2 * time.Second)
		w.Open(2, aliceSource, time.Now(), start.Add(6*time.Second), 0) // refreshed
		next(3 * time.Second)
		if !w.Close(3, aliceSource) || w.Close(3, aliceSource) {
			t.Error("a window is not closed once")
		}
		next(4 * time.Second)
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]int{4, 5, 2}, expired()); diff != "" {
			t.Errorf("at the end of all (-want +got):\n%s", diff)
		}
		if _, ok := w.Next(); ok || w.Len() != 0 {
			t.Errorf("%d windows are left", w.Len())
		}
	})
}

// Windows that open, close and end at random equal those of a plain map.
func TestWindowsAreThoseOfAMap(t *testing.T) {
	t.Logf("run again with -seed=%d", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	type key struct {
		door   int
		source packet.Source
	}
	w := sequence.NewWindows()
	want := map[key]time.Time{}
	now := time.Unix(1, 0)
	for range 20_000 {
		k := key{random.IntN(3), single(trialSources[random.IntN(len(trialSources))])}
		_, open := want[k]
		switch random.IntN(4) {
		case 0, 1:
			until := now.Add(time.Duration(1+random.IntN(10)) * time.Second)
			if refreshed := w.Open(k.door, k.source, now, until, 0); refreshed != open {
				t.Fatalf("refreshed is %t", refreshed)
			}
			want[k] = until
		case 2:
			if closed := w.Close(k.door, k.source); closed != open {
				t.Fatalf("closed is %t", closed)
			}
			delete(want, k)
		case 3:
			now = now.Add(time.Duration(random.IntN(2000)) * time.Millisecond)
			var last time.Time
			most := random.IntN(40)
			left := most
			w.Expire(now, most, func(win sequence.Window) {
				if win.Until().Before(last) {
					t.Fatalf("a window that ends at %v is handed over after one that ends at %v", win.Until(), last)
				}
				last = win.Until()
				k := key{win.Door(), win.Source()}
				if until := want[k]; !until.Equal(win.Until()) || until.After(now) {
					t.Fatalf("a window ends at %v, want %v", win.Until(), until)
				}
				delete(want, k)
				left--
			})
			if next, ok := w.Next(); left < 0 || left > 0 && ok && !next.After(now) {
				t.Fatalf("%d of %d windows ended by %v, and the next ends at %v", most-left, most, now, next)
			}
		}
		got := map[key]time.Time{}
		var first time.Time
		for _, win := range w.All(1 + random.IntN(8)) {
			got[key{win.Door(), win.Source()}] = win.Until()
			if first.IsZero() || win.Until().Before(first) {
				first = win.Until()
			}
		}
		if err := w.Check(); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || w.Len() != len(want) {
			t.Fatalf("%d windows: %v, want %v", w.Len(), got, want)
		}
		if next, ok := w.Next(); ok != (len(want) > 0) || !next.Equal(first) {
			t.Fatalf("Next = %v, %t, want %v", next, ok, first)
		}
	}
}

// What a network has of a door's windows is counted as windows open, are spent, are opened
// again, are closed and end.
func TestWindowsOfANetworkAreCounted(t *testing.T) {
	w := sequence.NewWindows()
	now := time.Now()
	far := single(netip.MustParseAddr("203.0.113.7"))
	network, all := sequence.NetworkOf(aliceSource), netip.MustParsePrefix("0.0.0.0/0")
	expect := func(what string, ofNetwork, ofAll int) {
		t.Helper()
		if n := w.Count(0, network); n != ofNetwork {
			t.Errorf("%s: the network has %d windows, want %d", what, n, ofNetwork)
		}
		if n := w.Count(0, all); n != ofAll {
			t.Errorf("%s: IPv4 has %d windows, want %d", what, n, ofAll)
		}
	}
	expect("nothing is open", 0, 0)
	w.Open(1, aliceSource, now, now.Add(window), 0)
	expect("another door is open", 0, 0)
	w.Open(0, aliceSource, now, now.Add(window), 1)
	w.Open(0, far, now, now.Add(2*window), 0)
	expect("two are open", 1, 2)
	w.Open(0, aliceSource, now, now.Add(window), 1)
	expect("one is refreshed", 1, 2)
	w.Get(0, aliceSource).Admit(connection(1), now)
	expect("one is spent", 0, 1)
	w.Open(0, aliceSource, now, now.Add(window), 1)
	expect("and opened again", 1, 2)
	w.Get(0, aliceSource).Admit(connection(2), now)
	w.Expire(now.Add(window), 10, func(sequence.Window) {})
	expect("and spent, and over", 0, 1)
	w.Close(0, far)
	expect("all are closed", 0, 0)
}

// All link-local addresses of a link may be one source. Its network is then all of its version.
func TestAWindowOfAllLinkLocalAddressesCountsOnce(t *testing.T) {
	w := sequence.NewWindows()
	source := packet.SourcePrefix{IPv4: 32, IPv6: 10}.Of(netip.MustParseAddr("fe80::1%2"))
	w.Open(0, source, time.Now(), time.Now().Add(window), 0)
	if n := w.CountVersion(0, source); n != 1 {
		t.Errorf("%d windows, want 1", n)
	}
	w.Close(0, source)
	if n := w.Total(0); n != 0 {
		t.Errorf("after it was closed, %d windows", n)
	}
}

func TestNetworkOf(t *testing.T) {
	for source, want := range map[string]string{
		"192.0.2.7":           "192.0.0.0/16",
		"192.0.2.0/24":        "192.0.0.0/16",
		"10.0.0.0/8":          "10.0.0.0/8",
		"2001:db8:1:2::7":     "2001:db8::/32",
		"2001:db8:1:2::/64":   "2001:db8::/32",
		"2001:db00::/24":      "2001:db00::/24",
		"fe80::1234:5678:9ab": "fe80::/32",
	} {
		s, err := packet.ParseSource(source)
		if err != nil {
			t.Fatal(err)
		}
		if got := sequence.NetworkOf(s); got.String() != want {
			t.Errorf("the network of %s is %s, want %s", source, got, want)
		}
	}
}

// A door can have a million windows, most of which have no connection at a time. What the
// daemon remembers of a connection is several times the rest.
func TestAWindowWithoutConnectionsIsSmall(t *testing.T) {
	checkSize(t, 100_000, 110, func(w *sequence.Windows, source packet.Source, now time.Time) {
		w.Open(0, source, now, now.Add(time.Hour), 0)
	})
}

// Whoever knows the knocks decides how many windows there are, and the limit may be large. So a
// connection takes memory when it comes.
func TestAWindowWithAConnectionIsSmallWhateverItsLimit(t *testing.T) {
	checkSize(t, 1000, 4096, func(w *sequence.Windows, source packet.Source, now time.Time) {
		w.Open(0, source, now, now.Add(time.Hour), 1000)
		w.Get(0, source).Admit(connection(1), now)
	})
}

// checkSize fails the test if so many windows take more than most bytes each.
func checkSize(t *testing.T, windows, most int, open func(w *sequence.Windows, source packet.Source, now time.Time)) {
	t.Helper()
	var before, after runtime.MemStats
	w := sequence.NewWindows()
	now := time.Now()
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range windows {
		open(w, packet.Source{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}, now)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int(after.HeapAlloc) - int(before.HeapAlloc)) / windows; each > most {
		t.Errorf("a window takes %d bytes, want at most %d", each, most)
	}
	runtime.KeepAlive(w)
}

// So many that some have the same hash, with a probability of all but one in a billion.
func TestManyWindowsAreFoundAndClosed(t *testing.T) {
	const windows = 450_000
	w := sequence.NewWindows()
	now := time.Unix(1, 0)
	sourceOf := func(i int) packet.Source {
		return packet.Source{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}
	}
	untilOf := func(i int) time.Time { return now.Add(time.Duration(1+i%977) * time.Second) }
	open := func(from, step int) {
		for i := from; i < windows; i += step {
			w.Open(i%3, sourceOf(i), now, untilOf(i), 0)
			w.Get(i%3, sourceOf(i)).Grant(fmt.Sprint("person ", i%5), now)
		}
	}
	expect := func(what string, closed func(i int) bool) {
		t.Helper()
		n := 0
		for i := range windows {
			win := w.Get(i%3, sourceOf(i))
			if win.IsNone() != closed(i) || !win.IsNone() && (!win.Until().Equal(untilOf(i)) || win.Opener() != fmt.Sprint("person ", i%5)) {
				t.Fatalf("%s: window %d is wrong, or open: %t", what, i, !win.IsNone())
			}
			if !win.IsNone() {
				n++
			}
		}
		if total := w.Total(0) + w.Total(1) + w.Total(2); total != n || w.Len() != n {
			t.Errorf("%s: %d windows and %d in all, want %d", what, w.Len(), total, n)
		}
		if err := w.Check(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	open(0, 1)
	expect("all are open", func(int) bool { return false })
	for i := 0; i < windows; i += 2 {
		if !w.Close(i%3, sourceOf(i)) {
			t.Fatalf("window %d is not open", i)
		}
	}
	expect("every second is closed", func(i int) bool { return i%2 == 0 })
	open(0, 4)
	expect("a quarter is opened again", func(i int) bool { return i%4 == 2 })
	w.Expire(now.Add(time.Hour), windows, func(sequence.Window) {})
	expect("all have ended", func(int) bool { return true })
	open(1, 2)
	expect("half is open", func(i int) bool { return i%2 == 0 })
}
