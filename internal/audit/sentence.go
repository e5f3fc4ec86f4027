package audit

import (
	"fmt"
	"strings"
)

// Sentence describes the event in a sentence for people, without its time.
func (e Event) Sentence() string {
	source := "somebody"
	if e.Source.IsValid() {
		source = e.Source.String()
	}
	if e.Person != "" {
		source += " (" + e.Person + ")"
	}
	var b strings.Builder
	b.WriteString(e.Kind.Row().sentence(e, source))
	if e.Port.Number != 0 {
		fmt.Fprintf(&b, " (%s)", e.Port)
	}
	if e.Count > 1 && e.Kind != Overloaded { // the sentence of Overloaded contains the count
		fmt.Fprintf(&b, ", %d times", e.Count)
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	return b.String()
}
