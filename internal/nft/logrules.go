//go:build linux

package nft

import (
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// This file has the rules that log knocks, datagrams and trapped sources for the daemon.

// LogReason is the meaning of a logged packet's prefix.
type LogReason struct {
	Door   int // index of the door; -1: no single door
	Kind   LogReasonKind
	Method int // for a Datagram: index of the door's method that receives it
}

// LogReasonKind says why a packet was logged.
type LogReasonKind uint8

const (
	// Knock: the packet was sent to one of the door's knocks.
	Knock LogReasonKind = iota
	// Datagram: the packet is a datagram for one of the door's methods.
	Datagram
	// Trapped: the packet was sent to one of the door's traps.
	Trapped
	// Refused: the closed door has answered the packet without asking the daemon.
	Refused
	// Sprayed: a source that searches for knocks sent the packet to a port without a
	// listener. It belongs to no single door.
	Sprayed
)

// suffixes are the ends of the log prefixes. Door names have no spaces.
var suffixes = map[LogReasonKind]string{Knock: "", Trapped: " trapped", Refused: " refused"}

// sprayed is the log prefix of sources that are trapped at all doors. No door's name is
// empty.
const sprayed = " sprayed"

// datagramPrefix returns the log prefix of the datagrams of a door's method. No method
// has the name of a suffix.
func datagramPrefix(door string, m method.Method) string { return door + " " + m.Name() }

// LogReasons maps the rules' log prefixes to their meanings.
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

// knockRules returns what logs the door's knocks.
func (d door) knockRules(n Numbers, spray sprayBits) (parts []part, chains []chain) {
	knocks := packet.MergeRanges(packet.Ranges(d.AllKnocks()))
	if len(knocks) == 0 {
		return nil, nil
	}
	for _, ports := range byProtocol(knocks) {
		parts = append(parts, part{knockChain(d.Name), ports, d.To, d.everywhere(nil, rule{jump(knockChain(d.Name))})})
	}
	rules := append(d.elsewhere(), rule{withoutFlags(d.Flags), back})
	if d.hasTraps() {
		for _, f := range families {
			rules = append(rules, rule{fromSet(trappedSet(f), d.penalty(f)), back})
		}
	}
	if d.widens() {
		rules = append(rules, rule{fromSet(wideSet, wide), back})
	}
	return parts, []chain{{knockChain(d.Name), "Knocks of the door " + d.Name + ".", append(rules, d.noteKnock(n)...)}}
}

// knockChains returns the chains for packets to knocks of any door: those of sources whose
// knocks are ignored at all doors go no further.
func knockChains(parts []part, spray sprayBits) []chain {
	if len(parts) == 0 {
		return nil
	}
	rules := fromElsewhere()
	for _, f := range families {
		rules = append(rules, rule{fromSet(guessedSet(f), spray.of(f)), back}, rule{fromSet(sprayingSet(f), spray.of(f)), back})
	}
	ports, chains := byPort(knocksChain, parts)
	return append([]chain{{knocksChain, "Packets to knocks of any door.", append(rules, ports...)}}, chains...)
}

// datagramRules returns what logs the door's datagrams.
func (d door) datagramRules(n Numbers) (parts []part, chains []chain) {
	for i, m := range d.Methods {
		for j, dg := range d.States[i].Datagrams {
			name := datagramChain(d.Name, m, j)
			heard := part{name: name, ports: packet.Ranges([]packet.Port{dg.Port}), to: d.To}
			for _, size := range ofSizes(dg.Sizes) {
				heard.rules = append(heard.rules, d.everywhere(rule{size}, rule{jump(name)})...)
			}
			parts = append(parts, heard)
			log := rule{limit(datagramRate(dg), datagramsBurst), logTo(n.LogGroup, datagramPrefix(d.Name, m), snapLen(dg))}
			rules := slices.Concat(d.elsewhere(), otherwiseBegun(dg), fromElsewhere(), []rule{log})
			if d.holds() {
				rules = append(rules, rule{goTo(d.knocking())})
			}
			chains = append(chains, chain{name, "Datagrams for the door " + d.Name + ": " + m.Name() + ".", rules})
		}
	}
	return parts, chains
}

// fromElsewhere returns the rules that ignore packets with a forged source address, as
// far as the routes tell.
func fromElsewhere() (rules []rule) {
	for _, f := range forged {
		rules = append(rules, rule{f, back})
	}
	return rules
}

// noteKnock returns the rules that log the door's knocks, and remember their sources in
// the kernel. So when a source's first packet comes, the kernel knows whether a knock of
// that source, which opens the door, may be on its way to the daemon. Knocks that only
// begin a sequence are not remembered so: a flood of them neither crowds out the remembered
// sources, nor costs more than it must.
func (d door) noteKnock(n Numbers) []rule {
	rules := []rule{{limit(knocksRate, knocksBurst), logTo(n.LogGroup, d.Name+suffixes[Knock], packet.SnapLen)}}
	if d.holds() {
		for _, ports := range byProtocol(packet.MergeRanges(packet.Ranges(d.beginnings()))) {
			for _, to := range toFew(ports[0].Protocol, ports) {
				rules = append(rules, rule{to, goTo(knockedChain)})
			}
		}
		rules = append(rules, rule{jump(d.knocking())})
	}
	return append(rules, rule{goTo(knockedChain)})
}

// knocking returns the chain that remembers sources of knocks of the door, if the door holds
// packets of sources without a window.
func (d door) knocking() string { return knockingChain(d.source(ipv4), d.source(ipv6)) }

// otherwiseBegun returns the rule that ignores datagrams with another first byte than those
// of a kind.
func otherwiseBegun(dg method.Datagram) []rule {
	if len(dg.First) == 0 {
		return nil
	}
	var all rule
	for _, b := range dg.First {
		all = append(all, notBeginningWith(b))
	}
	return []rule{append(all, back)}
}

// snapLen returns how many bytes of a packet with a datagram to copy.
func snapLen(dg method.Datagram) uint32 {
	most := uint16(0)
	for _, sizes := range dg.Sizes {
		most = max(most, sizes.Most)
	}
	return packet.SnapLen + uint32(most)
}

// datagramRate returns how many datagrams a second the daemon can check.
func datagramRate(dg method.Datagram) uint64 {
	return min(hashesRate/uint64(max(dg.Cost, 1)), knocksRate)
}

// beginnings returns the knocks that never complete an opening sequence: those that close
// the door, and those that are only the first of several that open it.
func (d door) beginnings() (knocks []packet.Port) {
	goesOn := func(p packet.Port) bool {
		return slices.ContainsFunc(d.Sequences, func(steps []packet.Port) bool {
			return len(steps) > 0 && slices.Contains(steps[min(1, len(steps)-1):], p)
		})
	}
	return slices.DeleteFunc(d.AllKnocks(), goesOn)
}

// How many sources of knocks are remembered, for each attempt that can be followed, and
// for how long. By then the window of a correct knock is open. The kernel may keep them
// for another second, until it cleans up. So by default there is room for a flood of
// 130,000 a second of the knocks that end sequences.
const (
	knockingPerSource = 4
	knockingFor       = time.Second
)

// knockingSet returns the name of the set of sources of knocks. All doors with the same
// source_prefix share it: a source in it is only asked about, at a rate of its own. So
// whoever knows the last knock of one door can crowd out the clients of another, but these
// only have to wait until they send their first packet again. With sets for each door, the
// kernel would take much longer to install the table of many doors.
func knockingSet(k sourceKey) string {
	name := "knocking" + k.suffix
	if k.bits < 8*k.length {
		name += fmt.Sprintf("_%d", k.bits)
	}
	return name
}

// knockingChain returns the name of the chain that remembers sources of knocks in these sets
// and that of the link-local ones.
func knockingChain(v4, v6 sourceKey) string {
	name := "knocking"
	if v4.bits < 8*v4.length || v6.bits < 8*v6.length {
		name += fmt.Sprintf("_%d_%d", v4.bits, v6.bits)
	}
	return name
}

// rememberKnocks adds the sets of sources of knocks, and returns the chains that put sources
// into them.
func (t *contents) rememberKnocks(c *effective.Config, spray sprayBits) (chains []chain) {
	knocked := false
	sets, known := map[string]bool{}, map[string]bool{}
	for d := range doorsOf(c) {
		knocked = knocked || len(d.AllKnocks()) > 0
		if !d.holds() || known[d.knocking()] {
			continue
		}
		known[d.knocking()] = true
		var rules []rule
		for _, f := range families {
			rules = append(rules, rule{ofFamily(f), remember(knockingSet(d.source(f)), d.source(f), 0)})
			name := knockingSet(d.source(f))
			if sets[name] {
				continue
			}
			sets[name] = true
			t.sets = append(t.sets, set{
				name: name, kind: f.kind, bits: d.source(f).bits, dynamic: true,
				size: knockingPerSource * uint32(c.Wall.MaxSources), timeout: knockingFor,
			})
		}
		chains = append(chains, chain{d.knocking(), "Sources whose knock may open a door.", rules})
	}
	if knocked {
		var rules []rule
		for _, f := range families {
			rules = append(rules, rule{ofFamily(f), remember(knockedSet(f), spray.of(f), 0)})
		}
		chains = append(chains, chain{knockedChain, "Sources of any knock.", rules})
	}
	return chains
}
