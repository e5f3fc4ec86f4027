package lease

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/knockwall/knockwall/internal/method"
)

// A lease that is passed on, however often and slowly, does not become longer by that.
func TestALeaseThatIsPassedOnDoesNotGetLonger(t *testing.T) {
	now := epoch
	m := member(&now)
	s := Statement{Door: "ssh", Source: "192.0.2.1", Host: "b", Stamp: epoch.UnixMilli(), Left: 10_000}
	for _, from := range []string{"b", "c", "d"} {
		m.Told(from, &News{Statements: []Statement{s}})
		now = now.Add(3 * time.Second) // what others tell then was true three seconds ago
	}
	if left := m.left(s.key()); left != time.Second {
		t.Errorf("nine seconds later it has %s left", left)
	}
	now = now.Add(-9 * time.Second)
	s.Left = 4_000 // it was passed on by a faster way
	m.Told("c", &News{Statements: []Statement{s}})
	if left := m.left(s.key()); left != 4*time.Second {
		t.Errorf("it has %s left", left)
	}
}

// An account of a lease that comes after its end, because the network or a host was slow,
// does not begin it again.
func TestALateAccountDoesNotBeginALeaseAgain(t *testing.T) {
	now := epoch
	m := member(&now)
	s := Statement{Door: "ssh", Source: "192.0.2.1", Host: "b", Stamp: epoch.UnixMilli(), Left: 10_000}
	m.Told("b", &News{Statements: []Statement{s}})
	s.Left = 500 // as another host knew it, half a second before its end
	now = now.Add(10*time.Second + late - time.Second)
	m.Due(100)
	m.Told("c", &News{Statements: []Statement{s}})
	if left := m.left(s.key()); left != 0 {
		t.Errorf("it has %s left", left)
	}
	if all := m.All(); len(all.Statements) != 0 {
		t.Errorf("a lease that has ended is told: %v", all.Statements)
	}
	now = now.Add(2 * time.Second)
	m.Due(100)
	if m.Len() != 0 {
		t.Error("it is remembered longer than necessary")
	}
}

// member returns a member whose daemon has no windows, and which shares the door ssh.
func member(now *time.Time) *Member {
	m := NewMember("a", func() time.Time { return *now })
	m.StateBegins()
	m.SetDoors(map[string]time.Duration{"ssh": 30 * time.Second}, 50)
	m.StateIsKnown()
	return m
}

// left returns the time that a window has left at the member's host; 0: it is none.
func (m *Member) left(k Key) time.Duration {
	now := m.table.at(m.now())
	if l, ok := m.table.entries[k].window(m.table.name, m.doors[k.Door], now); ok {
		return l.end.sub(now)
	}
	return 0
}

// A window of this host that is longer than those of its door keeps its length, whatever
// others tell of it. Others have it for as long as their own door says, from when it began,
// and pass it on as it is.
func TestALongLeaseKeepsItsLength(t *testing.T) {
	now := epoch
	a, b := member(&now), member(&now)
	b.name, b.table.name = "b", unique.Make("b")
	k := Key{"ssh", "192.0.2.1"}
	n := a.Opened(k, time.Hour, 0, Person{}, false)
	now = now.Add(10 * time.Second) // as others were asked, and not by news
	n = a.Own()
	b.Told("a", &n)
	if a.left(k) != time.Hour-10*time.Second || b.left(k) != 20*time.Second {
		t.Errorf("after ten seconds it has %s left, and at the other host %s", a.left(k), b.left(k))
	}
	passed := b.All()
	if s := passed.Statements[0]; s.Left != (time.Hour-10*time.Second).Milliseconds() || s.Age != 10_000 {
		t.Errorf("it is passed on as %+v", s)
	}
	passed.Statements[0].Left = 1000
	a.Told("b", &passed)
	if a.left(k) != time.Hour-10*time.Second {
		t.Errorf("another host has made it end in %s", a.left(k))
	}
	closing := News{Statements: []Statement{{Door: "ssh", Source: k.Source, Host: "b", Stamp: now.UnixMilli(), Closed: true}}}
	a.Told("b", &closing)
	if due := a.Due(1); len(due) != 1 || !due[0].Close {
		t.Errorf("after a closing: %+v", due)
	}
}

