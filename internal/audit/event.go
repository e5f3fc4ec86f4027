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

// Kind says what happened.
type Kind string

// The kinds of events.
const (
	Knock      Kind = "knock"      // a knock of a door was heard
	Reset      Kind = "reset"      // an attempt is over before it was complete
	Trapped    Kind = "trapped"    // somebody has tried a trap, and cannot knock for a while
	Replayed   Kind = "replayed"   // what opens a door once came once more
	Opened     Kind = "opened"     // a window opened
	Refreshed  Kind = "refreshed"  // an open window got its full length again
	Accepted   Kind = "accepted"   // a new connection was let in
	Refused    Kind = "refused"    // a new connection was turned away
	Closed     Kind = "closed"     // a window was closed before its time was up
	Expired    Kind = "expired"    // a window's time was up
	Command    Kind = "command"    // a command of the rule files was run
	Low        Kind = "low"        // few one-time sequences are left
	Overloaded Kind = "overloaded" // packets were lost before they were heard, or are about to be
	Reloaded   Kind = "reloaded"   // other rules are in force
	Healed     Kind = "healed"     // somebody else has changed the wall, which is put back
	Started    Kind = "started"    // the wall stands, and a daemon is behind it
	Stopped    Kind = "stopped"    // the daemon stops
)

// Event is one thing that happened. Fields that do not apply are zero.
type Event struct {
	Time   time.Time
	Kind   Kind
	Door   string
	Source packet.Source
	Port   packet.Port // that was knocked at, or connected to
	Step   int         // knocks taken by then
	Steps  int         // knocks in all
	Reason string
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
	if e.Reason != "" {
		field("reason", strconv.Quote(e.Reason))
	}
	return b.String()
}
