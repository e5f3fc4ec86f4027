package share

import (
	"container/heap"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/lease"
)

// The simulation is a group in one process: the members of package lease, and a network that
// delays each message on each way, and loses some. A gap in the numbers makes a member ask, as
// a companion does. Sizes are those of the messages that companions send.
//
//	go test ./internal/share -run Simulation -v -timeout 20m -hosts 1000 -windows 10000
//
// A host hears what all others tell, so the time grows with the hosts and the windows. As all
// hosts are alike, it is enough if some of them hear:
//
//	go test ./internal/share -run Simulation -v -timeout 20m -hosts 1000 -windows 100000 -hear 40
var (
	simulatedHosts   = flag.Int("hosts", 50, "hosts of the simulated group")
	hearingHosts     = flag.Int("hear", 0, "hosts of it that hear what the others tell; 0: all")
	simulatedWindows = flag.Int("windows", 2000, "windows that open in it, in ten minutes")
)

const (
	simulatedTime   = 10 * time.Minute
	simulatedWindow = 30 * time.Second
	lossOf          = 10_000 // one in so many messages is lost
)

// delivery is news on its way to a member.
type delivery struct {
	at       time.Duration
	from, to int
	number   uint64
	answer   bool
	news     *lease.News
}

type deliveries []delivery

func (d deliveries) Len() int           { return len(d) }
func (d deliveries) Less(a, b int) bool { return d[a].at < d[b].at }
func (d deliveries) Swap(a, b int)      { d[a], d[b] = d[b], d[a] }
func (d *deliveries) Push(x any)        { *d = append(*d, x.(delivery)) }
func (d *deliveries) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

