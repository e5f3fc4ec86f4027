// Package audit records the events at the doors: knocks, admitted connections, refused
// connections, and the reasons.
package audit

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
)

// Event is one event. Fields that do not apply are zero.
type Event struct {
	Time   time.Time
	Kind   Kind
	Door   string
	Source packet.Source
	Person string        // who knocked, where the method knows persons
	Key    string        // fingerprint of that person's key, "SHA256:…"
	Origin string        // the other host that it came from; "": this one
	Port   packet.Port   // the port of the knock or connection
	Step   int           // correct knocks so far
	Steps  int           // knocks of the whole sequence
	Code   Code          // what an event of the kind was
	Reason string        // the same as text, or details
	Window time.Duration // how long the window is open from now on
	Count  int           // how many events of the kind this one sums up
	Failed bool          // what the event names could not be done; an administrator must look at it
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

// String writes the event as one line: the time, the kind, and the fields that apply.
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
	if e.Person != "" {
		field("person", quoted(e.Person))
	}
	field("key", e.Key)
	field("origin", e.Origin)
	if e.Port.Number != 0 {
		field("port", e.Port.String())
	}
	if e.Steps != 0 {
		field("step", fmt.Sprintf("%d/%d", e.Step, e.Steps))
	}
	if e.Window != 0 {
		field("window", printable.Time(e.Window.Round(time.Millisecond)))
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

// quoted quotes a value that is more than one plain word.
func quoted(s string) string {
	if q := strconv.Quote(s); strings.Contains(s, " ") || len(q) != len(s)+2 {
		return q
	}
	return s
}
