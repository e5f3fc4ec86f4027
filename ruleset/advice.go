package ruleset

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/packet"
)

// synRetransmission is when a client sends a SYN again that was not answered:
// RFC 6298, section 2.1.
const synRetransmission = time.Second

// advise warns of what can be done, and is seldom wanted. c.Doors[i] is what
// raw.Doors[i] says.
func (l *Loaded) advise(raw *rawConfig, c *Config) {
	if l.Diagnostics.HasErrors() {
		return
	}
	if len(c.Doors) == 0 {
		l.warn("No door", "The rule files have no door, so nothing is hidden.", nil)
	}
	for i := range c.Doors {
		d, r := &c.Doors[i], &raw.Doors[i]
		if advice := adviseSequence(d.Sequence); advice != "" {
			l.warnAt(r.Sequence, "Sequence easy to find", advice)
		}
		if d.Window < synRetransmission {
			l.warnAt(r.Window, "Short window",
				"A client whose SYN is lost sends it again after one second, when this window is over.")
		}
		if d.Closed == Reject && d.OnFailure == FailOpen {
			l.warnAt(r.OnFailure, "Closed door that answers late",
				fmt.Sprintf("As strangers may have to get in here, the daemon is asked about each, and the door answers after %s: "+
					"who looks at the time finds it.", c.Wall.Hold))
		}
		l.adviseSame(c, raw, i)
		l.adviseProtected(c, r, d)
	}
}

func adviseSequence(steps []packet.Port) string {
	var numbers []int
	for _, s := range steps {
		numbers = append(numbers, int(s.Number))
	}
	switch {
	case slices.Equal(numbers, []int{7000, 8000, 9000}):
		return "7000, 8000, 9000 stands in every manual, and is what people try first."
	case len(steps) < 3:
		return "A sequence of fewer than three knocks is found by chance. Use three or more."
	case slices.IsSorted(numbers):
		return "The knocks rise in order, so that a port scan goes through them on its way up. Mix them."
	case slices.IsSortedFunc(numbers, func(a, b int) int { return b - a }):
		return "The knocks fall in order, so that a port scan goes through them on its way down. Mix them."
	}
	return ""
}

func (l *Loaded) adviseSame(c *Config, raw *rawConfig, i int) {
	for j := range i {
		if slices.Equal(c.Doors[i].Sequence, c.Doors[j].Sequence) {
			l.warnAt(raw.Doors[i].Sequence, "Two doors with the same sequence",
				fmt.Sprintf("It opens the door %q, too. One door with the ports of both would do the same.", c.Doors[j].Name))
		}
	}
}

func (l *Loaded) adviseProtected(c *Config, r *rawDoor, d *Door) {
	elements, _ := hcl.ExprList(r.Sequence)
	for k, step := range d.Sequence {
		for _, other := range c.Doors {
			if other.Guards(step) {
				l.warnAt(elements[k], "Knock on a guarded port",
					fmt.Sprintf("The door %q guards %s. It counts as a knock, but whoever finds the port has found a knock.", other.Name, step))
			}
		}
	}
}

func (l *Loaded) warn(summary, detail string, at *hcl.Range) {
	l.Diagnostics = append(l.Diagnostics, &hcl.Diagnostic{
		Severity: hcl.DiagWarning, Summary: summary, Detail: detail, Subject: at,
	})
}

func (l *Loaded) warnAt(e hcl.Expression, summary, detail string) {
	at := e.Range()
	l.warn(summary, detail, &at)
}
