//go:build linux

package ruleset

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/knockwall/knockwall/internal/packet"
)

// How those are kept from finding the knocks who try ports until they have them.
//
// Nobody who knows the knocks opens connections to ports at which nobody listens. So, of
// the ports of this host that nothing serves and no door names:
//
//   - Who has knocked a moment ago and then tries one that he has not tried before is
//     guessing: what he has knocked is void, and he is not heard until it would be
//     forgotten. What he has guessed is right only if all knocks of a sequence follow
//     each other, which takes decades, with as many addresses as he likes
//     (sequence.Guesses). Only who knows a knock can fill the sets of this.
//   - Who tries more than a handful of them in a second is trapped, so that not much can
//     be guessed at once on many CPUs. What services are often at does not count.
//   - Who tries a trap is trapped at that door.
//
// All of it is the kernel's own doing: a source in a set is not heard until its time
// in it is up. Only that it got there is logged. And it happens behind NAT, where
// conntrack knows whether a rule leads on to somebody's service.

const (
	// handful is how many ports that nothing serves may be tried in a second.
	handful = 8
	tryFor  = time.Second
	// triedFor is how long it is remembered which ports a source has tried. Programs
	// that go on trying a port whose service is down do so for longer than it.
	triedFor = 30 * time.Second
)

// A network of which so many parts are trapped in a minute is trapped as a whole: more
// than a customer has to whom a provider gives a /56.
const (
	wideBits  = 48
	wideAfter = 256
	crowdSet  = "crowd6"
	wideSet   = "trapped_wide6"
)

func (d *Door) hasTraps() bool { return len(d.Traps) > 0 && len(d.allKnocks()) > 0 }

// widens reports whether the networks that those are in who are trapped are trapped
// with many of them.
func (d *Door) widens() bool { return len(d.allKnocks()) > 0 && isPart(d.PenaltyPrefix.IPv6) }

// isPart reports whether who is trapped together are a part of a network that somebody
// has from a provider, and not single hosts, of whom one can be as many as it likes.
func isPart(bits int) bool { return wideBits < bits && bits <= 64 }

// penaltyBits is by how many leading bits of their address those are told apart who are
// trapped. On a link everybody has the same ones as everybody else.
func (d *Door) penaltyBits(f family) int {
	switch {
	case f.length == ipv4.length:
		return d.PenaltyPrefix.IPv4
	case f.perLink:
		return d.SourcePrefix.IPv6
	}
	return d.PenaltyPrefix.IPv6
}

// sprayBits is what [Door.penaltyBits] is for all doors together: the least of theirs.
func (c *Config) sprayBits(f family) int {
	bits := f.length * 8
	for i := range c.Doors {
		if d := &c.Doors[i]; len(d.allKnocks()) > 0 {
			bits = min(bits, d.penaltyBits(f))
		}
	}
	return bits
}

// The names of the wall's sets of sources.
func knockedSet(f family) string  { return "knocked" + f.suffix }
func guessedSet(f family) string  { return "guessed" + f.suffix }
func tryingSet(f family) string   { return "trying" + f.suffix }
func triedSet(f family) string    { return "tried" + f.suffix }
func sprayingSet(f family) string { return "spraying" + f.suffix }

// hostSets are the sets of what the table has to know of the host.
func hostSets(h *Host) []set {
	served := set{name: servedSet, constant: true, kind: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)}
	for _, p := range slices.SortedFunc(maps.Keys(h.Served), func(a, b packet.Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	}) {
		// Each part of a key has whole words.
		key := append([]byte{byte(p.Protocol), 0, 0, 0}, append(bigEndian(p.Number), 0, 0)...)
		served.elements = append(served.elements, element{fmt.Sprintf("%s . %d", p.Protocol, p.Number), key})
	}
	uplinks := set{name: uplinksSet, constant: true, kind: nftables.TypeIFIndex}
	for _, index := range slices.Sorted(maps.Keys(h.Uplinks)) {
		uplinks.elements = append(uplinks.elements, element{strconv.Quote(h.Uplinks[index]), binaryutil.NativeEndian.PutUint32(index)})
	}
	return []set{served, uplinks}
}

