package audit_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

// trail keeps the events that it receives.
type trail []audit.Event

func (t *trail) Record(e audit.Event) { *t = append(*t, e) }

// take returns the events since the last call in short form.
func (t *trail) take() (events []string) {
	for _, e := range *t {
		s := fmt.Sprintf("%s %s", e.Kind, e.Door)
		if e.Source.IsValid() {
			s += " " + e.Source.String()
		}
		if e.Steps != 0 {
			s += fmt.Sprintf(" %d/%d", e.Step, e.Steps)
		}
		if e.Reason != "" {
			s += " " + e.Reason
		}
		events = append(events, fmt.Sprintf("%s ×%d", s, e.Count))
	}
	*t = nil
	return events
}

func (t *trail) expect(tb testing.TB, what string, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, t.take()); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// summer runs f in a bubble with a Summer that writes to a trail. Events that f records
// are one second apart.
func summer(t *testing.T, f func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event))) {
	synctest.Test(t, func(t *testing.T) {
		got := new(trail)
		s := audit.NewSummer(got)
		f(t, s, got, func(e audit.Event) {
			e.Time = time.Now()
			s.Record(e)
			time.Sleep(time.Second)
		})
	})
}

func refused(n int) audit.Event {
	return audit.Event{Kind: audit.Refused, Door: "ssh", Source: source(n), Port: tcp(22)}
}

func TestSummerPassesTheFirstOnAndSumsUpTheRest(t *testing.T) {
	for _, kind := range []audit.Kind{audit.Knock, audit.Reset, audit.Trapped, audit.Replayed, audit.Refused} {
		t.Run(string(kind), func(t *testing.T) {
			summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
				e := audit.Event{Kind: kind, Door: "ssh", Source: source(1)}
				record(e)
				got.expect(t, "at once", string(kind)+" ssh 10.0.0.1 ×1")
				for range 4 {
					record(e)
				}
				got.expect(t, "before the interval is over")
				s.Flush()
				got.expect(t, "after the interval", string(kind)+" ssh 10.0.0.1 ×4")
				s.Flush()
				got.expect(t, "after an interval without events")
				record(e)
				got.expect(t, "at once in a new interval", string(kind)+" ssh 10.0.0.1 ×1")
			})
		})
	}
}

// Events that strangers cannot cause are passed on at once, up to a limit.
func TestSummerPassesOtherKindsOn(t *testing.T) {
	for _, kind := range []audit.Kind{
		audit.Opened, audit.Refreshed, audit.Accepted, audit.Closed, audit.Expired,
		audit.Overloaded, audit.Started, audit.Stopped, audit.Command, audit.Low,
	} {
		t.Run(string(kind), func(t *testing.T) {
			summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
				e := audit.Event{Kind: kind, Door: "ssh", Source: source(1)}
				record(e)
				record(e)
				want := string(kind) + " ssh 10.0.0.1 ×1"
				got.expect(t, "at once", want, want)
				s.Flush()
				got.expect(t, "after the interval")
			})
		})
	}
}

func TestSummerAddsUpCounts(t *testing.T) {
	summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
		for n := range 4 {
			e := refused(1)
			e.Count = 10 * n // 0 means one event
			record(e)
		}
		s.Flush()
		got.expect(t, "all", "refused ssh 10.0.0.1 ×1", "refused ssh 10.0.0.1 ×60")
	})
}

// The event of a window that could not be opened is passed on at once. It does not become
// part of the refusals before and after it.
func TestSummerDoesNotLoseWhatFailedAmongWhatDidNot(t *testing.T) {
	summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
		failed := refused(1)
		failed.Failed, failed.Reason = true, "no such file"
		record(refused(1))
		record(refused(1))
		got.expect(t, "before", "refused ssh 10.0.0.1 ×1")
		record(failed)
		got.expect(t, "at once, after what was counted", "refused ssh 10.0.0.1 ×1", "refused ssh 10.0.0.1 no such file ×1")
		record(failed)
		record(refused(1))
		record(failed)
		got.expect(t, "again")
		s.Flush()
		for _, e := range *got {
			if e.Failed != (e.Reason != "") {
				t.Errorf("%+v", e)
			}
		}
		got.expect(t, "the sums", "refused ssh 10.0.0.1 ×1", "refused ssh 10.0.0.1 no such file ×2")
	})
}

