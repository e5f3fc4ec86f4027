package method

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/sequence"
)

// EasyToFind is the summary of warnings about sequences that can be guessed soon.
const EasyToFind = "Sequence easy to find"

// FewKnocks is the number of knocks below which a sequence can be guessed soon.
// TooFewKnocks is the text of the warning.
const (
	FewKnocks    = 3
	TooFewKnocks = "A sequence of fewer than three knocks can be guessed soon. Use three or more."
)

// GuessRate is the rate of guesses over a fast line, from any number of addresses.
const GuessRate = "100,000 packets a second"

// Units for GuessedIn. It calls less than tenYears soon.
const (
	packetsASecond  = 100_000
	day             = 24 * time.Hour
	year            = 365 * day
	tenYears        = 10 * year
	mostInADuration = 100 * year // a time.Duration holds up to 292 years
)

// GuessedIn returns the expected time to guess a sequence at GuessRate, such as "about 23
// days". soon says that this is less than ten years. The sequence has so many knocks of so
// many ports, and so many sequences are valid at once.
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

// AdviseGuarded warns of knocks in a sequence of a rule file that hit a guarded port.
func AdviseGuarded(r Reader, sequence hcl.Expression, doors []Door) {
	elements, _ := hcl.ExprList(sequence)
	for _, element := range elements {
		text, _ := r.Value(element)
		step, _ := packet.ParsePort(text)
		for _, other := range doors {
			if other.Guards(step) {
				r.Warn(element, "Knock on a guarded port",
					fmt.Sprintf("The door %q guards %s. The knock works, but anybody who finds the guarded port has found a knock.", other.Name, step))
			}
		}
	}
}

// fewBytes is the minimum length of a secret. Somebody who has overheard one knock or
// password can guess a shorter secret offline.
const fewBytes = 16

// AdviseSecret warns of a secret that is short.
func AdviseSecret(r Reader, e hcl.Expression, s secret.Secret) {
	if n := len(s.Key()); 0 < n && n < fewBytes {
		r.Warn(e, "Short secret", fmt.Sprintf("Anybody who overhears one use of a short secret can guess the secret offline. "+
			"Use a random secret of %d or more bytes: openssl rand -hex 12.", fewBytes))
	}
}
