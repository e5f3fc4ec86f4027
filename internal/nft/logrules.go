//go:build linux

package nft

import (
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// How the rules let the daemon hear of what opens and closes doors, and of who looks
// for it.

// LogReason is what the prefix of a logged packet says.
type LogReason struct {
	Door   int // -1: no single one
	Kind   LogReasonKind
	Method int // of the door, that hears a Datagram
}

// LogReasonKind says why a packet was logged.
type LogReasonKind uint8

const (
	// Knock: it was sent to one of the door's knocks.
	Knock LogReasonKind = iota
	// Datagram: it is a datagram that one of the door's methods is heard by.
	Datagram
	// Trapped: it was sent to one of the door's traps.
	Trapped
	// Refused: the closed door has answered it without asking the daemon.
	Refused
	// Sprayed: it was sent to a port at which nobody listens, by a source that looks for
	// knocks. It is no single door's.
	Sprayed
)

// suffixes end the log prefixes. No door's name has a space in it.
var suffixes = map[LogReasonKind]string{Knock: "", Trapped: " trapped", Refused: " refused"}

// sprayed is the log prefix of who is trapped at all doors. No door's name is empty.
const sprayed = " sprayed"

// datagramPrefix is the log prefix of the datagrams of a door's method. No method is named
// as one of the suffixes.
func datagramPrefix(door string, m method.Method) string { return door + " " + m.Name() }

// LogReasons maps the prefixes that the rules log with to what they mean.
func LogReasons(c *effective.Config) map[string]LogReason {
	m := make(map[string]LogReason, len(suffixes)*len(c.Doors)+1)
	m[sprayed] = LogReason{Door: -1, Kind: Sprayed}
	for i, d := range c.Doors {
		for kind, suffix := range suffixes {
			m[d.Name+suffix] = LogReason{Door: i, Kind: kind}
		}
		for j, way := range d.Methods {
			if _, ok := way.(method.Listener); ok {
				m[datagramPrefix(d.Name, way)] = LogReason{Door: i, Kind: Datagram, Method: j}
			}
		}
	}
	return m
}

// logRules returns the rules by which the door hears of knocks and datagrams, and adds the sets that they need.
func (t *Table) logRules(d door, n Numbers, c *effective.Config) (wall []rule, chains []chain) {
	if d.holds() {
		for _, f := range families {
			t.sets = append(t.sets, set{
				name: knockingSet(d.Name, f), kind: f.kind, bits: d.bits(f), dynamic: true,
				size: knockingPerSource * uint32(c.Wall.MaxSources), timeout: knockingFor,
			})
		}
	}
	if knocks := packet.MergeRanges(packet.Ranges(d.AllKnocks())); len(knocks) > 0 {
		for _, ports := range byProtocol(knocks) {
			match := rule{}
			if ports[0].Protocol == packet.TCP {
				match = rule{withFlags(d.Flags)}
			}
			for _, to := range toPorts(ports[0].Protocol, ports) {
				wall = append(wall, d.everywhere(rule{to}, append(match, jump(knockChain(d.Name))))...)
			}
		}
		chains = append(chains, chain{knockChain(d.Name), append(d.unheard(c), t.noteKnock(d, n, c)...)})
	}
	for i, m := range d.Methods {
		for _, dg := range d.States[i].Datagrams {
			for _, to := range toPorts(packet.UDP, packet.Ranges([]packet.Port{dg.Port})) {
				wall = append(wall, d.everywhere(rule{to, ofLength(dg.Size)}, rule{jump(datagramChain(d.Name, m))})...)
			}
			log := rule{limit(datagramRate(dg), datagramsBurst), logTo(n.LogGroup, datagramPrefix(d.Name, m), packet.MaxSnapLen)}
			chains = append(chains, chain{datagramChain(d.Name, m), slices.Concat(fromElsewhere(), []rule{log}, d.remember())})
		}
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
func (d door) unheard(c *effective.Config) []rule {
	rules := fromElsewhere()
	for _, f := range families {
		if d.hasTraps() {
			rules = append(rules, rule{fromSet(f, trappedSet(d.Name, f), d.penaltyBits(f)), back})
		}
		rules = append(rules, rule{fromSet(f, guessedSet(f), sprayBits(c, f)), back}, rule{fromSet(f, sprayingSet(f), sprayBits(c, f)), back})
	}
	if d.widens() {
		rules = append(rules, rule{fromSet(ipv6, wideSet, wideBits), back})
	}
	return rules
}

// noteKnock logs what may open the door, and makes the kernel remember who has sent it:
// when a source's first packet comes, the kernel knows without asking whether a
// knock of that source may be on its way to the daemon which opens the door. That is
// nothing that a sequence only begins with, so that a flood of such does not crowd
// out those who are remembered, and costs no more than it must.
func (t *Table) noteKnock(d door, n Numbers, c *effective.Config) (rules []rule) {
	for _, f := range families {
		rules = append(rules, rule{ofFamily(f), remember(f, knockedSet(f), sprayBits(c, f))})
	}
	rules = append(rules, rule{limit(knocksRate, knocksBurst), logTo(n.LogGroup, d.Name+suffixes[Knock], packet.SnapLen)})
	if !d.holds() {
		return rules
	}
	for _, ports := range byProtocol(packet.MergeRanges(packet.Ranges(d.beginnings()))) {
		for _, to := range toPorts(ports[0].Protocol, ports) {
			rules = append(rules, rule{to, back})
		}
	}
	return append(rules, d.remember()...)
}

// remember are the rules that remember who has knocked, if the door holds strangers.
func (d door) remember() (rules []rule) {
	if !d.holds() {
		return nil
	}
	for _, f := range families {
		rules = append(rules, rule{ofFamily(f), remember(f, knockingSet(d.Name, f), d.bits(f))})
	}
	return rules
}

// datagramRate returns how many datagrams a second can be checked.
func datagramRate(dg method.Datagram) uint64 {
	return min(hashesRate/uint64(max(dg.Cost, 1)), knocksRate)
}

// beginnings returns the knocks that take nobody to the end of a sequence: those that
// close the door, and those that are only the first of several that open it.
func (d door) beginnings() (knocks []packet.Port) {
	goesOn := func(p packet.Port) bool {
		return slices.ContainsFunc(d.Sequences, func(steps []packet.Port) bool {
			return len(steps) > 0 && slices.Contains(steps[min(1, len(steps)-1):], p)
		})
	}
	return slices.DeleteFunc(d.AllKnocks(), goesOn)
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
