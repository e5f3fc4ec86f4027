//go:build linux

package nft

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
)

// This file has the rules against sources that try ports to find the knocks.
//
// Clients that know the knocks open no connections to ports without a listener. So these
// rules watch the ports of this host that no service listens at and no door names:
//
//   - A source that has knocked a moment ago, and then tries a port that it has not tried
//     before, is guessing. Its knocks are void, and further knocks are ignored until they
//     would be forgotten. So a guess is right only if all knocks of a sequence follow
//     each other directly, which takes decades, from however many addresses
//     (sequence.Guesses). Only a source that knows a knock can fill the sets of this
//     rule.
//   - A source that tries more than a handful of them in a second is trapped, so that not
//     much can be guessed at once on many CPUs. Ports of common services do not count.
//   - A source that tries a trap is trapped at that trap's door.
//
// The kernel does all this by itself: the knocks of a source in such a set are ignored
// until its time in the set is up. The daemon only gets a log message. The rules are
// behind NAT, where conntrack knows whether a rule forwards the packet to a service.

const (
	// handful is how many ports without a listener a source may try in a second.
	handful = 8
	tryFor  = time.Second
	// triedFor is how long the kernel remembers which ports a source has tried. Programs
	// keep trying a port whose service is down for longer than that.
	triedFor = 30 * time.Second
)

// A whole network of wideBits is trapped if wideAfter of its parts are trapped in a
// minute. That is more parts than the customer of a provider has who gets a /56.
const (
	wideBits  = 48
	wideAfter = 256
	crowdSet  = "crowd6"
	wideSet   = "trapped_wide6"
)

// wide is the key of a whole network in these sets.
var wide = sourceKey{family: ipv6, bits: wideBits}

func (d door) hasTraps() bool { return len(d.Traps) > 0 && len(d.AllKnocks()) > 0 }

// widens reports whether a whole network is trapped when many of its parts are.
func (d door) widens() bool { return len(d.AllKnocks()) > 0 && isPart(d.PenaltyPrefix.IPv6) }

// isPart reports whether penalties apply to parts of a network that a customer has from a
// provider, and not to single hosts, of which a customer can have any number.
func isPart(bits int) bool { return wideBits < bits && bits <= 64 }

// penalized returns what tells trapped sources apart. All link-local addresses have the
// same leading bits.
func (d door) penalized(f family) sourceKey {
	switch {
	case f.length == ipv4.length:
		return sourceKey{family: f, bits: d.PenaltyPrefix.IPv4}
	case f.perLink:
		return d.source(f)
	}
	return sourceKey{family: f, bits: d.PenaltyPrefix.IPv6}
}

// penalty returns the key of a source that is trapped at the door.
func (d door) penalty(f family) sourceKey { return d.penalized(f).numbered(d.Name) }

// sprayBits are the leading bits of [door.penalized] for all doors together: the smallest of
// theirs.
type sprayBits map[string]int // by the suffix of the family

func sprayBitsOf(c *effective.Config) sprayBits {
	s := sprayBits{}
	for _, f := range families {
		s[f.suffix] = f.length * 8
	}
	for d := range doorsOf(c) {
		if len(d.AllKnocks()) == 0 {
			continue
		}
		for _, f := range families {
			s[f.suffix] = min(s[f.suffix], d.penalized(f).bits)
		}
	}
	return s
}

func (s sprayBits) of(f family) sourceKey { return sourceKey{family: f, bits: s[f.suffix]} }

// The names of the wall's sets of sources.
func knockedSet(f family) string  { return "knocked" + f.suffix }
func guessedSet(f family) string  { return "guessed" + f.suffix }
func tryingSet(f family) string   { return "trying" + f.suffix }
func triedSet(f family) string    { return "tried" + f.suffix }
func sprayingSet(f family) string { return "spraying" + f.suffix }

// hostSets returns the sets that describe the host.
func hostSets(h *effective.Host) []set {
	served := set{name: servedSet, constant: true, kind: protocolAndPort}
	for _, p := range slices.SortedFunc(maps.Keys(h.Served), comparePorts) {
		served.elements = append(served.elements, portElement(p))
	}
	uplinks := set{name: uplinksSet, constant: true, kind: nftables.TypeIFIndex}
	for _, index := range slices.Sorted(maps.Keys(h.Uplinks)) {
		uplinks.elements = append(uplinks.elements, element{strconv.Quote(h.Uplinks[index]), binaryutil.NativeEndian.PutUint32(index)})
	}
	return []set{served, uplinks}
}

