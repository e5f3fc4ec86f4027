package audit

import (
	"fmt"
	"strings"
	"time"
)

// Sentence tells the event to somebody who does not know the fields, without its
// time.
func (e Event) Sentence() string {
	who := "somebody"
	if e.Source.IsValid() {
		who = e.Source.String()
	}
	var b strings.Builder
	switch e.Kind {
	case Knock:
		fmt.Fprintf(&b, "%s knocks at %s", who, e.Door)
		if e.Steps != 0 {
			fmt.Fprintf(&b, ", %d of %d right", e.Step, e.Steps)
		}
	case Reset:
		fmt.Fprintf(&b, "%s fails to knock at %s", who, e.Door)
		if e.Steps != 0 {
			fmt.Fprintf(&b, " after %d of %d", e.Step, e.Steps)
		}
	case Trapped:
		fmt.Fprintf(&b, "%s is trapped at %s", who, e.Door)
		if e.Steps != 0 {
			fmt.Fprintf(&b, " after %d of %d", e.Step, e.Steps)
		}
	case Replayed:
		fmt.Fprintf(&b, "%s tries at %s what has been used", who, e.Door)
	case Opened:
		fmt.Fprintf(&b, "%s is open for %s, for %s", e.Door, who, e.Window.Round(time.Millisecond))
	case Refreshed:
		fmt.Fprintf(&b, "%s stays open for %s, for %s from now", e.Door, who, e.Window.Round(time.Millisecond))
	case Accepted:
		fmt.Fprintf(&b, "%s is let in at %s", who, e.Door)
	case Refused:
		if e.Failed {
			fmt.Fprintf(&b, "%s could not be opened for %s", e.Door, who)
			break
		}
		fmt.Fprintf(&b, "%s is refused at %s", who, e.Door)
	case Closed:
		if e.Failed {
			fmt.Fprintf(&b, "%s could not be closed for %s", e.Door, who)
			break
		}
		fmt.Fprintf(&b, "%s is closed for %s before its time", e.Door, who)
	case Expired:
		fmt.Fprintf(&b, "%s is closed for %s, whose time is up", e.Door, who)
	case Command:
		fmt.Fprintf(&b, "%s has run a command for %s", e.Door, who)
		if e.Failed {
			b.Reset()
			fmt.Fprintf(&b, "A command of %s for %s has failed", e.Door, who)
		}
	case Low:
		if e.Failed {
			b.WriteString("A list of one-time sequences cannot be used")
			break
		}
		fmt.Fprintf(&b, "%s has few one-time sequences left", e.Door)
	case Overloaded:
		b.WriteString("More comes than this host has room for")
		if e.Count > 0 {
			b.Reset()
			fmt.Fprintf(&b, "%d lost", e.Count)
		}
	case Reloaded:
		b.WriteString("Other rules are in force")
		if e.Failed {
			b.Reset()
			b.WriteString("The rules in force are not those that were wanted")
		}
	case Healed:
		b.WriteString("Somebody else has changed the wall")
	case Started:
		b.WriteString("The wall stands, and a daemon is behind it")
	case Stopped:
		b.WriteString("The daemon stops")
	}
	if e.Port.Number != 0 {
		fmt.Fprintf(&b, " (%s)", e.Port)
	}
	if e.Count > 1 && e.Kind != Overloaded {
		fmt.Fprintf(&b, ", %d times", e.Count)
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	return b.String()
}