func TestSummerTellsSourcesDoorsAndKindsApart(t *testing.T) {
	summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
		events := []audit.Event{
			{Kind: audit.Refused, Door: "ssh", Source: source(1)},
			{Kind: audit.Refused, Door: "ssh", Source: source(2)},
			{Kind: audit.Refused, Door: "vpn", Source: source(1)},
			{Kind: audit.Knock, Door: "ssh", Source: source(1)},
		}
		want := []string{
			"refused ssh 10.0.0.1 ×1", "refused ssh 10.0.0.2 ×1", "refused vpn 10.0.0.1 ×1", "knock ssh 10.0.0.1 ×1",
		}
		for _, e := range events {
			record(e)
		}
		got.expect(t, "the first of each", want...)
		for _, e := range events {
			record(e)
		}
		s.Flush()
		got.expect(t, "the sum of each", want...)
	})
}

// A sum has the fields of its last event. Sums are passed on in the order of their last
// events.
func TestSummerPassesSumsOnAsTheyHappened(t *testing.T) {
	summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
		knock := func(n int) {
			record(audit.Event{Kind: audit.Knock, Door: "ssh", Source: source(n), Step: 1, Steps: 3})
		}
		knock(1)
		knock(2)
		knock(2)
		knock(1)
		last := time.Now()
		knock(1)
		*got = nil
		s.Flush()
		if n := len(*got); n != 2 || !(*got)[1].Time.Equal(last) {
			t.Errorf("of %d events the last did not happen %v", n, last)
		}
		got.expect(t, "sums", "knock ssh 10.0.0.2 1/3 ×1", "knock ssh 10.0.0.1 1/3 ×2")
	})
}

// One packet can end an attempt and begin another, or be the last knock of a used
// sequence.
func TestSummerPassesOnWhatOnePacketHasCausedInItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := new(trail)
		s := audit.NewSummer(got)
		for _, kinds := range [][]audit.Kind{{audit.Reset, audit.Knock}, {audit.Knock, audit.Replayed}, {audit.Knock, audit.Refused}} {
			var want []string
			for round := range 3 {
				for _, kind := range kinds {
					s.Record(audit.Event{Time: time.Now(), Kind: kind, Door: "ssh", Source: source(1)})
					if round == 0 {
						want = append(want, string(kind)+" ssh 10.0.0.1 ×1")
					}
				}
				time.Sleep(time.Second)
			}
			got.expect(t, "at once", want...)
			s.Settle("ssh", source(1))
			for i := range want {
				want[i] = strings.Replace(want[i], "×1", "×2", 1)
			}
			got.expect(t, "then", want...)
			s.Flush()
		}
	})
}

