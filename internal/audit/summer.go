package audit

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// The bounds of what a flood of packets can write: in each interval, for each
// door and kind, so many events as they happen, and then a sum for each of
// their sources, in as many parts as there are kinds that are summed up, and
// one for all others together.
const (
	SumInterval = 10 * time.Second
	sumLeading  = 32
	sumGuests   = 256
)

// Summer passes events on to a sink, and sums up those of which strangers can
// cause as many as they like. What only guests cause is passed on each time; but as
// addresses can be forged by who knows the knocks, no more than so many of a kind in an
// interval, and the rest is summed up, too. The [Class] of a kind says which it is. The
// first of a source is passed on at once; what follows it is counted, and passed on as
// one event when the interval is over, or before the source's next event of another kind
// that is passed on at once, so that its story stays in order. Such a sum has the fields
// of the last event in it, its code too.
type Summer struct {
	sink Sink

	mu      sync.Mutex
	sums    map[sumKey]*Event // the last event, with its count
	leading map[sumKey]int    // by kind and door: how many sources were passed on
	guests  map[sumKey]int    // by kind and door: how many events of guests were
}

type sumKey struct {
	kind   Kind
	door   string
	source packet.Source // zero: all that are not summed up by themselves
	failed bool          // which is not to be lost among what did not fail
}

// NewSummer returns a Summer before a sink. Flush is to be called after every
// SumInterval.
func NewSummer(sink Sink) *Summer {
	return &Summer{sink: sink, sums: map[sumKey]*Event{}, leading: map[sumKey]int{}, guests: map[sumKey]int{}}
}

// Record takes an event.
func (s *Summer) Record(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Count = max(e.Count, 1)
	switch e.Kind.Row().Class {
	case ByKnocks, ByRefusals:
		s.sum(e)
		return
	case ByGuests:
		kind := sumKey{kind: e.Kind, door: e.Door, failed: e.Failed}
		if s.guests[kind] >= sumGuests {
			s.sum(e)
			return
		}
		s.guests[kind]++
	}
	s.settle(e.Door, e.Source)
	s.sink.Record(e)
}

func (s *Summer) sum(e Event) {
	key := sumKey{e.Kind, e.Door, e.Source, e.Failed}
	if known := s.sums[key]; known != nil {
		e.Count += known.Count
		*known = e
		return
	}
	group := sumKey{kind: e.Kind, door: e.Door, failed: e.Failed}
	if s.leading[group] < sumLeading {
		s.leading[group]++
		s.settle(e.Door, e.Source)
		s.sink.Record(e)
		last := e // which would escape on every way, were it e itself
		last.Count = 0
		s.sums[key] = &last
		return
	}
	others := s.sums[group]
	if others == nil {
		others = &Event{Kind: e.Kind, Door: e.Door, Code: CodeManySources, Reason: "of many other sources", Failed: e.Failed}
		s.sums[group] = others
	}
	others.Time = e.Time
	others.Count += e.Count
}

// Settle passes on what was counted of a source at a door, for who wants to know
// now.
func (s *Summer) Settle(door string, source packet.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(door, source)
}

// settle passes on what was counted of a source at a door, in the order it
// happened.
func (s *Summer) settle(door string, source packet.Source) {
	var room [16]*Event // so that nothing is allocated for the few that there are
	sums := room[:0]
	for _, kind := range summedUp {
		for _, failed := range []bool{false, true} {
			if known := s.sums[sumKey{kind, door, source, failed}]; known != nil {
				sums = append(sums, known)
			}
		}
	}
	slices.SortStableFunc(sums, byTime)
	for _, e := range sums {
		s.pass(e)
	}
}

// byTime orders what happened at once as one packet causes it.
func byTime(a, b *Event) int {
	return cmp.Or(a.Time.Compare(b.Time), places[a.Kind]-places[b.Kind])
}

// pass passes on what was counted since the last time.
func (s *Summer) pass(e *Event) {
	if e.Count > 0 {
		s.sink.Record(*e)
		e.Count = 0
	}
}

// Flush passes on all that was counted, in the order it happened, and begins a
// new interval.
func (s *Summer) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := slices.SortedFunc(maps.Values(s.sums), byTime)
	for _, e := range events {
		s.pass(e)
	}
	clear(s.sums)
	clear(s.leading)
	clear(s.guests)
}
