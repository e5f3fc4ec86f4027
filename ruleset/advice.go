package ruleset

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/method"
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
	var doors []method.Door
	for i := range c.Doors {
		doors = append(doors, c.Doors[i].forMethods())
	}
	for i := range c.Doors {
		d, r := &c.Doors[i], &raw.Doors[i]
		for _, m := range d.Methods {
			m.Advise(reading{l}, doors, i)
		}
		l.adviseProgram(r.OnOpen, d.OnOpen)
		l.adviseProgram(r.OnClose, d.OnClose)
		if d.Window < synRetransmission {
			l.warnAt(r.Window, "Short window",
				"A client whose SYN is lost sends it again after one second, when this window is over.")
		}
		if d.Closed == Reject && d.OnFailure == FailOpen {
			l.warnAt(r.OnFailure, "Closed door that answers late",
				fmt.Sprintf("As strangers may have to get in here, the daemon is asked about each, and the door answers after %s: "+
					"who looks at the time finds it.", c.Wall.Hold))
		}
		if d.TrapCount+len(d.TrapList) > 0 && d.Penalty < d.SequenceTimeout && d.isKnocked() {
			at := r.Penalty
			if absent(at) {
				at = r.SequenceTimeout
			}
			l.warnAt(at, "Penalty shorter than seq_timeout",
				"A scan that is slow enough is heard again before its first knock is forgotten. Make the penalty longer.")
		}
		method.AdviseGuarded(reading{l}, r.CloseSequence, doors)
	}
}

// adviseProgram warns of a program that is not there. It may be by the time that it
// is wanted.
func (l *Loaded) adviseProgram(r *rawCommand, c *Command) {
	if c == nil {
		return
	}
	elements, _ := hcl.ExprList(r.Command)
	if name := c.Arguments[0].text(); !command.Exists(name) {
		l.warnAt(elements[0], "No such program", fmt.Sprintf("There is no program %s here that can be run.", name))
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
