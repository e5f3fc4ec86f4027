package method

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/sequence"
)

// EasyToFind is the summary of warnings about sequences that are soon guessed.
const EasyToFind = "Sequence easy to find"

// A sequence of fewer knocks than FewKnocks is soon guessed.
const (
	FewKnocks    = 3
	TooFewKnocks = "A sequence of fewer than three knocks is found by chance. Use three or more."
)

// GuessRate is how fast somebody guesses who sends packets as fast as a good line lets
// them, from as many addresses as they like.
const GuessRate = "100,000 packets a second"

// What is soon guessed takes less than tenYears.
const (
	packetsASecond  = 100_000
	day             = 24 * time.Hour
	year            = 365 * day
	tenYears        = 10 * year
	mostInADuration = 100 * year // and little less than there is room for
)

// GuessedIn says in about how long a sequence is guessed, in expectation, and whether
// that is soon: so many knocks of so many ports, of which several sequences are good.
func GuessedIn(ports, knocks, sequences int) (takes string, soon bool) {
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

// AdviseGuarded warns of those knocks of a sequence, as it is written down, that a door
// guards.
func AdviseGuarded(r Reader, sequence hcl.Expression, doors []Door) {
	elements, _ := hcl.ExprList(sequence)
	for _, element := range elements {
		text, _ := r.Value(element)
		step, _ := packet.ParsePort(text)
		for _, other := range doors {
			if other.Guards(step) {
				r.Warn(element, "Knock on a guarded port",
					fmt.Sprintf("The door %q guards %s. It counts as a knock, but whoever finds the port has found a knock.", other.Name, step))
			}
		}
	}
}

// fewBytes is the least of a secret that is not soon guessed, at home, from what was
// overheard once.
const fewBytes = 16

// AdviseSecret warns of a secret that is short.
func AdviseSecret(r Reader, e hcl.Expression, s secret.Secret) {
	if n := len(s.Key()); 0 < n && n < fewBytes {
		r.Warn(e, "Short secret", fmt.Sprintf("Who overhears what follows from it can search for it at home. "+
			"Take %d bytes or more that are random: openssl rand -hex 12.", fewBytes))
	}
}
