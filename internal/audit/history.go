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

// The limits of memory: for each of the three rings, and for each slow follower. An event
// takes about 200 bytes.
const (
	HistorySize  = 1000
	followerSize = 1000
)

// History is a sink that keeps the last events and passes new ones on to followers. It
// has three rings: refusals, knocks, and the rest. So the events that strangers can cause
// in any number do not displace the others.
type History struct {
	mu        sync.Mutex
	recorded  uint64 // events so far
	kept      [3]ring
	followers []*Follower
}

// ring keeps the last events of a group, with their numbers.
type ring struct {
	events []numbered
	oldest int // index of the oldest event, once the ring is full
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

// sort returns the index of an event's ring. Failed events are in the last one, because
// strangers cannot cause them in any number.
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

// Follower receives all events from Follow to Close.
type Follower struct {
	history *History
	events  chan Event
	missed  int // events that it was too slow for, since the last report
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

// take passes an event on, or counts it as missed. Before the next event that it passes
// on, it reports the number of missed ones.
func (f *Follower) take(e Event) {
	f.tell(e.Time)
	select {
	case f.events <- e:
	default:
		f.missed++
	}
}

// tell reports the missed events, if there are any and there is room.
func (f *Follower) tell(now time.Time) {
	if f.missed == 0 {
		return
	}
	select {
	case f.events <- Event{Time: now, Kind: Overloaded, Code: CodeEventsLost, Count: f.missed, Reason: "events came faster than this client read them"}:
		f.missed = 0
	default:
	}
}

// CaughtUp reports missed events. Call it after reading all events that were there.
func (f *Follower) CaughtUp() {
	f.history.mu.Lock()
	defer f.history.mu.Unlock()
	f.tell(time.Now())
}

// Past returns the events in memory, oldest first.
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

// Follow returns the events in memory, and a Follower that receives all later ones.
func (h *History) Follow() ([]Event, *Follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &Follower{history: h, events: make(chan Event, followerSize)}
	h.followers = append(h.followers, f)
	return h.past(), f
}

// Events returns the channel of events. A reader that is too slow misses events, and gets
// an event with their number.
func (f *Follower) Events() <-chan Event { return f.events }

// Close removes the follower.
func (f *Follower) Close() {
	h := f.history
	h.mu.Lock()
	defer h.mu.Unlock()
	h.followers = slices.DeleteFunc(h.followers, func(other *Follower) bool { return other == f })
}

// Sinks is a sink that passes events on to several sinks.
type Sinks []Sink

// Record takes an event.
func (s Sinks) Record(e Event) {
	for _, sink := range s {
		sink.Record(e)
	}
}

// form is the JSON form of an event. Fields that do not apply are left out.
type form struct {
	Time          time.Time     `json:"time"`
	Kind          Kind          `json:"event"`
	Door          string        `json:"door,omitempty"`
	Source        packet.Source `json:"source,omitzero"`
	Person        string        `json:"person,omitempty"`
	Key           string        `json:"key,omitempty"`
	Origin        string        `json:"origin,omitempty"`
	Port          packet.Port   `json:"port,omitzero"`
	Step          int           `json:"step,omitempty"`
	Steps         int           `json:"steps,omitempty"`
	WindowSeconds float64       `json:"window_seconds,omitempty"`
	Count         int           `json:"count,omitempty"`
	Code          Code          `json:"code,omitempty"`
	Reason        string        `json:"reason,omitempty"`
	Failed        bool          `json:"failed,omitempty"`
}

// MarshalJSON writes the event in its JSON form.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(form{e.Time, e.Kind, e.Door, e.Source, e.Person, e.Key, e.Origin, e.Port, e.Step, e.Steps, e.Window.Seconds(), e.Count, e.Code, e.Reason, e.Failed})
}

// UnmarshalJSON parses the form that MarshalJSON writes.
func (e *Event) UnmarshalJSON(b []byte) error {
	var f form
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*e = Event{
		Time: f.Time, Kind: f.Kind, Door: f.Door, Source: f.Source, Person: f.Person, Key: f.Key, Origin: f.Origin, Port: f.Port, Step: f.Step, Steps: f.Steps,
		Window: time.Duration(math.Round(f.WindowSeconds * float64(time.Second))), Count: f.Count, Code: f.Code, Reason: f.Reason, Failed: f.Failed,
	}
	return nil
}