const aboutUnserved = "Packets to ports that no program serves, behind NAT."

// unserved returns the chains against sources that search for knocks.
func (t *contents) unserved(c *effective.Config, n Numbers, spray sprayBits) (chains []chain) {
	var knocked []door
	for d := range doorsOf(c) {
		if len(d.AllKnocks()) > 0 {
			knocked = append(knocked, d)
		}
	}
	rules := []rule{
		{fromLoopback, accept},
		{fromVRF, accept},
		{neitherTCPNorUDP, accept},
		{ofKnownConnection, accept},
		{ofRedirected, accept},
		{atServedPort, accept},
	}
	if len(knocked) == 0 {
		return []chain{{unservedChain, aboutUnserved, rules}}
	}
	var traps []packet.PortRange
	var tries []heldPorts
	for _, d := range knocked {
		if !d.hasTraps() {
			continue
		}
		traps = append(traps, d.Traps...)
		target := trapChain(d.Name)
		if !d.isHere() {
			target = triesChain(d.Name)
			chains = append(chains, chain{target, "Packets to traps of the door " + d.Name + ".", d.everywhere(nil, rule{goTo(trapChain(d.Name))})})
		}
		tries = append(tries, heldPorts{d.Traps, target})
		chains = append(chains, d.trap(n))
	}
	rules = append(rules, toAny(traps, goTo(trapsChain))...)
	rules = append(rules, toAny(c.NamedPorts(), accept)...)
	known := map[string]bool{} // by the text of the rule: most doors have the same
	for _, d := range knocked {
		for _, like := range d.likeKnocks() {
			for _, r := range d.placed(rule{like}, rule{goTo(strayChain)}) {
				if text := r.String(); !known[text] {
					known[text] = true
					rules = append(rules, r)
				}
			}
		}
	}
	chains = append(chains, strays(n, spray)...)
	return append([]chain{
		{unservedChain, aboutUnserved, rules},
		{trapsChain, "Packets to traps of any door.", append(fromElsewhere(), jumpToAll(tries)...)},
	}, chains...)
}

// likeKnocks returns matches for packets that could be knocks of the door, judged by
// everything but their port.
func (d door) likeKnocks() (terms []term) {
	for _, protocol := range []packet.Protocol{packet.TCP, packet.UDP} {
		switch {
		case !slices.ContainsFunc(d.AllKnocks(), func(p packet.Port) bool { return p.Protocol == protocol }):
		case protocol == packet.TCP:
			terms = append(terms, withFlags(d.Flags))
		default:
			terms = append(terms, ofUDP)
		}
	}
	return terms
}

// trap returns the chain for sources that try one of the door's traps.
func (d door) trap(n Numbers) chain {
	rules := append(d.elsewhere(), rule{withoutFlags(d.Flags), back})
	for _, f := range families {
		rules = append(rules, trapped(trappedSet(f), d.penalty(f), d.Penalty)...)
	}
	rules = append(rules, rule{limit(trapsRate, trapsBurst), logTo(n.LogGroup, d.Name+suffixes[Trapped], packet.SnapLen)})
	return chain{trapChain(d.Name), "Sources that have tried a trap of the door " + d.Name + ".", rules}
}

// trapped returns the rules that put a source into a set for a time (0: that of the set), and
// its network into another if many of the network's sources are newly trapped.
func trapped(set string, k sourceKey, timeout time.Duration) (rules []rule) {
	if k.suffix == ipv6.suffix && isPart(k.bits) {
		rules = append(rules, rule{ofFamily(k.family), notFromSet(set, k),
			tooMany(crowdSet, wide, wideAfter, expr.LimitTimeMinute), remember(wideSet, wide, 0)})
	}
	return append(rules, rule{ofFamily(k.family), remember(set, k, timeout)})
}

