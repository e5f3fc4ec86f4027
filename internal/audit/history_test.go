package audit_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

// accepted returns an event with a number.
func accepted(n int) audit.Event { return audit.Event{Time: noon, Kind: audit.Accepted, Step: n} }

// steps returns the numbers of events.
func steps(events []audit.Event) []int {
	var all []int
	for _, e := range events {
		all = append(all, e.Step)
	}
	return all
}

// to returns the numbers from first to last.
func to(first, last int) []int {
	var all []int
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}

func record(sink audit.Sink, first, last int) {
	for _, n := range to(first, last) {
		sink.Record(accepted(n))
	}
}

// waiting returns the events that a follower can read without waiting.
func waiting(f *audit.Follower) []audit.Event {
	var all []audit.Event
	for {
		select {
		case e := <-f.Events():
			all = append(all, e)
		default:
			return all
		}
	}
}

func TestHistoryKeepsTheLastEventsInOrder(t *testing.T) {
	h := audit.NewHistory()
	if past := h.Past(); len(past) != 0 {
		t.Errorf("an empty history has %v", past)
	}
	recorded := 0
	for _, total := range []int{1, 2, audit.HistorySize - 1, audit.HistorySize, audit.HistorySize + 1, 2*audit.HistorySize - 1,
		2 * audit.HistorySize, 2*audit.HistorySize + 1, 5*audit.HistorySize + 7} {
		record(h, recorded+1, total)
		recorded = total
		want := to(max(1, total-audit.HistorySize+1), total)
		if got := steps(h.Past()); !slices.Equal(got, want) {
			t.Errorf("after %d events: %d to %d, and %d in all", total, got[0], got[len(got)-1], len(got))
		}
	}
}

// Events that strangers cause in any number displace only events in their own ring.
func TestAFloodOfOneSortLeavesTheOthers(t *testing.T) {
	every := append(kinds(t), "something new")
	sorts := map[audit.Kind]int{audit.Refused: 1, audit.Knock: 2, audit.Reset: 2, audit.Trapped: 2, audit.Replayed: 2} // the ring of each kind; 0 for the rest
	for _, flood := range every {
		t.Run(string(flood), func(t *testing.T) {
			h := audit.NewHistory()
			n := 0
			put := func(e audit.Event) audit.Event {
				n++
				e.Time, e.Step = noon, n // the same time, so that it does not decide the order
				h.Record(e)
				return e
			}
			var before, want []audit.Event
			for _, kind := range every {
				before = append(before, put(audit.Event{Kind: kind}))
			}
			for _, e := range before {
				if sorts[e.Kind] != sorts[flood] {
					want = append(want, e)
				}
			}
			// A thousand events, and then a thousand again with other events between
			// them.
			for range audit.HistorySize {
				put(audit.Event{Kind: flood})
			}
			var last []audit.Event
			for i := range audit.HistorySize {
				last = append(last, put(audit.Event{Kind: flood}))
				if i%100 == 0 {
					for _, kind := range []audit.Kind{audit.Refused, audit.Knock, audit.Accepted} {
						if sorts[kind] != sorts[flood] {
							last = append(last, put(audit.Event{Kind: kind}))
						}
					}
				}
			}
			want = append(want, last...)
			past := h.Past()
			if !slices.Equal(steps(past), steps(want)) {
				t.Errorf("of %d events %d are kept, and not %d", n, len(past), len(want))
			}
			if !slices.IsSortedFunc(past, func(a, b audit.Event) int { return a.Step - b.Step }) {
				t.Error("they are in another order")
			}
			again, follower := h.Follow()
			follower.Close()
			if !slices.Equal(steps(again), steps(past)) {
				t.Error("who follows is told another past")
			}
		})
	}
}

func TestAThousandOfEachSortAreKept(t *testing.T) {
	h := audit.NewHistory()
	const each = audit.HistorySize + 10
	for n := range each {
		for i, kind := range []audit.Kind{audit.Refused, audit.Knock, audit.Accepted} {
			h.Record(audit.Event{Time: noon, Kind: kind, Step: 3*n + i + 1})
		}
	}
	if got := steps(h.Past()); !slices.Equal(got, to(3*(each-audit.HistorySize)+1, 3*each)) {
		t.Errorf("%d are kept", len(got))
	}
}

