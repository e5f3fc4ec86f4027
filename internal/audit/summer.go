package audit

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// The limits of what a flood of packets can write, for each interval, door and kind.
// sumLeading sources get their first event of each step and code passed on at once, and
// then a sum, in as many parts as there are others that are summed up. All other sources
// share one sum. sumGuests events of sources that know the knocks are passed on at once.
const (
	SumInterval = 10 * time.Second
	sumLeading  = 32
	sumGuests   = 256
)

// Summer passes events on to a sink, and sums up those that strangers can cause in any
// number. The [Class] of a kind says how. It passes on the first event of a source at
// once. It counts the later ones and passes them on as one event: when the interval ends,
// or before the source's next event that is passed on at once, so that the source's events
// stay in order. Events with different steps or codes are never one sum: a sum that said
// "3 of 3 right, 2 times" would hide the second knock. Its other fields are those of its
// last event.
//
// It passes on each event that only sources that know the knocks can cause, up to a limit
// in each interval, because such a source can forge addresses. It sums up the rest.
type Summer struct {
	sink Sink

	mu      sync.Mutex
	sums    map[sumKey][]*Event // one for each step and code: the last event, with the count
	leading map[sumKey]int      // by kind and door: sources whose first event was passed on
	guests  map[sumKey]int      // by kind and door: events that were passed on
}

type sumKey struct {
	kind   Kind
	door   string
	source packet.Source // zero: all sources without a sum of their own
	failed bool          // separate, so that no success hides a failure
}

// NewSummer returns a Summer that writes to a sink. Call Flush after every SumInterval.
func NewSummer(sink Sink) *Summer {
	return &Summer{sink: sink, sums: map[sumKey][]*Event{}, leading: map[sumKey]int{}, guests: map[sumKey]int{}}
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
	known := likeIn(s.sums[key], &e)
	if known != nil && (known.Person != e.Person || known.Key != e.Key || known.Origin != e.Origin) {
		// Several persons may have one address, and several hosts tell of it. Each gets sums
		// of its own.
		for _, sum := range s.sums[key] {
			s.pass(sum)
		}
		delete(s.sums, key)
		known = nil
	}
	if known != nil {
		e.Count += known.Count
		*known = e
		return
	}
	group := sumKey{kind: e.Kind, door: e.Door, failed: e.Failed}
	isLeading := len(s.sums[key]) > 0
	if !isLeading && s.leading[group] < sumLeading {
		s.leading[group]++
		isLeading = true
	}
	if isLeading {
		s.settle(e.Door, e.Source)
		s.sink.Record(e)
		last := e // a copy, because e itself would escape to the heap on every call
		last.Count = 0
		s.sums[key] = append(s.sums[key], &last)
		return
	}
	// The group may have sums of events without a source, too.
	others := likeIn(s.sums[group], &Event{Code: CodeManySources})
	if others == nil {
		others = &Event{Kind: e.Kind, Door: e.Door, Code: CodeManySources, Reason: "from many other sources", Failed: e.Failed}
		s.sums[group] = append(s.sums[group], others)
	}
	others.Time = e.Time
	others.Count += e.Count
}

// likeIn returns the sum of events with the step and the code of e, nil if there is none.
func likeIn(sums []*Event, e *Event) *Event {
	for _, sum := range sums {
		if sum.Step == e.Step && sum.Steps == e.Steps && sum.Code == e.Code {
			return sum
		}
	}
	return nil
}

// Settle passes on the sums of a source at a door now.
func (s *Summer) Settle(door string, source packet.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(door, source)
}

// settle passes on the sums of a source at a door, in the order of their last events.
func (s *Summer) settle(door string, source packet.Source) {
	var room [32]*Event // on the stack, to allocate nothing for most sources
	sums := room[:0]
	for _, kind := range summedUp {
		for _, failed := range []bool{false, true} {
			sums = append(sums, s.sums[sumKey{kind, door, source, failed}]...)
		}
	}
	slices.SortStableFunc(sums, byTime)
	for _, e := range sums {
		s.pass(e)
	}
}

// byTime orders events by time. Events of the same time are in the order in which one
// packet causes them.
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

// Flush passes on all sums, in the order of their last events, and begins a new interval.
func (s *Summer) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := slices.Concat(slices.Collect(maps.Values(s.sums))...)
	slices.SortFunc(events, byTime)
	for _, e := range events {
		s.pass(e)
	}
	clear(s.sums)
	clear(s.leading)
	clear(s.guests)
}