// unserved returns the chains for those who look for knocks.
func (t *Table) unserved(c *Config, n Numbers) (chains []chain) {
	knocked := slices.Collect(func(yield func(*Door) bool) {
		for i := range c.Doors {
			if len(c.Doors[i].allKnocks()) > 0 && !yield(&c.Doors[i]) {
				return
			}
		}
	})
	rules := []rule{
		{fromLoopback, accept},
		{fromVRF, accept},
		{neitherTCPNorUDP, accept},
		{ofKnownConnection, accept},
		{ofRedirected, accept},
		{atServedPort, accept},
	}
	if len(knocked) == 0 {
		return []chain{{unservedChain, rules}}
	}
	var traps []packet.PortRange
	for _, d := range knocked {
		traps = append(traps, d.Traps...)
	}
	var all []rule
	for _, d := range knocked {
		if d.hasTraps() {
			all = append(all, d.everywhere(nil, rule{jump(doorTraps(d.Name))})...)
			chains = append(chains, t.traps(d, n, c)...)
		}
	}
	for _, ports := range byProtocol(merge(traps)) {
		for _, to := range toPorts(ports[0].Protocol, ports) {
			rules = append(rules, rule{to, goTo(trapsChain)})
		}
	}
	for _, ports := range byProtocol(c.named()) {
		for _, to := range toPorts(ports[0].Protocol, ports) {
			rules = append(rules, rule{to, accept})
		}
	}
	for _, d := range knocked {
		for _, like := range d.likeKnocks() {
			for _, r := range d.everywhere(rule{like}, rule{goTo(strayChain)}) {
				if !slices.ContainsFunc(rules, func(other rule) bool { return other.String() == r.String() }) {
					rules = append(rules, r)
				}
			}
		}
	}
	chains = append(chains, t.strays(knocked, n, c)...)
	return append([]chain{{unservedChain, rules}, {trapsChain, all}}, chains...)
}

// likeKnocks returns matches for packets that could be knocks of the door, as far as they
// tell whatever port they are sent to.
func (d *Door) likeKnocks() (terms []term) {
	for _, protocol := range []packet.Protocol{packet.TCP, packet.UDP} {
		switch {
		case !slices.ContainsFunc(d.allKnocks(), func(p packet.Port) bool { return p.Protocol == protocol }):
		case protocol == packet.TCP:
			terms = append(terms, withFlags(d.Flags))
		default:
			terms = append(terms, ofUDP)
		}
	}
	return terms
}

// traps returns the chains for who tries one of the door's traps.
func (t *Table) traps(d *Door, n Numbers, c *Config) []chain {
	var tries, rules []rule
	for _, ports := range byProtocol(d.Traps) {
		match := rule{}
		if ports[0].Protocol == packet.TCP {
			match = rule{withFlags(d.Flags)}
		}
		for _, to := range toPorts(ports[0].Protocol, ports) {
			tries = append(tries, append(slices.Clone(match), to, goTo(trapChain(d.Name))))
		}
	}
	rules = fromElsewhere()
	for _, f := range families {
		name := trappedSet(d.Name, f)
		t.sets = append(t.sets, set{name: name, kind: f.kind, bits: d.penaltyBits(f), dynamic: true, size: uint32(c.Wall.MaxSources), timeout: d.Penalty})
		rules = append(rules, trapped(f, name, d.penaltyBits(f))...)
	}
	rules = append(rules, rule{limit(trapsRate, trapsBurst), logTo(n.LogGroup, d.Name+suffixes[Trapped], packet.SnapLen)})
	return []chain{{doorTraps(d.Name), tries}, {trapChain(d.Name), rules}}
}

// trapped puts a source into a set, and its network into another if many of it are
// trapped anew.
func trapped(f family, set string, bits int) (rules []rule) {
	if f.suffix == ipv6.suffix && isPart(bits) {
		rules = append(rules, rule{ofFamily(f), notFromSet(f, set, bits),
			tooMany(f, crowdSet, wideBits, wideAfter, expr.LimitTimeMinute), remember(f, wideSet, wideBits)})
	}
	return append(rules, rule{ofFamily(f), remember(f, set, bits)})
}