// Among many refusals of sources that have not knocked, the failed event of a source
// whose window could not be opened is kept.
func TestWhatFailedIsNotDrivenOutByStrangers(t *testing.T) {
	h := audit.NewHistory()
	h.Record(audit.Event{Time: noon, Kind: audit.Refused, Failed: true})
	for n := range 2 * audit.HistorySize {
		h.Record(refused(n))
	}
	if past := h.Past(); len(past) != audit.HistorySize+1 || !past[0].Failed {
		t.Errorf("of %d events the first is %s", len(past), past[0])
	}
}

func TestThePastStaysAsItWas(t *testing.T) {
	h := audit.NewHistory()
	record(h, 1, audit.HistorySize)
	past, follower := h.Follow()
	defer follower.Close()
	again := h.Past()
	record(h, audit.HistorySize+1, 2*audit.HistorySize)
	for _, got := range [][]audit.Event{past, again} {
		if !slices.Equal(steps(got), to(1, audit.HistorySize)) {
			t.Error("what was returned has changed")
		}
	}
}

func TestFollowersHearWhatComesAfterThePast(t *testing.T) {
	h := audit.NewHistory()
	record(h, 1, 3)
	var followers []*audit.Follower
	for range 50 {
		past, f := h.Follow()
		if got := steps(past); !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("the past is %v", got)
		}
		followers = append(followers, f)
	}
	record(h, 4, 6)
	for _, f := range followers {
		if got := steps(waiting(f)); !slices.Equal(got, []int{4, 5, 6}) {
			t.Errorf("a follower hears %v", got)
		}
	}
	_, late := h.Follow()
	if got := waiting(late); len(got) != 0 {
		t.Errorf("who comes later hears %v", got)
	}
}

func TestAFollowerThatIsClosedHearsNothingMore(t *testing.T) {
	h := audit.NewHistory()
	_, first := h.Follow()
	_, second := h.Follow()
	_, third := h.Follow()
	record(h, 1, 1)
	second.Close()
	second.Close() // a second call changes nothing
	record(h, 2, 2)
	for f, want := range map[*audit.Follower][]int{first: {1, 2}, second: {1}, third: {1, 2}} {
		if got := steps(waiting(f)); !slices.Equal(got, want) {
			t.Errorf("a follower hears %v, want %v", got, want)
		}
	}
	first.Close()
	third.Close()
	record(h, 3, 3)
	if got := waiting(third); len(got) != 0 {
		t.Errorf("after all are closed: %v", got)
	}
}

func TestAFollowerThatIsSlowIsToldHowManyItMissed(t *testing.T) {
	h := audit.NewHistory()
	_, slow := h.Follow()
	_, fast := h.Follow()
	const flood = 3 * audit.FollowerSize
	for n := 1; n <= flood; n++ {
		h.Record(accepted(n))
		if got := steps(waiting(fast)); !slices.Equal(got, []int{n}) {
			t.Fatalf("who reads at once hears %v, and not %d", got, n)
		}
	}
	heard := waiting(slow)
	if got := steps(heard); !slices.Equal(got, to(1, len(heard))) || len(heard) < audit.FollowerSize-1 {
		t.Errorf("first it hears %d events", len(heard))
	}
	if slices.ContainsFunc(heard, func(e audit.Event) bool { return e.Kind == audit.Overloaded }) {
		t.Error("it is told that it missed some before it has")
	}
	// The loss is reported once, before the next event. Nothing more is lost.
	record(h, flood+1, flood+3)
	rest := waiting(slow)
	want := []audit.Event{
		{Time: noon, Kind: audit.Overloaded, Count: flood - len(heard), Code: audit.CodeEventsLost, Reason: "events came faster than this client read them"},
		accepted(flood + 1), accepted(flood + 2), accepted(flood + 3),
	}
	if diff := cmp.Diff(want, rest, sameSource); diff != "" {
		t.Errorf("then it hears (-want +got):\n%s", diff)
	}
}

