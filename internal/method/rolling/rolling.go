// Package rolling is the method of rolling sequences: rolling { secret = … }. Package
// sequence computes them from a secret and the time.
package rolling

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/sequence"
)

// Kind reads the block.
var Kind = method.Kind{Name: "rolling", Knocks: true, Block: read, Fields: raw{}, Shown: []string{"ports", "length", "step"}}

// Rolling is the method.
type Rolling struct {
	Secret secret.Secret
	Length int
	Range  packet.PortRange
	Step   time.Duration

	at raw
}

// raw is the block as HCL decodes it.
type raw struct {
	Secret hcl.Expression `hcl:"secret"`
	Length hcl.Expression `hcl:"length,optional"`
	Ports  hcl.Expression `hcl:"ports,optional"`
	Step   hcl.Expression `hcl:"step,optional"`
}

// The range of a step.
const (
	minStep = 5 * time.Second
	maxStep = time.Hour
)

// stepsAtOnce is the number of valid steps: the present one, and for clients with
// inaccurate clocks the one before and the one after.
const stepsAtOnce = 3

func read(r method.Reader, _ *method.Door, b *hcl.Block) method.Method {
	roll := &Rolling{Length: 4, Step: 30 * time.Second}
	at := &roll.at
	r.Decode(b, at)
	roll.Secret = r.Secret(at.Secret, b.DefRange)
	r.Number(at.Length, &roll.Length, 1, sequence.MaxSteps, "The number of knocks is a whole number from %d to %d.")
	r.Duration(at.Step, &roll.Step, minStep, maxStep)
	if roll.Step%time.Second != 0 {
		r.Fail(at.Step, "Not whole seconds", "Write whole seconds, so that all clients count the same steps.")
	}
	text := packet.PortRange{First: 20000, Last: 29999, Protocol: packet.TCP}.String()
	r.Text(at.Ports, &text)
	ports, err := packet.ParsePortRange(text)
	switch {
	case err != nil:
		r.Fail(at.Ports, "Not a range of ports", `Write the first and the last port, from 1 to 65535, such as "20000-29999".`)
	case int(ports.Last-ports.First) < 2*roll.Length:
		r.Fail(at.Ports, "Too few ports", `The knocks are chosen from this range at random. Write a wider range, such as "20000-29999".`)
	}
	roll.Range = ports
	return roll
}

func (*Rolling) Name() string          { return Kind.Name }
func (*Rolling) Traits() method.Traits { return method.Traits{Replay: true, Clock: true} }

func (r *Rolling) Ports() (fixed, chosen []packet.PortRange) {
	return nil, []packet.PortRange{r.Range}
}

func (r *Rolling) Describe(within time.Duration) string {
	return fmt.Sprintf("%d knocks within %s, others every %s", r.Length, printable.Time(within), printable.Time(r.Step))
}

func (r *Rolling) Changes(former method.Method) (c method.Changes) {
	was := former.(*Rolling)
	c.Hidden("rolling: secret", r.Secret.Equal(was.Secret))
	c.Value("rolling: length", was.Length, r.Length)
	c.Value("rolling: ports", was.Range, r.Range)
	c.Value("rolling: step", was.Step, r.Step)
	return c
}

// Sequence returns the generator of the knocks.
func (r *Rolling) Sequence() *sequence.Rolling {
	return &sequence.Rolling{Key: r.Secret.Key(), Length: r.Length, Ports: r.Range, Step: r.Step}
}

// errNoSecret says that the knocks cannot be computed without the secret.
var errNoSecret = errors.New("its secret cannot be read")

// Resolve returns the knocks of the present step, the one before and the one after.
func (r *Rolling) Resolve(now time.Time) (method.State, error) {
	if !r.Secret.IsSet() {
		return method.State{}, errNoSecret
	}
	s := r.Sequence()
	step := s.StepAt(now)
	all := make([][]packet.Port, stepsAtOnce)
	for n := step - 1; n <= step+1; n++ {
		all[place(n)] = s.Knocks(n)
	}
	return method.State{Sequences: all, Present: place(step), From: s.Begins(step), Until: s.Begins(step + 1)}.With(step), nil
}

// place returns the place of a step in State.Sequences. It stays the same while the step is
// valid.
func place(step int64) int { return int((step%stepsAtOnce + stepsAtOnce) % stepsAtOnce) }

// Use remembers that the knocks of a step were used. The knocks of the present step are
// valid any number of times, even if the use cannot be remembered. The steps before and
// after are for clients with inaccurate clocks. Their knocks are valid once, as somebody
// may have overheard the first use.
func (r *Rolling) Use(s method.State, at int, now time.Time, remember method.Remember) (replay bool, err error) {
	present := s.Own().(int64)
	step := present - 1
	for place(step) != at {
		step++
	}
	replay, err = remember(method.Use{Begins: r.Sequence().Begins(step), Early: r.Step, Kind: "step"}, now)
	if step == present {
		return false, nil
	}
	return replay, err
}

func (r *Rolling) Advise(to method.Reader, doors []method.Door, _ int) {
	method.AdviseSecret(to, r.at.Secret, r.Secret)
	size := int(r.Range.Last-r.Range.First) + 1
	if r.Length < method.FewKnocks {
		to.Warn(r.at.Length, method.EasyToFind, method.TooFewKnocks)
	} else if takes, soon := method.GuessedIn(size, r.Length, stepsAtOnce); soon {
		to.Warn(r.at.Ports, method.EasyToFind, fmt.Sprintf("Three steps are valid at a time, so %d knocks from %d ports are guessed in %s at %s. "+
			"Use one knock more, or a wider range.", r.Length, size, takes, method.GuessRate))
	}
	for _, other := range doors {
		if slices.ContainsFunc(other.Ports, r.Range.Overlaps) {
			to.Warn(r.at.Ports, "Knocks on guarded ports",
				fmt.Sprintf("The door %q guards some of these ports. Knocks there work, but anybody who finds a guarded port may have found a knock.", other.Name))
		}
	}
}