func TestSimulationOfAGroup(t *testing.T) {
	hosts, windows := *simulatedHosts, *simulatedWindows
	hearing := hosts
	if n := *hearingHosts; n > 0 {
		hearing = min(n, hosts)
	}
	random := rand.New(rand.NewPCG(1, 2))
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var now time.Duration
	members := make([]*lease.Member, hosts)
	for i := range members {
		members[i] = lease.NewMember(fmt.Sprintf("host%d", i), func() time.Time { return epoch.Add(now) })
		members[i].StateBegins()
		members[i].SetDoors(map[string]time.Duration{"ssh": simulatedWindow}, 1<<17)
		members[i].StateIsKnown()
	}
	numbers := make([]uint64, hosts)   // of the last news of each
	heard := make([][]uint64, hearing) // of which each has heard
	for i := range heard {
		heard[i] = make([]uint64, hosts)
	}
	var on deliveries
	var sent, sentBytes, received, receivedBytes, lost, opened, kept, mostKept int
	size := func(n *lease.News) int {
		data, err := json.Marshal(message{Run: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", Number: 1, News: *n})
		if err != nil {
			t.Fatal(err)
		}
		return len(data)
	}
	deliver := func(d delivery, bytes int) {
		if !d.answer && random.IntN(lossOf) == 0 {
			lost++
			return
		}
		d.at = now + time.Duration(random.Int64N(int64(5*time.Millisecond)))
		received, receivedBytes = received+1, receivedBytes+bytes
		heap.Push(&on, d)
	}
	// apply does at a daemon what is due.
	apply := func(m *lease.Member) {
		const most = 256
		for more := true; more; {
			due := m.Due(most)
			more = len(due) == most
			for _, a := range due {
				if a.Close {
					t.Fatalf("nobody has closed %v", a.Key)
				}
				opened++
				m.Opened(a.Key, a.Left, 0, a.Person, true)
			}
		}
	}
	run := func(until time.Duration) {
		for len(on) > 0 && on[0].at <= until {
			d := heap.Pop(&on).(delivery)
			now = d.at
			gap := !d.answer && d.number > heard[d.to][d.from]+1
			heard[d.to][d.from] = max(heard[d.to][d.from], d.number)
			m := members[d.to]
			if _, _, err := m.Told(fmt.Sprintf("host%d", d.from), d.news); err != nil {
				t.Fatal(err)
			}
			apply(m)
			if gap {
				own := members[d.from].Own()
				deliver(delivery{from: d.from, to: d.to, number: numbers[d.from], answer: true, news: &own}, size(&own))
			}
		}
		now = until
	}
	type window struct {
		key lease.Key
		end time.Duration // when it is over at the daemons
	}
	var open []window
	began := time.Now()
	for n := range windows {
		run(simulatedTime * time.Duration(n) / time.Duration(windows))
		for ; len(open) > 0 && open[0].end <= now; open = open[1:] {
			for _, m := range members[:hearing] {
				m.Expired(open[0].key)
			}
		}
		at := random.IntN(hosts)
		k := lease.Key{Door: "ssh", Source: fmt.Sprintf("2001:db8::%x", n+1)}
		open = append(open, window{k, now + simulatedWindow + time.Second})
		news := members[at].Opened(k, simulatedWindow, 0, lease.Person{Name: "alice@laptop"}, false)
		apply(members[at])
		numbers[at]++
		bytes := size(&news)
		sent, sentBytes = sent+1, sentBytes+bytes
		for to := range hearing {
			if to != at {
				deliver(delivery{from: at, to: to, number: numbers[at], news: &news}, bytes)
			}
		}
		if n%max(1, windows/20) == 0 {
			kept = 0
			for _, m := range members {
				kept = max(kept, m.Len())
			}
			mostKept = max(mostKept, kept)
		}
	}
	run(simulatedTime)
	// What the next news of a host, or its next beat, would make known.
	for to := range hearing {
		for from := range members {
			if to != from && heard[to][from] < numbers[from] {
				own := members[from].Own()
				deliver(delivery{from: from, to: to, number: numbers[from], answer: true, news: &own}, size(&own))
			}
		}
	}
	run(simulatedTime + 10*time.Millisecond)
	last := func(m *lease.Member) (n int) { // the windows that are not just about to end
		for _, s := range m.All().Statements {
			if s.Left > 100 {
				n++
			}
		}
		return n
	}
	known := last(members[0])
	for i, m := range members[:hearing] {
		if n := last(m); n < known-1 || n > known+1 { // one may be at that edge
			t.Errorf("host%d knows %d windows, and host0 %d", i, n, known)
		}
	}
	if want := int(int64(windows) * int64(simulatedWindow) / int64(simulatedTime)); known < want*9/10 || mostKept > want*3/2+20 { // one that has ended is remembered for ten seconds
		t.Errorf("%d windows are known at the end, %d at most; %d are open at a time", known, mostKept, want)
	}
	beats := 1 / beatInterval(hosts-1).Seconds()
	minutes := simulatedTime.Minutes()
	per := func(n, members int) float64 { return float64(n) / float64(members) / minutes }
	t.Logf("%d hosts, of which %d hear the others, %d windows of %s in %s; one message in %d is lost (%d), in %s", hosts, hearing, windows, simulatedWindow, simulatedTime, lossOf, lost, time.Since(began).Round(time.Millisecond))
	t.Logf("a member sends %.1f messages of news a minute, %.2f kB, and %.2f beats a second", per(sent, hosts), per(sentBytes, hosts)/1000, beats)
	t.Logf("it receives %.0f messages of news a minute, %.0f kB, and %.0f beats a second", per(received, hearing), per(receivedBytes, hearing)/1000, beats*float64(hosts-1))
	t.Logf("it knows %d windows at most", mostKept)
	t.Logf("its daemon opens %.0f windows a minute as others tell", per(opened, hearing))
	members = nil
	t.Logf("a window that it knows takes %d bytes, with 50,000 of them", bytesOfAWindow(t))
}

// bytesOfAWindow returns the memory that a member needs for a window of another host.
func bytesOfAWindow(t *testing.T) uint64 {
	const windows, from = 50_000, 10
	now := time.Now()
	m := lease.NewMember("a", func() time.Time { return now })
	m.StateBegins()
	m.SetDoors(map[string]time.Duration{"ssh": simulatedWindow}, 1<<17)
	m.StateIsKnown()
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	for n := range windows {
		data := fmt.Appendf(nil, `{"run":"x","windows":[{"door":"ssh","source":"2001:db8::%x","host":"h%d","stamp":%d,"left":30000,"person":"alice@laptop"}]}`, n+1, n%from, now.UnixMilli())
		message, err := parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.Told(fmt.Sprintf("h%d", n%from), &message.News); err != nil {
			t.Fatal(err)
		}
	}
	used := heap() - before
	if m.Len() != windows {
		t.Errorf("it knows %d", m.Len())
	}
	runtime.KeepAlive(m)
	if used/windows > 2000 {
		t.Errorf("%d bytes a window", used/windows)
	}
	return used / windows
}