// The sums of a source come before its next event of another kind, in order.
func TestSummerKeepsASourcesStoryInOrder(t *testing.T) {
	knock := func(step int) audit.Event {
		return audit.Event{Kind: audit.Knock, Door: "ssh", Source: source(1), Step: step, Steps: 3}
	}
	reset := audit.Event{Kind: audit.Reset, Door: "ssh", Source: source(1), Step: 2, Steps: 3}
	opened := audit.Event{Kind: audit.Opened, Door: "ssh", Source: source(1), Step: 3, Steps: 3}
	trapped := audit.Event{Kind: audit.Trapped, Door: "ssh", Source: source(1), Step: 2, Steps: 3}
	tests := []struct {
		name   string
		events []audit.Event
		want   []string
	}{
		{
			"knocks and the window",
			[]audit.Event{knock(1), knock(2), knock(3), opened},
			[]string{"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 2/3 ×1", "knock ssh 10.0.0.1 3/3 ×1", "opened ssh 10.0.0.1 3/3 ×1"},
		},
		{
			"the same knocks again",
			[]audit.Event{knock(1), knock(2), knock(3), opened, knock(1), knock(2), knock(3), opened},
			[]string{
				"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 2/3 ×1", "knock ssh 10.0.0.1 3/3 ×1", "opened ssh 10.0.0.1 3/3 ×1",
				"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 2/3 ×1", "knock ssh 10.0.0.1 3/3 ×1", "opened ssh 10.0.0.1 3/3 ×1",
			},
		},
		{
			"a first knock again and again",
			[]audit.Event{knock(1), knock(1), knock(1), knock(2)},
			[]string{"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 1/3 ×2", "knock ssh 10.0.0.1 2/3 ×1"},
		},
		{
			"a knock to close",
			[]audit.Event{knock(1), knock(1), {Kind: audit.Knock, Door: "ssh", Source: source(1), Step: 1, Steps: 3, Code: audit.CodeCloseSequence}},
			[]string{"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 1/3 ×1"},
		},
		{
			"knocks and a reset",
			[]audit.Event{knock(1), knock(2), reset},
			[]string{"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 2/3 ×1", "reset ssh 10.0.0.1 2/3 ×1"},
		},
		{
			"a trap",
			[]audit.Event{knock(1), knock(2), trapped},
			[]string{"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 2/3 ×1", "trapped ssh 10.0.0.1 2/3 ×1"},
		},
		{
			"two sums and the window",
			[]audit.Event{refused(1), knock(1), refused(1), knock(2), refused(1), knock(3), opened},
			[]string{
				"refused ssh 10.0.0.1 ×1", "knock ssh 10.0.0.1 1/3 ×1",
				"refused ssh 10.0.0.1 ×1", "knock ssh 10.0.0.1 2/3 ×1",
				"refused ssh 10.0.0.1 ×1", "knock ssh 10.0.0.1 3/3 ×1",
				"opened ssh 10.0.0.1 3/3 ×1",
			},
		},
		{
			"the window of another source",
			[]audit.Event{knock(1), knock(2), {Kind: audit.Opened, Door: "ssh", Source: source(2)}},
			[]string{"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 2/3 ×1", "opened ssh 10.0.0.2 ×1"},
		},
		{
			"the window at another door",
			[]audit.Event{knock(1), knock(2), {Kind: audit.Opened, Door: "vpn", Source: source(1)}},
			[]string{"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 2/3 ×1", "opened vpn 10.0.0.1 ×1"},
		},
		{
			"a window that opens twice",
			[]audit.Event{knock(1), knock(2), opened, opened},
			[]string{"knock ssh 10.0.0.1 1/3 ×1", "knock ssh 10.0.0.1 2/3 ×1", "opened ssh 10.0.0.1 3/3 ×1", "opened ssh 10.0.0.1 3/3 ×1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
				for _, e := range tt.events {
					record(e)
				}
				got.expect(t, "story", tt.want...)
			})
		})
	}
}

// Counts that were passed on early are not passed on again.
func TestSummerCountsNothingTwice(t *testing.T) {
	summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
		for range 3 {
			record(refused(1))
			record(refused(1))
			record(audit.Event{Kind: audit.Opened, Door: "ssh", Source: source(1)})
		}
		record(refused(1))
		s.Flush()
		total := 0
		for _, e := range *got {
			if e.Kind == audit.Refused {
				total += e.Count
			}
		}
		if total != 7 {
			t.Errorf("%d are counted, want 7: %q", total, got.take())
		}
	})
}

func TestSummerBoundsWhatAFloodWrites(t *testing.T) {
	const sources, rounds = 100_000, 3
	// The leading sources each have a first event and a sum; all others share a sum.
	const most = audit.SumLeading + audit.SumLeading + 1
	var got trail
	s := audit.NewSummer(&got)
	for interval := range 2 {
		for n := range sources * rounds {
			s.Record(refused(n % sources))
		}
		if len(got) != audit.SumLeading {
			t.Errorf("interval %d: %d lines at once, want %d", interval, len(got), audit.SumLeading)
		}
		s.Flush()
		total := 0
		for _, e := range got {
			total += e.Count
		}
		if total != sources*rounds {
			t.Errorf("interval %d: %d are counted, want %d", interval, total, sources*rounds)
		}
		if len(got) > most {
			t.Errorf("interval %d: %d lines, want %d at most", interval, len(got), most)
		}
		got = nil
	}
}

// What happened without a source is no part of the sum of many sources.
func TestSummerKeepsWhatHasNoSourceOutOfTheSumOfMany(t *testing.T) {
	summer(t, func(t *testing.T, s *audit.Summer, got *trail, _ func(audit.Event)) {
		nobody := refused(0)
		nobody.Source = packet.Source{}
		for range 3 {
			s.Record(nobody)
		}
		for n := range audit.SumLeading + 5 {
			s.Record(refused(n))
		}
		s.Flush()
		counts := map[string]int{}
		for _, e := range *got {
			if !e.Source.IsValid() {
				counts[e.Reason] += e.Count
			}
		}
		// One of the leading sources was none.
		if diff := cmp.Diff(map[string]int{"": 3, "from many other sources": 6}, counts); diff != "" {
			t.Errorf("without a source (-want +got):\n%s", diff)
		}
	})
}

