package audit

import (
	"fmt"
	"strings"
)

// Sentence tells the event to somebody who does not know the fields, without its
// time.
func (e Event) Sentence() string {
	source := "somebody"
	if e.Source.IsValid() {
		source = e.Source.String()
	}
	var b strings.Builder
	b.WriteString(e.Kind.Row().sentence(e, source))
	if e.Port.Number != 0 {
		fmt.Fprintf(&b, " (%s)", e.Port)
	}
	if e.Count > 1 && e.Kind != Overloaded { // which tells it in its own words
		fmt.Fprintf(&b, ", %d times", e.Count)
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	return b.String()
}
