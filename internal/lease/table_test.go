package lease

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

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
	if w, ok := m.table.entries[s.key()].window("a", 30*time.Second, now); !ok || w.end.Sub(now) != time.Second {
		t.Errorf("nine seconds later it has %s left, %t", w.end.Sub(now), ok)
	}
	now = now.Add(-9 * time.Second)
	s.Left = 4_000 // it was passed on by a faster way
	m.Told("c", &News{Statements: []Statement{s}})
	if w, _ := m.table.entries[s.key()].window("a", 30*time.Second, now); w.end.Sub(now) != 4*time.Second {
		t.Errorf("it has %s left", w.end.Sub(now))
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
	if w, ok := m.table.entries[s.key()].window("a", 30*time.Second, now); ok {
		t.Errorf("it has %s left", w.end.Sub(now))
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
	m.SetDoors(map[string]time.Duration{"ssh": 30 * time.Second})
	m.StateIsKnown()
	return m
}

// A window of this host that is longer than those of its door keeps its length, whatever
// others tell of it. Others have it for as long as their own door says, from when it began,
// and pass it on as it is.
func TestALongLeaseKeepsItsLength(t *testing.T) {
	now := epoch
	a, b := member(&now), member(&now)
	b.name, b.table.name = "b", "b"
	k := Key{"ssh", "192.0.2.1"}
	left := func(m *Member) time.Duration {
		l, _ := m.table.entries[k].window(m.name, m.doors["ssh"], now)
		return l.end.Sub(now)
	}
	n := a.Opened(k, time.Hour, 0, Person{}, false)
	now = now.Add(10 * time.Second) // as others were asked, and not by news
	n = a.Own()
	b.Told("a", &n)
	if left(a) != time.Hour-10*time.Second || left(b) != 20*time.Second {
		t.Errorf("after ten seconds it has %s left, and at the other host %s", left(a), left(b))
	}
	passed := b.All()
	if s := passed.Statements[0]; s.Left != (time.Hour-10*time.Second).Milliseconds() || s.Age != 10_000 {
		t.Errorf("it is passed on as %+v", s)
	}
	passed.Statements[0].Left = 1000
	a.Told("b", &passed)
	if left(a) != time.Hour-10*time.Second {
		t.Errorf("another host has made it end in %s", left(a))
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
	if l, _ := m.table.entries[k].window("a", 30*time.Second, now); l.end.Sub(now) != time.Hour {
		t.Errorf("it has %s left", l.end.Sub(now))
	}
}

// What others can make a host remember has limits, and what it does itself has none.
func TestLimitsAreForOthers(t *testing.T) {
	now := epoch
	m := member(&now)
	key := func(n int) Key { return Key{"ssh", fmt.Sprintf("2001:db8::%x", n)} }
	open := func(host string, n int) error {
		k := key(n)
		_, _, err := m.Told(host, &News{Statements: []Statement{{Door: k.Door, Source: k.Source, Host: host, Stamp: epoch.UnixMilli(), Left: int64(10_000 + len(host))}}})
		return err
	}
	m.Opened(Key{"ssh", "192.0.2.1"}, time.Second, 0, Person{}, false) // takes no place of others
	for n := range maxPerHost + 1 {
		if err := open("b", n); (err == ErrFull) != (n == maxPerHost) {
			t.Fatalf("window %d: %v", n, err)
		}
	}
	for n := range maxLeases + 2 {
		if err := open(strings.Repeat("c", n+1), 0); err != nil {
			t.Fatal(err)
		}
	}
	m.Opened(key(0), time.Second, 0, Person{}, false)
	if n := len(m.table.entries[key(0)].leases); m.table.own(key(0)) == nil || n != maxLeases+1 {
		t.Errorf("with the own one there are %d leases: %+v", n, m.table.own(key(0)))
	}
	if err := open("another", 0); err != nil || m.table.own(key(0)) == nil {
		t.Errorf("another host has replaced it: %v", err)
	}
	for n := maxPerHost; n < maxEntries; n++ {
		if err := open(fmt.Sprintf("host%d", n/maxPerHost), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := open("last", maxEntries); err != ErrFull {
		t.Errorf("one window too many: %v", err)
	}
	for n := range maxPerHost + 1 {
		if news := m.Opened(key(maxEntries+1+n), time.Second, 0, Person{}, false); len(news.Statements) != 1 {
			t.Fatalf("own window %d is not told", n)
		}
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
		b.name, b.table.name = "b", "b"
		k := Key{"ssh", "192.0.2.1"}
		b.Opened(k, time.Minute, 0, Person{}, false)
		now = now.Add(10 * time.Second) // then a closes its window and opens it again, for ten seconds
		a := NewMember("a", func() time.Time { return now })
		read := func() (told News) {
			t.Helper()
			a.StateBegins()
			a.SetDoors(map[string]time.Duration{"ssh": 30 * time.Second})
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
			if w, ok := m.table.entries[k].window(m.name, 30*time.Second, now); !ok || w.host != "a" || w.end.Sub(now) != 10*time.Second {
				t.Errorf("%s: at %s it is open for %s as %s says, %t", name, m.name, w.end.Sub(now), w.host, ok)
			}
		}
		if again := read(); !again.IsEmpty() {
			t.Errorf("%s: the same state once more is news: %+v", name, again)
		}
	}
}
