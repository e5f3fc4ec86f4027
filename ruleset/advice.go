package ruleset

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/sequence"
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
		for _, steps := range d.Sequences {
			for _, advice := range adviseSequence(steps) {
				l.warnAt(r.Sequence, easyToFind, advice)
			}
		}
		l.adviseRolling(c, r, d)
		if d.OTP != nil {
			l.adviseSecret(r.OTP.OpenSecret, d.OTP.Open)
			l.adviseSecret(r.OTP.CloseSecret, d.OTP.Close)
			l.adviseShared(c, r, i)
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
		l.adviseSame(c, raw, i)
		l.adviseProtected(c, r, d)
	}
}

const easyToFind = "Sequence easy to find"

func adviseSequence(steps []packet.Port) (advice []string) {
	var numbers []int
	for _, s := range steps {
		numbers = append(numbers, int(s.Number))
	}
	switch {
	case slices.Equal(numbers, []int{7000, 8000, 9000}):
		return []string{"7000, 8000, 9000 stands in every manual, and is what people try first."}
	case len(steps) < fewKnocks:
		return []string{tooFewKnocks}
	case slices.IsSorted(numbers):
		advice = append(advice, "The knocks rise in order, so that a port scan goes through them on its way up. Mix them.")
	case slices.IsSortedFunc(numbers, func(a, b int) int { return b - a }):
		advice = append(advice, "The knocks fall in order, so that a port scan goes through them on its way down. Mix them.")
	}
	// Of all ports three knocks take 18 years.
	if takes, soon := guessedIn(lowPorts, len(steps), 1); soon && slices.Max(numbers) <= lowPorts {
		advice = append(advice, fmt.Sprintf("The knocks are of the %d ports where people begin to guess: at %s, %d of them are guessed in %s. "+
			"Use one knock more, or choose them from all ports up to 65535.", lowPorts, guessesASecond, len(steps), takes))
	}
	return advice
}

// What is soon guessed: fewer knocks than fewKnocks, and what somebody finds in less than
// tenYears who sends packets as fast as a good line lets him, from as many addresses as he
// likes. He begins where most people choose their knocks.
const (
	fewKnocks       = 3
	tooFewKnocks    = "A sequence of fewer than three knocks is found by chance. Use three or more."
	packetsASecond  = 100_000
	guessesASecond  = "100,000 packets a second"
	lowPorts        = 9999
	day             = 24 * time.Hour
	year            = 365 * day
	tenYears        = 10 * year
	mostInADuration = 100 * year // and little less than there is room for
)

// guessedIn says in about how long a sequence is guessed, in expectation, and whether
// that is soon.
func guessedIn(ports, knocks, sequences int) (takes string, soon bool) {
	d := time.Duration(min(sequence.Guesses(ports, knocks, sequences)/packetsASecond, mostInADuration.Seconds()) * float64(time.Second))
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{year, "years"}, {day, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}, {time.Second, "seconds"}} {
		if d >= 2*unit.length {
			return fmt.Sprintf("about %d %s", d/unit.length, unit.name), d < tenYears
		}
	}
	return "a second", true
}

func (l *Loaded) adviseSame(c *Config, raw *rawConfig, i int) {
	for j := range i {
		same := slices.EqualFunc(c.Doors[i].Sequences, c.Doors[j].Sequences, slices.Equal)
		if same && len(c.Doors[i].Sequences) > 0 {
			l.warnAt(raw.Doors[i].Sequence, "Two doors with the same sequence",
				fmt.Sprintf("It opens the door %q, too. One door with the ports of both would do the same.", c.Doors[j].Name))
		}
	}
}

func (l *Loaded) adviseProtected(c *Config, r *rawDoor, d *Door) {
	for _, e := range []hcl.Expression{r.Sequence, r.CloseSequence} {
		elements, _ := hcl.ExprList(e)
		for _, element := range elements {
			text, _ := l.value(element)
			step, _ := packet.ParsePort(text)
			for _, other := range c.Doors {
				if other.Guards(step) {
					l.warnAt(element, "Knock on a guarded port",
						fmt.Sprintf("The door %q guards %s. It counts as a knock, but whoever finds the port has found a knock.", other.Name, step))
				}
			}
		}
	}
}

// fewBytes is the least of a secret that is not soon guessed, at home, from what was
// overheard once.
const fewBytes = 16

func (l *Loaded) adviseSecret(e hcl.Expression, s secret.Secret) {
	if n := len(s.Key()); 0 < n && n < fewBytes {
		l.warnAt(e, "Short secret", fmt.Sprintf("Who overhears what follows from it can search for it at home. "+
			"Take %d bytes or more that are random: openssl rand -hex 12.", fewBytes))
	}
}

// adviseShared warns of secrets that another door has: a password is good once at each
// of them, and so can be overheard at the one and used at the other.
func (l *Loaded) adviseShared(c *Config, r *rawDoor, i int) {
	own := c.Doors[i].OTP
	for _, other := range c.Doors[:i] {
		if other.OTP == nil {
			continue
		}
		for _, theirs := range []secret.Secret{other.OTP.Open, other.OTP.Close} {
			if theirs.IsSet() && (own.Open.Equal(theirs) || own.Close.Equal(theirs)) {
				l.warn("Two doors with one secret", fmt.Sprintf("The door %q has it, too, so that a password which is overheard at the one is still good at the other. "+
					"Give each door secrets of its own, or make one door of them.", other.Name), &r.OTP.Range)
				return
			}
		}
	}
}

func (l *Loaded) adviseRolling(c *Config, r *rawDoor, d *Door) {
	if d.Rolling == nil {
		return
	}
	l.adviseSecret(r.Rolling.Secret, d.Rolling.Secret)
	ports := d.Rolling.Ports
	size := int(ports.Last-ports.First) + 1
	if d.Rolling.Length < fewKnocks {
		l.warnAt(r.Rolling.Length, easyToFind, tooFewKnocks)
	} else if takes, soon := guessedIn(size, d.Rolling.Length, StepsAtOnce); soon {
		l.warnAt(r.Rolling.Ports, easyToFind, fmt.Sprintf("%d knocks of %d ports, with those of the step before and after, are guessed in %s at %s. "+
			"Use one knock more, or a wider range.", d.Rolling.Length, size, takes, guessesASecond))
	}
	for _, other := range c.Doors {
		if slices.ContainsFunc(other.Ports, func(p packet.PortRange) bool { return touch(p, ports) }) {
			l.warnAt(r.Rolling.Ports, "Knocks on guarded ports",
				fmt.Sprintf("The door %q guards some of these ports. Knocks there count, but whoever finds the port may have found a knock.", other.Name))
		}
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
