package ruleset

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/method"
)

// synRetransmission is the time after which a client repeats an unanswered SYN: RFC 6298,
// section 2.1.
const synRetransmission = time.Second

// advise warns of settings that are valid but seldom intended. c.Doors[i] comes from
// raw.Doors[i].
func (l *Loaded) advise(raw *rawConfig, c *Config) {
	if l.Diagnostics.HasErrors() {
		return
	}
	if len(c.Doors) == 0 {
		l.warn("No door", "The rule files have no door, so no port is hidden.", nil)
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
				"A client repeats a lost SYN after one second. By then this window has closed.")
		}
		if d.Closed == Reject && d.OnFailure == FailOpen {
			l.warnAt(r.OnFailure, "Closed door that answers late",
				fmt.Sprintf(`With on_failure = "open", the daemon decides about each connection, and the door rejects it only after %s. `+
					"This delay reveals the door to anybody who measures it.", c.Wall.Hold))
		}
		if d.TrapCount+len(d.TrapList) > 0 && d.Penalty < d.SequenceTimeout && d.isKnocked() {
			at := r.Penalty
			if absent(at) {
				at = r.SequenceTimeout
			}
			l.warnAt(at, "Penalty shorter than seq_timeout",
				"The penalty of a slow scan ends before its first knock expires. Make the penalty at least as long as seq_timeout.")
		}
		method.AdviseGuarded(reading{l}, r.CloseSequence, doors)
	}
}

// adviseProgram warns of a program that does not exist. This is no error, as the program
// may be installed before the command is run.
func (l *Loaded) adviseProgram(r *rawCommand, c *Command) {
	if c == nil {
		return
	}
	elements, _ := hcl.ExprList(r.Command)
	if name := c.Arguments[0].text(); !command.Exists(name) {
		l.warnAt(elements[0], "No such program", fmt.Sprintf("This host has no executable program %s.", name))
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
