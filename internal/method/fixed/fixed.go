// Package fixed is the method of fixed sequences: sequence = [4113, "27911/udp", 1840].
package fixed

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
)

// Kind reads the attribute.
var Kind = method.Kind{Name: "sequence", Knocks: true, Attribute: read}

// Sequence is the method. Each of its Sequences opens the door. Rule files have only one.
type Sequence struct {
	Sequences [][]packet.Port

	at hcl.Expression
}

func read(r method.Reader, _ *method.Door, e hcl.Expression) method.Method {
	steps := r.Knocks(e)
	if steps == nil {
		return nil
	}
	return &Sequence{Sequences: [][]packet.Port{steps}, at: e}
}

func (*Sequence) Name() string          { return Kind.Name }
func (*Sequence) Traits() method.Traits { return method.Traits{} }

func (s *Sequence) Ports() (fixed, chosen []packet.PortRange) {
	return packet.Ranges(slices.Concat(s.Sequences...)), nil
}

func (s *Sequence) Describe(within time.Duration) string {
	n := len(s.Sequences[0])
	if n == 1 {
		return "1 knock within " + printable.Time(within)
	}
	return fmt.Sprintf("%d knocks within %s", n, printable.Time(within))
}

func (s *Sequence) Changes(former method.Method) (c method.Changes) {
	c.Hidden("sequence", slices.EqualFunc(s.Sequences, former.(*Sequence).Sequences, slices.Equal))
	return c
}

func (s *Sequence) Resolve(time.Time) (method.State, error) {
	return method.State{Sequences: s.Sequences}, nil
}

// Use remembers nothing, as the sequence can be used any number of times.
func (*Sequence) Use(method.State, int, time.Time, method.Remember) (replay bool, err error) {
	return false, nil
}

func (s *Sequence) Advise(r method.Reader, doors []method.Door, own int) {
	for _, steps := range s.Sequences {
		for _, advice := range adviseSteps(steps) {
			r.Warn(s.at, method.EasyToFind, advice)
		}
	}
	method.AdviseGuarded(r, s.at, doors)
	for i, other := range doors {
		if i != own {
			s.adviseInPassing(r, other)
		}
	}
	for _, other := range doors[:own] {
		for _, m := range other.Methods {
			if theirs, ok := m.(*Sequence); ok && slices.EqualFunc(s.Sequences, theirs.Sequences, slices.Equal) {
				r.Warn(s.at, "Two doors with the same sequence",
					fmt.Sprintf("This sequence also opens the door %q. One door with the ports of both would do the same.", other.Name))
			}
		}
	}
}

// adviseInPassing warns of knocks that a client makes when it opens another door and closes it
// again.
func (s *Sequence) adviseInPassing(r method.Reader, other method.Door) {
	for _, m := range other.Methods {
		theirs, ok := m.(*Sequence)
		if !ok || len(other.Close) == 0 {
			continue
		}
		knocks := slices.Concat(theirs.Sequences[0], other.Close)
		own := s.Sequences[0]
		for i := range len(knocks) - len(own) + 1 {
			within := i+len(own) <= len(theirs.Sequences[0]) || i >= len(theirs.Sequences[0])
			if !within && slices.Equal(knocks[i:i+len(own)], own) {
				r.Warn(s.at, "Knocks that another door needs in a row",
					fmt.Sprintf("Whoever opens the door %q and closes it again makes these knocks, and so opens this door, too. Choose other knocks.", other.Name))
				return
			}
		}
	}
}

// lowPorts is the end of the range where guessing usually begins.
const lowPorts = 9999

func adviseSteps(steps []packet.Port) (advice []string) {
	var numbers []int
	for _, s := range steps {
		numbers = append(numbers, int(s.Number))
	}
	switch {
	case IsPublished(steps):
		return []string{"This sequence is an example in a manual, so it is among the first guesses. Choose other ports."}
	case len(steps) < method.FewKnocks:
		return []string{method.TooFewKnocks}
	case areEach(steps, func(last, next packet.Port) bool { return next == last }):
		advice = append(advice, "All knocks are at one port. Whoever tries it so many times opens the door, as port scanners do with ports that do not answer. Choose different ports.")
	case areEach(steps, func(last, next packet.Port) bool { return next.Number > last.Number }):
		advice = append(advice, "The ports rise, so an ascending port scan makes all knocks in order. Choose another order.")
	case areEach(steps, func(last, next packet.Port) bool { return next.Number < last.Number }):
		advice = append(advice, "The ports fall, so a descending port scan makes all knocks in order. Choose another order.")
	}
	// Three knocks from all ports take 18 years.
	if takes, soon := method.GuessedIn(lowPorts, len(steps), 1); soon && slices.Max(numbers) <= lowPorts {
		advice = append(advice, fmt.Sprintf("All knocks are among the first %d ports, where guessing begins. At %s, %d such knocks are guessed in %s. "+
			"Use one knock more, or choose from all ports up to 65535.", lowPorts, method.GuessRate, len(steps), takes))
	}
	return advice
}

// areEach reports whether each knock but the first relates to the one before it.
func areEach(steps []packet.Port, relates func(last, next packet.Port) bool) bool {
	for i, next := range steps[1:] {
		if !relates(steps[i], next) {
			return false
		}
	}
	return true
}