// A host opens its own window again for others to know after its companion has started anew.
func TestALongLeaseKeepsItsLengthAfterARestart(t *testing.T) {
	now := epoch
	m := member(&now)
	k := Key{"ssh", "192.0.2.1"}
	m.Told("b", &News{Statements: []Statement{{Door: "ssh", Source: k.Source, Host: "a", Stamp: epoch.UnixMilli(), Left: 3_600_000}}})
	m.StateBegins()
	m.Opened(k, time.Hour, 0, Person{}, false)
	m.StateIsKnown()
	m.Told("c", &News{Statements: []Statement{{Door: "ssh", Source: k.Source, Host: "a", Stamp: epoch.UnixMilli(), Left: 1000}}})
	if left := m.left(k); left != time.Hour {
		t.Errorf("it has %s left", left)
	}
}

// What others can make a host remember has limits, and what it does itself has none.
func TestLimitsAreForOthers(t *testing.T) {
	now := epoch
	m := member(&now) // whose door can have 50 windows
	key := func(n int) Key { return Key{"ssh", fmt.Sprintf("2001:db8::%x", n)} }
	next := 0
	open := func(host string, n int) error {
		k := key(n)
		_, _, err := m.Told(host, &News{Statements: []Statement{{Door: k.Door, Source: k.Source, Host: host, Stamp: epoch.UnixMilli(), Left: int64(10_000 + len(host))}}})
		return err
	}
	fill := func(host string) (taken int) { // returns how many windows of a host are taken
		for {
			next++
			err := open(host, next)
			if err != nil && err != ErrFull {
				t.Fatal(err)
			}
			if err != nil || taken > 1000 {
				return taken
			}
			taken++
		}
	}
	for range 200 { // takes no place of others
		next++
		if news := m.Opened(key(next), time.Second, 0, Person{}, false); len(news.Statements) != 1 {
			t.Fatalf("own window %d is not told", next)
		}
	}
	known := next + 1
	if n := fill("b"); n != 50 {
		t.Errorf("%d windows of one host are taken", n)
	}
	// Whoever comes then gets half of what is left.
	for _, want := range []int{25, 13, 6} {
		if n := fill(fmt.Sprint("host", want)); n != want {
			t.Errorf("%d windows of another host are taken, not %d", n, want)
		}
	}
	for n := range maxLeases + 2 { // of a window that is known
		if err := open(strings.Repeat("c", n+1), known); err != nil {
			t.Fatal(err)
		}
	}
	m.Opened(key(known), time.Second, 0, Person{}, false)
	if n := len(m.table.entries[key(known)].leases); m.table.own(key(known)) == nil || n != maxLeases+1 {
		t.Errorf("with the own one there are %d leases: %+v", n, m.table.own(key(known)))
	}
	if err := open("another", known); err != nil || m.table.own(key(known)) == nil {
		t.Errorf("another host has replaced it: %v", err)
	}
	if next++; open("b", next) != ErrFull {
		t.Error("a host that has more than others may is given more")
	}
	// Other rules allow more, but never more than memory is there for.
	m.SetDoors(m.doors, 1000)
	if next++; open("b", next) != nil {
		t.Error("other rules allow no more")
	}
	if m.SetDoors(m.doors, math.MaxInt); m.table.limit != MaxEntries {
		t.Errorf("the limit is %d", m.table.limit)
	}
}

// Two hosts that begin at the same time get the same.
func TestRoomIsSharedByHosts(t *testing.T) {
	now := epoch
	m := member(&now)
	m.SetDoors(m.doors, 1500)
	taken := map[string]int{}
	for n := range 3000 {
		host := string(rune('b' + n%2))
		s := Statement{Door: "ssh", Source: fmt.Sprintf("2001:db8::%x", n+1), Host: host, Stamp: epoch.UnixMilli(), Left: 10_000}
		if _, _, err := m.Told(host, &News{Statements: []Statement{s}}); err == nil {
			taken[host]++
		}
	}
	if taken["b"] != 1000 || taken["c"] != 1000 {
		t.Errorf("of them are taken %v", taken)
	}
}

