package ruleset

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/sequence"
)

// What opens a door, and closes it.

// The bounds of a rolling sequence's step.
const (
	minStep = 5 * time.Second
	maxStep = time.Hour
)

// StepsAtOnce is how many steps of a rolling sequence are good at a time: the one that it
// is, and for clients whose clocks are off the one before and the one after.
const StepsAtOnce = 3

// locks reads what opens and closes a door.
func (l *Loaded) locks(r *rawDoor, d *Door) {
	ways := 0
	for _, given := range []bool{!absent(r.Sequence), r.Rolling != nil, !absent(r.OneTime)} {
		if given {
			ways++
		}
	}
	switch {
	case ways > 1:
		l.fail("Too many sequences", "A door has a sequence, or rolling, or one_time_sequences. Two doors can guard the same ports.", &r.Range)
	case ways == 0 && r.OTP == nil && l.broken[r.Range.Filename] == nil:
		l.fail("No sequence", `A door needs knocks that open it: sequence = [4113, "27911/udp", 1840]. There are rolling, one_time_sequences and otp, too.`, &r.Range)
	}
	if steps := l.knocks(r.Sequence); steps != nil {
		d.Sequences = [][]packet.Port{steps}
	}
	d.Rolling = l.rolling(r.Rolling)
	d.OneTime = l.oneTime(r.OneTime)
	d.CloseSequence = l.knocks(r.CloseSequence)
	if len(d.CloseSequence) > 0 && len(d.Sequences) > 0 && slices.Equal(d.CloseSequence, d.Sequences[0]) {
		l.failAt(r.CloseSequence, "Opened and closed by the same knocks", "Turn them round to close the door, or choose others.")
	}
	d.OTP = l.otp(r.OTP, d)
}

// knocks reads a sequence.
func (l *Loaded) knocks(e hcl.Expression) []packet.Port {
	var steps []packet.Port
	n, ok := l.list(e, func(e hcl.Expression, s string) {
		p, err := packet.ParsePort(s)
		if err != nil {
			l.failAt(e, "Not a knock", sentence(err))
			return
		}
		steps = append(steps, p)
	})
	switch {
	case ok && n == 0:
		l.failAt(e, "No sequence", `There is no knock in it. Write some: [4113, "27911/udp", 1840].`)
	case n > sequence.MaxSteps:
		l.failAt(e, "Sequence too long", fmt.Sprintf("A sequence has %d knocks at most, this one has %d.", sequence.MaxSteps, n))
	}
	return steps
}

func (l *Loaded) rolling(r *rawRolling) *Rolling {
	if r == nil {
		return nil
	}
	ports := packet.PortRange{First: 20000, Last: 29999, Protocol: packet.TCP}
	roll := &Rolling{Length: 4, Step: 30 * time.Second}
	roll.Secret = l.secret(r.Secret, r.Range)
	number(l, r.Length, &roll.Length, 1, sequence.MaxSteps, "How many knocks there are is a whole number from %d to %d.")
	l.duration(r.Step, &roll.Step, minStep, maxStep)
	if roll.Step%time.Second != 0 {
		l.failAt(r.Step, "Not whole seconds", "Every client has to count the same steps: write whole seconds.")
	}
	text := ports.String()
	l.text(r.Ports, &text)
	ports, err := packet.ParsePortRange(text)
	switch {
	case err != nil:
		l.failAt(r.Ports, "Not a range of ports", `Write the first and the last, from 1 to 65535, such as "20000-29999".`)
	case int(ports.Last-ports.First) < 2*roll.Length:
		l.failAt(r.Ports, "Too few ports", `Knocks are chosen from the range at random: write a wide one, such as "20000-29999".`)
	}
	roll.Ports = ports
	return roll
}

// Sequence returns the knocks that the secret stands for.
func (r *Rolling) Sequence() *sequence.Rolling {
	return &sequence.Rolling{Key: r.Secret.Key(), Length: r.Length, Ports: r.Ports, Step: r.Step}
}

func (l *Loaded) oneTime(e hcl.Expression) *onetime.List {
	if absent(e) {
		return nil
	}
	path, ok := l.value(e)
	if !ok {
		return nil
	}
	if !isWhole(path) {
		l.failAt(e, "Not an absolute path", "Write the whole path of the list, from / on.")
		return nil
	}
	list := &onetime.List{Path: path}
	_, left, err := list.Next()
	if err == nil {
		err = list.Writable()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && l.reader == reviewer:
		l.warnAt(e, "No list of sequences", "The daemon does not start without it. "+sentence(err))
	case errors.Is(err, fs.ErrNotExist):
		l.lackAt(e, "No list of sequences", "Make it: a sequence a line, such as 4113,27911:udp,1840. "+sentence(err))
	case err != nil:
		l.lackAt(e, "List of sequences that cannot be used", "The daemon has to read the list, and to cross out what is used. "+sentence(forbidden(err, "rw")))
	case left == 0:
		l.warnAt(e, "All sequences are used", "The door does not open for anybody. Add lines to the list, and reload.")
	case left <= FewLeft:
		l.warnAt(e, "Few sequences are left", fmt.Sprintf("Those that were not used: %d. Add lines to the list before the door is shut for good.", left))
	}
	return list
}

// FewLeft is how many one-time sequences are so few that somebody should know.
const FewLeft = 3

func (l *Loaded) otp(r *rawOTP, d *Door) *OTP {
	if r == nil {
		return nil
	}
	o := &OTP{}
	if l.lacks(r.Port, r.Range, "No port", `It needs one that passwords are sent to: port = "2000/udp".`) {
	} else if s, ok := l.value(r.Port); ok {
		p, err := packet.ParsePort(s)
		switch {
		case err != nil:
			l.failAt(r.Port, "Not a port", `Write one port, from 1 to 65535, such as "2000/udp".`)
		case p.Protocol != packet.UDP:
			l.failAt(r.Port, "Not a UDP port", fmt.Sprintf(`A one-time password is one datagram: write "%d/udp".`, p.Number))
		case d.isKnock(p):
			l.failAt(r.Port, "One-time password at a knock", fmt.Sprintf("%s is one of the door's knocks. Choose another port for one of the two.", p))
		case d.Rolling != nil && d.Rolling.Ports.Contains(p):
			l.failAt(r.Port, "One-time password at a knock", fmt.Sprintf("%s is one of the ports that the door's knocks are chosen from. Choose another one.", p))
		case d.Guards(p):
			l.failAt(r.Port, "One-time password at a guarded port", fmt.Sprintf("The door guards %s. Choose another port.", p))
		}
		o.Port = p
	}
	o.Open = l.secret(r.OpenSecret, r.Range)
	if !absent(r.CloseSecret) {
		o.Close = l.secret(r.CloseSecret, r.Range)
	}
	l.duration(r.Skew, &o.Skew, 0, otp.MaxSkew)
	same := o.Open.IsSet() && o.Open.Equal(o.Close)
	for _, s := range []struct {
		at hcl.Expression
		of *secret.Secret
	}{{r.OpenSecret, &o.Open}, {r.CloseSecret, &o.Close}} {
		if n := len(s.of.Key()); n > otp.MaxSecret {
			l.lackAt(s.at, "Secret too long", fmt.Sprintf("The secret of a one-time password has %d bytes at most, as xt_pknock's has; this one has %d.", otp.MaxSecret, n))
			*s.of = secret.Secret{}
		}
	}
	if same {
		l.lackAt(r.CloseSecret, "Opened and closed by the same secret", "The two secrets of a door differ.")
		o.Close = secret.Secret{}
	}
	return o
}