// A follower reads from time to time, and too slowly. The events that it receives and the
// number of missed ones add up to all events.
func TestWhatIsHeardAndWhatIsMissedMakeUpTheWhole(t *testing.T) {
	h := audit.NewHistory()
	_, f := h.Follow()
	expected, told := 1, 0
	take := func(e audit.Event) {
		t.Helper()
		if e.Kind == audit.Overloaded {
			if e.Count <= 0 {
				t.Fatalf("%s", e)
			}
			told++
			expected += e.Count
			return
		}
		if e.Step != expected {
			t.Fatalf("heard %d, and not %d", e.Step, expected)
		}
		expected++
	}
	n := 0
	for round := range 400 {
		for range 10 + round%7 {
			n++
			h.Record(accepted(n))
		}
		for range round % 5 {
			take(<-f.Events())
		}
	}
	for _, e := range waiting(f) {
		take(e)
	}
	n++
	h.Record(accepted(n))
	for _, e := range waiting(f) {
		take(e)
	}
	if expected != n+1 || told < 2 {
		t.Errorf("of %d events %d are accounted for; it was told %d times that it missed some", n, expected-1, told)
	}
}

func TestHistoryIsForManyAtOnce(t *testing.T) {
	h := audit.NewHistory()
	const writers, events = 4, 200 // so few that no follower can miss any
	stop := make(chan struct{})
	var readers, all sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, f := h.Follow()
				select {
				case <-f.Events():
				case <-stop:
				}
				f.Close()
				if len(h.Past()) > audit.HistorySize {
					t.Error("the history is too long")
				}
			}
		})
	}
	_, f := h.Follow()
	for w := range writers {
		all.Go(func() {
			for n := range events {
				h.Record(audit.Event{Time: noon, Kind: audit.Accepted, Step: w, Steps: n})
			}
		})
	}
	next := make([]int, writers)
	for range writers * events {
		e := <-f.Events()
		if e.Steps != next[e.Step] {
			t.Fatalf("event %d of writer %d comes where %d is due", e.Steps, e.Step, next[e.Step])
		}
		next[e.Step]++
	}
	all.Wait()
	close(stop)
	readers.Wait()
	if got := len(h.Past()); got != writers*events {
		t.Errorf("%d events are kept", got)
	}
}

func TestNothingIsMissedBetweenPastAndFuture(t *testing.T) {
	h := audit.NewHistory()
	const events = audit.FollowerSize - 1
	var all sync.WaitGroup
	begun := make(chan struct{})
	for range 8 {
		all.Go(func() {
			<-begun
			for end := false; !end; {
				past, f := h.Follow()
				heard := steps(past)
				for len(heard) < events {
					heard = append(heard, (<-f.Events()).Step)
				}
				f.Close()
				if !slices.Equal(heard, to(1, events)) {
					t.Errorf("after %d of the past it hears %v", len(past), heard[len(past):])
					return
				}
				end = len(past) == events
			}
		})
	}
	all.Go(func() {
		for n := range events {
			if n == 10 {
				close(begun)
			}
			h.Record(accepted(n + 1))
		}
	})
	all.Wait()
}

func TestSinksPassEventsOnToAll(t *testing.T) {
	first, second := audit.NewHistory(), audit.NewHistory()
	sinks := audit.Sinks{first, second}
	record(sinks, 1, 3)
	for _, h := range []*audit.History{first, second} {
		if got := steps(h.Past()); !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("a sink has %v", got)
		}
	}
	audit.Sinks{}.Record(accepted(1)) // no sinks
}

// sameSource compares sources, which have unexported fields.
var sameSource = cmp.Comparer(func(a, b packet.Source) bool { return a == b })