// searchSets returns the sets of sources that search for knocks, which all doors share.
func searchSets(c *effective.Config, spray sprayBits) (sets []set) {
	var timeout, penalty time.Duration
	knocked, widens := false, isPart(spray.of(ipv6).bits)
	for d := range doorsOf(c) {
		if len(d.AllKnocks()) > 0 {
			knocked = true
			timeout, penalty = max(timeout, d.SequenceTimeout), max(penalty, d.Penalty)
			widens = widens || d.widens()
		}
	}
	if !knocked {
		return nil
	}
	size := uint32(c.Wall.MaxSources)
	for _, f := range families {
		bits := spray.of(f).bits
		sets = append(sets,
			set{name: knockedSet(f), kind: f.kind, bits: bits, dynamic: true, size: size, timeout: timeout},
			set{name: guessedSet(f), kind: f.kind, bits: bits, dynamic: true, size: size, timeout: timeout},
			set{name: tryingSet(f), kind: f.kind, bits: bits, dynamic: true, size: size, timeout: tryFor},
			set{name: triedSet(f), kind: probeOf(f), bits: bits, dynamic: true, size: size, timeout: triedFor},
			set{name: sprayingSet(f), kind: f.kind, bits: bits, dynamic: true, size: size, timeout: penalty})
	}
	if widens {
		sets = append(sets,
			set{name: crowdSet, kind: ipv6.kind, bits: wideBits, dynamic: true, size: size, timeout: time.Minute},
			set{name: wideSet, kind: ipv6.kind, bits: wideBits, dynamic: true, size: size, timeout: penalty})
	}
	return sets
}

// strays returns the chains for sources that try ports without a listener.
func strays(n Numbers, spray sprayBits) []chain {
	var guess, spraying []rule
	rules := fromElsewhere()
	for _, f := range families {
		key := spray.of(f)
		rules = append(rules,
			rule{triedBefore(triedSet(f), key), rememberTry(triedSet(f), key), accept},
			rule{fromSet(knockedSet(f), key), jump(guessChain)},
			rule{fromSet(sprayingSet(f), key), accept})
		guess = append(guess, rule{ofFamily(f), remember(guessedSet(f), key, 0)})
	}
	// Ports of common services may be tried: clients know them from elsewhere.
	rules = append(rules, toAny(effective.Services(), accept)...)
	for _, f := range families {
		key := spray.of(f)
		rules = append(rules,
			rule{ofFamily(f), rememberTry(triedSet(f), key)},
			rule{ofFamily(f), tooMany(tryingSet(f), key, handful, expr.LimitTimeSecond), goTo(sprayChain)})
		spraying = append(spraying, trapped(sprayingSet(f), key, 0)...)
	}
	told := rule{limit(trapsRate, trapsBurst), logTo(n.LogGroup, sprayed, packet.SnapLen)}
	return []chain{
		{strayChain, "Packets to ports that no program serves and no door names.", rules},
		{guessChain, "Sources that have knocked, and then tried such a port.", append(guess, told)},
		{sprayChain, "Sources that have tried many such ports.", append(spraying, told)},
	}
}

// trapElement is an element of a set of sources whose knocks are ignored.
type trapElement struct {
	set  string
	kind nftables.SetDatatype
	key  []byte
}

// trapsOf returns the set elements of which any one makes the kernel ignore a source's
// knocks at a door.
func trapsOf(c *effective.Config, d door, source packet.Source) (all []trapElement) {
	f := familyOf(source)
	add := func(set string, k sourceKey) {
		masked := source
		masked.Prefix = netip.PrefixFrom(source.Addr(), k.bits).Masked()
		key := f.key(masked)
		if k.atDoor {
			key = f.keyAt(d.Name, masked)
		}
		all = append(all, trapElement{set, kindOf(f, k.atDoor), key})
	}
	if len(d.AllKnocks()) == 0 {
		return nil
	}
	if d.hasTraps() {
		add(trappedSet(f), d.penalty(f))
	}
	spray := sprayBitsOf(c)
	add(sprayingSet(f), spray.of(f))
	add(guessedSet(f), spray.of(f))
	if f.suffix == ipv6.suffix && d.widens() {
		add(wideSet, wide)
	}
	return all
}