func TestUsedKnocksOfOthersAreLimited(t *testing.T) {
	now := epoch
	m := member(&now)
	used := func(from string, n int, at time.Time) error {
		_, _, err := m.Told(from, &News{Used: []Used{{Method: "keys", Time: at, Person: Person{Key: strconv.Itoa(n)}}}})
		return err
	}
	if err := used("b", 0, now.Add(maxAhead+time.Second)); err != ErrUsedAhead || len(m.used) != 0 {
		t.Errorf("far ahead: %v, %v", err, m.used)
	}
	if err := used("b", 0, now.Add(-method.UseLifetime-time.Second)); err != nil || len(m.used) != 0 {
		t.Errorf("long ago: %v, %v", err, m.used)
	}
	for n := range maxUsedPerHost + 1 {
		if err := used("b", n, now); (err == ErrUsedFull) != (n == maxUsedPerHost) {
			t.Fatalf("knock %d: %v", n, err)
		}
	}
	if err := used("b", 0, now.Add(time.Second)); err != nil {
		t.Errorf("a later one of a key that is known: %v", err)
	}
	if err := used("c", maxUsedPerHost, now); err != nil {
		t.Errorf("another host: %v", err)
	}
	origins := map[string]int{}
	for due := m.Due(1000); len(due) > 0; due = m.Due(1000) {
		for _, a := range due {
			origins[a.Origin]++
		}
	}
	if origins["b"] != maxUsedPerHost || origins["c"] != 1 || len(origins) != 2 {
		t.Errorf("the daemon learns of them from %v", origins)
	}
	for n := maxUsedPerHost + 1; n < maxUsed; n++ {
		if err := used(fmt.Sprintf("host%d", n/maxUsedPerHost), n, now); err != nil {
			t.Fatalf("knock %d: %v", n, err)
		}
	}
	if err := used("last", maxUsed, now); err != ErrUsedFull {
		t.Errorf("one knock too many: %v", err)
	}
	for n := range maxUsedPerHost + 1 {
		if news := m.KnockUsed(Used{Method: "keys", Time: now, Person: Person{Key: fmt.Sprint("own", n)}}); len(news.Used) != 1 {
			t.Fatalf("own knock %d is not told", n)
		}
	}
	now = now.Add(method.UseLifetime + 2*time.Second)
	m.Due(1)
	if len(m.used) != 0 || len(m.usedBy) != 0 {
		t.Errorf("%d knocks are remembered after their time, by %v", len(m.used), m.usedBy)
	}
}

// A closing that no other host has heard of is told by a companion that starts anew, also if
// the window was opened again since: other hosts may still have one from before it.
func TestAClosingBeforeTheWindowOfAStateIsTold(t *testing.T) {
	for name, reopened := range map[string]time.Duration{"a second later": time.Second, "at once": 0} {
		now := epoch
		b := member(&now)
		b.name, b.table.name = "b", unique.Make("b")
		k := Key{"ssh", "192.0.2.1"}
		b.Opened(k, time.Minute, 0, Person{}, false)
		now = now.Add(10 * time.Second) // then a closes its window and opens it again, for ten seconds
		a := NewMember("a", func() time.Time { return now })
		read := func() (told News) {
			t.Helper()
			a.StateBegins()
			a.SetDoors(map[string]time.Duration{"ssh": 30 * time.Second}, 50)
			for _, n := range []News{a.Closed(k, 2*time.Second, false, false), a.Opened(k, 10*time.Second, 2*time.Second-reopened, Person{}, false), a.StateIsKnown()} {
				told.Statements = append(told.Statements, n.Statements...)
			}
			return told
		}
		told := read()
		if _, _, err := b.Told("a", &told); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*Member{a, b} {
			w, _ := m.table.entries[k].window(m.table.name, 30*time.Second, m.table.at(now))
			if left := m.left(k); left != 10*time.Second || w.host.Value() != "a" {
				t.Errorf("%s: at %s it is open for %s as %s says", name, m.name, left, w.host.Value())
			}
		}
		if again := read(); !again.IsEmpty() {
			t.Errorf("%s: the same state once more is news: %+v", name, again)
		}
	}
}