func TestEventAsJSON(t *testing.T) {
	alice := packet.Source{Prefix: netip.MustParsePrefix("192.0.2.1/32")}
	tests := []struct {
		event audit.Event
		want  string
	}{
		{
			audit.Event{Kind: audit.Opened, Door: "ssh", Source: alice, Port: tcp(9000), Step: 3, Steps: 4, Window: 90 * time.Second, Count: 2, Code: audit.CodeManual, Reason: `by "root"` + "\n"},
			`{"time":"2026-03-01T12:00:00.123456789Z","event":"opened","door":"ssh","source":"192.0.2.1","port":"9000/tcp",` +
				`"step":3,"steps":4,"window_seconds":90,"count":2,"code":"manual","reason":"by \"root\"\n"}`,
		},
		{
			audit.Event{Kind: audit.Knock, Door: "vpn", Source: packet.Source{Prefix: netip.MustParsePrefix("2001:db8::/64")}, Port: packet.Port{Number: 8000, Protocol: packet.UDP}, Steps: 3},
			`{"time":"2026-03-01T12:00:00.123456789Z","event":"knock","door":"vpn","source":"2001:db8::/64","port":"8000/udp","steps":3}`,
		},
		{
			audit.Event{Kind: audit.Refreshed, Window: 1500 * time.Millisecond},
			`{"time":"2026-03-01T12:00:00.123456789Z","event":"refreshed","window_seconds":1.5}`,
		},
		{
			audit.Event{Kind: audit.Started},
			`{"time":"2026-03-01T12:00:00.123456789Z","event":"started"}`,
		},
		{
			audit.Event{Kind: audit.Healed, Code: audit.CodeNotPutBack, Failed: true},
			`{"time":"2026-03-01T12:00:00.123456789Z","event":"healed","code":"not-put-back","failed":true}`,
		},
	}
	for _, tt := range tests {
		tt.event.Time = noon
		got, err := json.Marshal(tt.event)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("JSON:\n%s, want\n%s", got, tt.want)
		}
		var back audit.Event
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.event, back, sameSource); diff != "" {
			t.Errorf("there and back (-want +got):\n%s", diff)
		}
	}
}

// Each field survives JSON.
func TestEachFieldOfAnEventGoesThereAndBack(t *testing.T) {
	full := audit.Event{
		Time: noon, Kind: audit.Opened, Door: "ssh", Source: source(7), Person: "alice", Key: "SHA256:abc", Origin: "host2", Port: tcp(22), Step: 1, Steps: 2,
		Code: audit.CodeManual, Reason: "x", Window: time.Second, Count: 5, Failed: true,
	}
	for i := range reflect.TypeFor[audit.Event]().NumField() {
		name := reflect.TypeFor[audit.Event]().Field(i).Name
		if reflect.ValueOf(full).Field(i).IsZero() {
			t.Errorf("this test does not know of %s", name)
		}
		var one audit.Event
		reflect.ValueOf(&one).Elem().Field(i).Set(reflect.ValueOf(full).Field(i))
		b, err := json.Marshal(one)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var back audit.Event
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(one, back, sameSource); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A time in seconds loses no nanosecond.
func TestHowLongAWindowIsOpenGoesThereAndBackToTheMillisecond(t *testing.T) {
	for window := time.Millisecond; window < 10*time.Second; window += time.Millisecond {
		b, err := json.Marshal(audit.Event{Window: window})
		if err != nil {
			t.Fatal(err)
		}
		var back audit.Event
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back.Window != window {
			t.Fatalf("%s becomes %s", window, back.Window)
		}
	}
}

func TestWhatIsNoEventIsNotRead(t *testing.T) {
	for _, text := range []string{`[]`, `{"time": "noon"}`, `{"source": "everybody"}`, `{"port": "ssh"}`, `{"step": "one"}`, `{"window_seconds": "30s"}`} {
		e := accepted(3)
		if err := json.Unmarshal([]byte(text), &e); err == nil {
			t.Errorf("%s is %s", text, e)
		}
		if e != accepted(3) {
			t.Errorf("after %s it is %s", text, e)
		}
	}
}