// Whatever a flood's sources do in turn, each gets a few lines. The shared sum says that
// it is of many sources.
func TestSummerBoundsWhatAFloodOfSeveralKindsWrites(t *testing.T) {
	const sources, rounds = 1000, 30
	kinds := []audit.Kind{audit.Knock, audit.Reset, audit.Trapped, audit.Replayed, audit.Refused}
	// For each kind and leading source: the first event, a sum before each other kind,
	// and a sum at the end. For each kind: the shared sum.
	most := len(kinds) * (audit.SumLeading*(1+len(kinds)) + 1)
	var got trail
	s := audit.NewSummer(&got)
	for range rounds {
		for n := range sources {
			for _, kind := range kinds {
				s.Record(audit.Event{Kind: kind, Door: "ssh", Source: source(n)})
			}
		}
	}
	s.Flush()
	total, others := 0, 0
	for _, e := range got {
		total += e.Count
		if !e.Source.IsValid() {
			others += e.Count
			if e.Reason == "" {
				t.Errorf("%v: it does not say of whom", e)
			}
		}
	}
	if want := sources * rounds * len(kinds); total != want {
		t.Errorf("%d are counted, want %d", total, want)
	}
	if want := (sources - audit.SumLeading) * rounds * len(kinds); others != want {
		t.Errorf("%d are counted of others, want %d", others, want)
	}
	if len(got) > most {
		t.Errorf("%d lines, want %d at most", len(got), most)
	}
}

// Whoever knows the whole sequence gets a line for each of its steps, and no more: from
// then on they are summed up as well.
func TestSummerBoundsWhatAFloodOfStepsWrites(t *testing.T) {
	const sources, rounds, steps = 1000, 30, 3
	// For each leading source and step: the first event, a sum before each first event of
	// another step, and a sum at the end.
	most := audit.SumLeading*steps*(1+steps) + 1
	var got trail
	s := audit.NewSummer(&got)
	for range rounds {
		for n := range sources {
			for step := 1; step <= steps; step++ {
				s.Record(audit.Event{Kind: audit.Knock, Door: "ssh", Source: source(n), Step: step, Steps: steps})
			}
		}
	}
	s.Flush()
	counts := map[int]int{}
	for _, e := range got {
		counts[e.Step] += e.Count
	}
	for step := 1; step <= steps; step++ {
		if want := audit.SumLeading * rounds; counts[step] != want {
			t.Errorf("step %d is counted %d times, want %d", step, counts[step], want)
		}
	}
	if want := (sources - audit.SumLeading) * rounds * steps; counts[0] != want {
		t.Errorf("%d are counted of other sources, want %d", counts[0], want)
	}
	if len(got) > most {
		t.Errorf("%d lines, want %d at most", len(got), most)
	}
}

// A flood at one door hides no event of another door.
func TestSummerBoundsEachDoorByItself(t *testing.T) {
	var got trail
	s := audit.NewSummer(&got)
	for n := range 10 * audit.SumLeading {
		s.Record(refused(n))
	}
	got.take()
	s.Record(audit.Event{Kind: audit.Refused, Door: "vpn", Source: source(1)})
	s.Record(audit.Event{Kind: audit.Knock, Door: "ssh", Source: source(1)})
	got.expect(t, "at once", "refused vpn 10.0.0.1 ×1", "knock ssh 10.0.0.1 ×1")
}

// Several persons may come from one address. What one of them does is not counted as
// another's, and a flood of both is summed up all the same.
func TestSummerKeepsPersonsApart(t *testing.T) {
	summer(t, func(t *testing.T, s *audit.Summer, got *trail, record func(audit.Event)) {
		knock := func(person string) audit.Event {
			return audit.Event{Kind: audit.Reset, Door: "ssh", Source: source(1), Person: person, Key: "SHA256:" + person}
		}
		for _, person := range []string{"alice", "alice", "bob", "bob", "alice"} {
			record(knock(person))
		}
		s.Flush()
		counts := map[string]int{}
		for _, e := range *got {
			if e.Key != "SHA256:"+e.Person {
				t.Errorf("%s", e)
			}
			counts[e.Person] += e.Count
		}
		if counts["alice"] != 3 || counts["bob"] != 2 {
			t.Errorf("counted: %v", counts)
		}
		*got = nil
		for range 1000 {
			record(knock("alice"))
			record(knock("bob"))
		}
		s.Flush()
		if n := len(*got); n > 100 {
			t.Errorf("%d events of 2000", n)
		}
	})
}
