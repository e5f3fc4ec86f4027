// Package audit is the trail of what happened at the doors: who knocked, who
// was let in, who was turned away and why.
package audit

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// Event is one thing that happened. Fields that do not apply are zero.
type Event struct {
	Time   time.Time
	Kind   Kind
	Door   string
	Source packet.Source
	Port   packet.Port   // that was knocked at, or connected to
	Step   int           // knocks taken by then
	Steps  int           // knocks in all
	Code   Code          // which of the things that the kind stands for it was
	Reason string        // the same in prose, or more of it
	Window time.Duration // how long the window is open from then on
	Count  int           // how many of the kind were summed up in this event
	Failed bool          // what was to be done could not be, and somebody should see to it
}

// Sink takes events. It is safe for concurrent use.
type Sink interface{ Record(Event) }

// text writes events as lines of text.
type text struct {
	mu sync.Mutex
	w  io.Writer
}

// Text returns a sink that writes each event as one line of text to w.
func Text(w io.Writer) Sink { return &text{w: w} }

func (t *text) Record(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.w, e)
}

// String writes the event as one line: when, what, and what is known of it.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-10s", e.Time.Format("2006-01-02T15:04:05.000Z07:00"), e.Kind)
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, " %s=%s", name, value)
		}
	}
	field("door", e.Door)
	if e.Source.IsValid() {
		field("source", e.Source.String())
	}
	if e.Port.Number != 0 {
		field("port", e.Port.String())
	}
	if e.Steps != 0 {
		field("step", fmt.Sprintf("%d/%d", e.Step, e.Steps))
	}
	if e.Window != 0 {
		field("window", e.Window.Round(time.Millisecond).String())
	}
	if e.Count > 1 {
		field("count", strconv.Itoa(e.Count))
	}
	field("code", string(e.Code))
	if e.Failed {
		field("failed", "true")
	}
	if e.Reason != "" {
		field("reason", strconv.Quote(e.Reason))
	}
	return b.String()
}