// strays returns the chains for who tries ports that nothing serves, and adds the sets
// that all doors share.
func (t *Table) strays(knocked []*Door, n Numbers, c *Config) []chain {
	var timeout, penalty time.Duration
	widens := false
	for _, d := range knocked {
		timeout, penalty = max(timeout, d.SequenceTimeout), max(penalty, d.Penalty)
		widens = widens || d.widens()
	}
	widens = widens || isPart(c.sprayBits(ipv6))
	size := uint32(c.Wall.MaxSources)
	var guess, spray []rule
	rules := fromElsewhere()
	for _, f := range families {
		bits := c.sprayBits(f)
		rules = append(rules,
			rule{triedBefore(f, triedSet(f), bits), rememberTry(f, triedSet(f), bits), accept},
			rule{fromSet(f, knockedSet(f), bits), jump(guessChain)},
			rule{fromSet(f, sprayingSet(f), bits), accept})
		guess = append(guess, rule{ofFamily(f), remember(f, guessedSet(f), bits)})
	}
	// What is often served may be tried by whoever has seen it elsewhere.
	for _, ports := range byProtocol(merge(often())) {
		for _, to := range toPorts(ports[0].Protocol, ports) {
			rules = append(rules, rule{to, accept})
		}
	}
	for _, f := range families {
		bits := c.sprayBits(f)
		t.sets = append(t.sets,
			set{name: knockedSet(f), kind: f.kind, bits: bits, dynamic: true, size: size, timeout: timeout},
			set{name: guessedSet(f), kind: f.kind, bits: bits, dynamic: true, size: size, timeout: timeout},
			set{name: tryingSet(f), kind: f.kind, bits: bits, dynamic: true, size: size, timeout: tryFor},
			set{name: triedSet(f), kind: probeOf(f), bits: bits, dynamic: true, size: size, timeout: triedFor},
			set{name: sprayingSet(f), kind: f.kind, bits: bits, dynamic: true, size: size, timeout: penalty})
		rules = append(rules,
			rule{ofFamily(f), rememberTry(f, triedSet(f), bits)},
			rule{ofFamily(f), tooMany(f, tryingSet(f), bits, handful, expr.LimitTimeSecond), goTo(sprayChain)})
		spray = append(spray, trapped(f, sprayingSet(f), bits)...)
	}
	if widens {
		t.sets = append(t.sets,
			set{name: crowdSet, kind: ipv6.kind, bits: wideBits, dynamic: true, size: size, timeout: time.Minute},
			set{name: wideSet, kind: ipv6.kind, bits: wideBits, dynamic: true, size: size, timeout: penalty})
	}
	told := rule{limit(trapsRate, trapsBurst), logTo(n.LogGroup, sprayed, packet.SnapLen)}
	return []chain{{strayChain, rules}, {guessChain, append(guess, told)}, {sprayChain, append(spray, told)}}
}

// trapElement is an element of a set of those who cannot knock.
type trapElement struct {
	set  string
	kind nftables.SetDatatype
	key  []byte
}

// trapsOf returns the elements of which any keeps a source from knocking at a door.
func (c *Config) trapsOf(d *Door, source packet.Source) (all []trapElement) {
	f := familyOf(source)
	add := func(set string, bits int) {
		masked := source
		masked.Prefix = netip.PrefixFrom(source.Addr(), bits).Masked()
		all = append(all, trapElement{set, f.kind, f.key(masked)})
	}
	if len(d.allKnocks()) == 0 {
		return nil
	}
	if d.hasTraps() {
		add(trappedSet(d.Name, f), d.penaltyBits(f))
	}
	add(sprayingSet(f), c.sprayBits(f))
	add(guessedSet(f), c.sprayBits(f))
	if f.suffix == ipv6.suffix && d.widens() {
		add(wideSet, wideBits)
	}
	return all
}

// often returns the ports where services often are.
func often() (ports []packet.PortRange) {
	for _, r := range services {
		for _, protocol := range []packet.Protocol{packet.TCP, packet.UDP} {
			ports = append(ports, packet.PortRange{First: r[0], Last: r[1], Protocol: protocol})
		}
	}
	return ports
}
