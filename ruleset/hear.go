//go:build linux

package ruleset

import (
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
)

// How the rules let the daemon hear of what opens and closes doors, and of who looks
// for it.

// Notice is what the prefix of a logged packet says.
type Notice struct {
	Door int // -1: no single one
	Kind NoticeKind
}

// NoticeKind says why a packet was logged.
type NoticeKind uint8

const (
	// Knock: it was sent to one of the door's knocks.
	Knock NoticeKind = iota
	// Password: it was sent to the door's port for one-time passwords, and is as long
	// as one.
	Password
	// Trapped: it was sent to one of the door's traps.
	Trapped
	// Refused: the closed door has answered it without asking the daemon.
	Refused
	// Sprayed: it was sent to a port at which nobody listens, by a source that looks for
	// knocks. It is no single door's.
	Sprayed
)

// suffixes end the log prefixes. No door's name has a space in it.
var suffixes = map[NoticeKind]string{Knock: "", Password: " otp", Trapped: " trapped", Refused: " refused"}

// sprayed is the log prefix of who is trapped at all doors. No door's name is empty.
const sprayed = " sprayed"

// Notices maps the prefixes that the rules log with to what they mean.
func (c *Config) Notices() map[string]Notice {
	m := make(map[string]Notice, len(suffixes)*len(c.Doors)+1)
	m[sprayed] = Notice{-1, Sprayed}
	for i, d := range c.Doors {
		for kind, suffix := range suffixes {
			m[d.Name+suffix] = Notice{i, kind}
		}
	}
	return m
}

// hear returns the rules by which the door hears of knocks and one-time passwords,
// and adds the sets that they need.
func (t *Table) hear(d *Door, n Numbers, c *Config) (wall []rule, chains []chain) {
	if d.holds() {
		for _, f := range families {
			t.sets = append(t.sets, set{
				name: knockingSet(d.Name, f), kind: f.kind, bits: d.bits(f), dynamic: true,
				size: knockingPerSource * uint32(c.Wall.MaxSources), timeout: knockingFor,
			})
		}
	}
	if knocks := merge(single(d.allKnocks())); len(knocks) > 0 {
		for _, ports := range byProtocol(knocks) {
			match := rule{}
			if ports[0].Protocol == packet.TCP {
				match = rule{withFlags(d.Flags)}
			}
			for _, to := range toPorts(ports[0].Protocol, ports) {
				wall = append(wall, d.everywhere(rule{to}, append(match, jump(knockChain(d.Name))))...)
			}
		}
		chains = append(chains, chain{knockChain(d.Name), append(d.unheard(c), t.note(d, n, c, Knock)...)})
	}
	if d.OTP != nil {
		for _, to := range toPorts(packet.UDP, single([]packet.Port{d.OTP.Port})) {
			wall = append(wall, d.everywhere(rule{to, ofLength(otp.Size)}, rule{jump(passwordChain(d.Name))})...)
		}
		chains = append(chains, chain{passwordChain(d.Name), append(fromElsewhere(), t.note(d, n, c, Password)...)})
	}
	return wall, chains
}

// fromElsewhere keeps away what is sent under somebody else's address, as far as the
// routes tell.
func fromElsewhere() (rules []rule) {
	for _, f := range forged {
		rules = append(rules, rule{f, back})
	}
	return rules
}

// unheard are the rules that keep those from knocking who are trapped, and forged
// sources.
func (d *Door) unheard(c *Config) []rule {
	rules := fromElsewhere()
	for _, f := range families {
		if d.hasTraps() {
			rules = append(rules, rule{fromSet(f, trappedSet(d.Name, f), d.penaltyBits(f)), back})
		}
		rules = append(rules, rule{fromSet(f, guessedSet(f), c.sprayBits(f)), back}, rule{fromSet(f, sprayingSet(f), c.sprayBits(f)), back})
	}
	if d.widens() {
		rules = append(rules, rule{fromSet(ipv6, wideSet, wideBits), back})
	}
	return rules
}

// note logs what may open the door, and makes the kernel remember who has sent it:
// when a source's first packet comes, the kernel knows without asking whether a
// knock of that source may be on its way to the daemon which opens the door. That is
// nothing that a sequence only begins with, so that a flood of such does not crowd
// out those who are remembered, and costs no more than it must.
func (t *Table) note(d *Door, n Numbers, c *Config, kind NoticeKind) (rules []rule) {
	log := rule{limit(knocksRate, knocksBurst), logTo(n.LogGroup, d.Name+suffixes[Knock], packet.SnapLen)}
	if kind == Password {
		log = rule{limit(d.OTP.rate(), passwordsBurst), logTo(n.LogGroup, d.Name+suffixes[Password], packet.MaxSnapLen)}
	}
	if kind == Knock {
		for _, f := range families {
			rules = append(rules, rule{ofFamily(f), remember(f, knockedSet(f), c.sprayBits(f))})
		}
	}
	rules = append(rules, log)
	if !d.holds() {
		return rules
	}
	if kind == Knock {
		for _, ports := range byProtocol(merge(single(d.beginnings()))) {
			for _, to := range toPorts(ports[0].Protocol, ports) {
				rules = append(rules, rule{to, back})
			}
		}
	}
	for _, f := range families {
		rules = append(rules, rule{ofFamily(f), remember(f, knockingSet(d.Name, f), d.bits(f))})
	}
	return rules
}

// rate returns how many datagrams a second can be hashed with each secret, for each
// minute that it can be for its sender.
func (o *OTP) rate() uint64 {
	hashes := 1 + 2*uint64((o.Skew+time.Minute-1)/time.Minute)
	if o.Close.IsSet() {
		hashes *= 2
	}
	return min(hashesRate/hashes, knocksRate)
}

// beginnings returns the knocks that take nobody to the end of a sequence: those that
// close the door, and those that are only the first of several that open it.
func (d *Door) beginnings() (knocks []packet.Port) {
	goesOn := func(p packet.Port) bool {
		return slices.ContainsFunc(d.Sequences, func(steps []packet.Port) bool {
			return len(steps) > 0 && slices.Contains(steps[min(1, len(steps)-1):], p)
		})
	}
	return slices.DeleteFunc(d.allKnocks(), goesOn)
}

// How many are remembered to have knocked, for each attempt that can be followed, and for
// how long. By then the window is open, for who has knocked right. The kernel may keep
// them for another second, before it cleans up: so there is room for a flood of 130,000 a
// second of those knocks that sequences end with, by default.
const (
	knockingPerSource = 4
	knockingFor       = time.Second
)

func knockingSet(door string, f family) string { return door + "_knocking" + f.suffix }
func trappedSet(door string, f family) string  { return door + "_trapped" + f.suffix }
