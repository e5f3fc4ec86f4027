package audit

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// The bounds of what is kept: of each sort of events for who asks what has
// happened, and for each who follows and is slow. An event takes about 200 bytes.
const (
	HistorySize  = 1000
	followerSize = 1000
)

// History is a sink that keeps the last events, and passes on to followers what
// happens from then on. It keeps three sorts apart, so that those of which
// strangers cause as many as they like do not drive out the others: who was
// refused, who has knocked, and all the rest.
type History struct {
	mu        sync.Mutex
	recorded  uint64 // events so far
	kept      [3]ring
	followers []*Follower
}

// ring keeps the last events of a sort, and the number of each.
type ring struct {
	events []numbered
	oldest int // once it is full
}

type numbered struct {
	number uint64
	Event
}

func (r *ring) keep(e numbered) {
	if len(r.events) < HistorySize {
		r.events = append(r.events, e)
		return
	}
	r.events[r.oldest] = e
	r.oldest = (r.oldest + 1) % HistorySize
}

// sort returns which ring keeps an event. That something failed is not what
// strangers cause as they like.
func sort(e Event) int {
	if e.Failed {
		return 2
	}
	switch e.Kind.Row().Class {
	case ByRefusals:
		return 0
	case ByKnocks:
		return 1
	}
	return 2
}

// Follower hears of all events, from when it began to follow until it is closed.
type Follower struct {
	history *History
	events  chan Event
	missed  int // as it was too slow, since it was told so last
}

// NewHistory returns an empty History.
func NewHistory() *History { return &History{} }

// Record takes an event. It never waits.
func (h *History) Record(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recorded++
	h.kept[sort(e)].keep(numbered{h.recorded, e})
	for _, f := range h.followers {
		f.take(e)
	}
}

// take passes an event on, or counts it; before the next one that is passed on it
// says how many it has counted.
func (f *Follower) take(e Event) {
	f.tell(e.Time)
	select {
	case f.events <- e:
	default:
		f.missed++
	}
}

// tell says how many events were missed, if any were and there is room.
func (f *Follower) tell(now time.Time) {
	if f.missed == 0 {
		return
	}
	select {
	case f.events <- Event{Time: now, Kind: Overloaded, Code: CodeEventsLost, Count: f.missed, Reason: "events came faster than they were read here"}:
		f.missed = 0
	default:
	}
}

// CaughtUp is called by who has read all events there were: if some were missed,
// there is one more, which says so.
func (f *Follower) CaughtUp() {
	f.history.mu.Lock()
	defer f.history.mu.Unlock()
	f.tell(time.Now())
}

// Past returns the events that are kept, the oldest first.
func (h *History) Past() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.past()
}

func (h *History) past() []Event {
	kept := slices.Concat(h.kept[0].events, h.kept[1].events, h.kept[2].events)
	slices.SortFunc(kept, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	past := make([]Event, len(kept))
	for i, e := range kept {
		past[i] = e.Event
	}
	return past
}

// Follow returns the events that are kept, and a Follower of all that come after
// them.
func (h *History) Follow() ([]Event, *Follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &Follower{history: h, events: make(chan Event, followerSize)}
	h.followers = append(h.followers, f)
	return h.past(), f
}

// Events is where events come from. Who is too slow misses some, and is told how
// many.
func (f *Follower) Events() <-chan Event { return f.events }

// Close ends the following.
func (f *Follower) Close() {
	h := f.history
	h.mu.Lock()
	defer h.mu.Unlock()
	h.followers = slices.DeleteFunc(h.followers, func(other *Follower) bool { return other == f })
}

// Sinks is a sink that passes events on to several.
type Sinks []Sink

// Record takes an event.
func (s Sinks) Record(e Event) {
	for _, sink := range s {
		sink.Record(e)
	}
}

// form is an event in JSON. Fields that do not apply are left out.
type form struct {
	Time          time.Time     `json:"time"`
	Kind          Kind          `json:"event"`
	Door          string        `json:"door,omitempty"`
	Source        packet.Source `json:"source,omitzero"`
	Port          packet.Port   `json:"port,omitzero"`
	Step          int           `json:"step,omitempty"`
	Steps         int           `json:"steps,omitempty"`
	WindowSeconds float64       `json:"window_seconds,omitempty"`
	Count         int           `json:"count,omitempty"`
	Code          Code          `json:"code,omitempty"`
	Reason        string        `json:"reason,omitempty"`
	Failed        bool          `json:"failed,omitempty"`
}

// MarshalJSON writes the event with the fields of the audit trail.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(form{e.Time, e.Kind, e.Door, e.Source, e.Port, e.Step, e.Steps, e.Window.Seconds(), e.Count, e.Code, e.Reason, e.Failed})
}

// UnmarshalJSON reads what MarshalJSON has written.
func (e *Event) UnmarshalJSON(b []byte) error {
	var f form
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*e = Event{
		Time: f.Time, Kind: f.Kind, Door: f.Door, Source: f.Source, Port: f.Port, Step: f.Step, Steps: f.Steps,
		Window: time.Duration(math.Round(f.WindowSeconds * float64(time.Second))), Count: f.Count, Code: f.Code, Reason: f.Reason, Failed: f.Failed,
	}
	return nil
}
