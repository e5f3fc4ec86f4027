//go:build linux

package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
)

// listed are chains as nft lists them.
type listed map[string][]listedRule

// listedRule is a rule as nft lists it.
type listedRule struct {
	text string
	// elements are those of a verdict map, or of a set with what the rule does, whose key is
	// the port or the destination of a packet.
	elements map[string]string
	byHost   bool
	// If the rule matches ports, these are the ports and what it does with them.
	protocol string
	ports    []packet.PortRange
	end      string
}

var (
	verdicts  = regexp.MustCompile(`^(meta l4proto \. th dport|ip6? daddr) vmap \{ (.*) \}$`)
	setMatch  = regexp.MustCompile(`^meta l4proto \. th dport \{ (.*) \} (.*)$`)
	portMatch = regexp.MustCompile(`^(tcp|udp) dport (\{ .* \}|\S+) (.*)$`)
)

func newListed(chains []chain) listed {
	l := listed{}
	for _, c := range chains {
		for _, r := range c.rules {
			l[c.name] = append(l[c.name], parseRule(r.String()))
		}
	}
	return l
}

func parseRule(text string) listedRule {
	r := listedRule{text: text, end: text}
	if m := verdicts.FindStringSubmatch(text); m != nil {
		r.byHost = strings.HasPrefix(m[1], "ip")
		r.elements = map[string]string{}
		for e := range strings.SplitSeq(m[2], ", ") {
			key, verdict, _ := strings.Cut(e, " : ")
			r.elements[key] = verdict
		}
	} else if m := setMatch.FindStringSubmatch(text); m != nil {
		r.elements = map[string]string{}
		for e := range strings.SplitSeq(m[1], ", ") {
			r.elements[e] = m[2]
		}
	} else if m := portMatch.FindStringSubmatch(text); m != nil {
		r.protocol, r.end = m[1], m[3]
		for ports := range strings.SplitSeq(strings.Trim(m[2], "{ }"), ", ") {
			first, last, isRange := strings.Cut(ports, "-")
			if !isRange {
				last = first
			}
			from, _ := strconv.Atoi(first)
			until, _ := strconv.Atoi(last)
			r.ports = append(r.ports, packet.PortRange{First: uint16(from), Last: uint16(until)})
		}
	}
	return r
}

// verdict returns what the rule does with a packet, and "" if it does not match it. It takes
// matches of anything but ports and destinations in maps as true.
func (r listedRule) verdict(to packet.Port, host netip.Addr) string {
	switch {
	case r.elements != nil && r.byHost:
		return r.elements[host.String()]
	case r.elements != nil:
		return r.elements[fmt.Sprintf("%s . %d", to.Protocol, to.Number)]
	case r.protocol != "" && (r.protocol != to.Protocol.String() || !packet.InRanges(packet.Port{Number: to.Number}, r.ports)):
		return ""
	}
	return r.end
}

// passes returns what the rules do that match a packet, up to one that leaves the chain. Of
// rules that jump, that is only the jump.
func (l listed) passes(chain string, to packet.Port, host netip.Addr) (ends []string) {
	for _, r := range l[chain] {
		end := r.verdict(to, host)
		if end == "" {
			continue
		}
		if target, ok := strings.CutPrefix(end, "goto "); ok && l[target] != nil {
			return append(ends, l.passes(target, to, host)...)
		}
		ends = append(ends, end[max(0, strings.LastIndex(end, "jump ")):])
	}
	return ends
}

// Whatever the ports and addresses of the parts are, a packet passes the rules of those
// parts that can match it, in their order.
func TestEachPacketPassesTheRulesForItsPortAndAddress(t *testing.T) {
	for _, size := range []int{0, 1, 2, 5, 30, 200} {
		for seed := range uint64(20) {
			t.Run(fmt.Sprintf("%d parts, %d", size, seed), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, uint64(size)))
				parts := make([]part, size)
				for i := range parts {
					parts[i] = randomPart(random, i)
				}
				rules, chains := byPort("x", parts)
				l := newListed(append(chains, chain{name: "x", rules: rules}))
				if len(l) != len(chains)+1 && size > 0 {
					t.Fatalf("two chains have the same name: %d chains, %d names", len(chains)+1, len(l))
				}
				for range 50 {
					to := packet.Port{Number: edge(random), Protocol: []packet.Protocol{packet.TCP, packet.UDP}[random.IntN(2)]}
					host := someHost(random)
					var want []string
					for _, p := range parts {
						if packet.InRanges(to, p.ports) && matches(p.to, host) {
							want = append(want, p.rules[0].String())
						}
					}
					// A rule for another address matches nothing, wherever it is.
					got := slices.DeleteFunc(l.passes("x", to, host), func(name string) bool {
						i, err := strconv.Atoi(strings.TrimPrefix(name, "part "))
						return err != nil || !matches(parts[i].to, host)
					})
					if !slices.Equal(want, got) {
						t.Fatalf("a packet to %s at %s passes %v, want %v", to, host, got, want)
					}
				}
			})
		}
	}
}

// A packet jumps to the chains of all holders of its port, and to each of them once.
func TestAPacketJumpsToAllChainsForItsPort(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var held []heldPorts
		for i := range 30 {
			held = append(held, heldPorts{randomPart(random, i).ports, fmt.Sprintf("x%d", i)})
		}
		l := newListed([]chain{{name: "x", rules: jumpToAll(held)}})
		for range 100 {
			to := packet.Port{Number: edge(random), Protocol: []packet.Protocol{packet.TCP, packet.UDP}[random.IntN(2)]}
			var want []string
			for _, h := range held {
				if packet.InRanges(to, h.ports) {
					want = append(want, "jump "+h.chain)
				}
			}
			got := l.passes("x", to, netip.Addr{})
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(want, got) {
				t.Fatalf("a packet to %s does %v, want %v", to, got, want)
			}
		}
	}
}

func matches(to []netip.Prefix, host netip.Addr) bool {
	return len(to) == 0 || slices.ContainsFunc(to, func(p netip.Prefix) bool { return p.Contains(host) })
}

// edge returns a port that is often the first or last of some range.
func edge(random *rand.Rand) uint16 {
	edges := []uint16{1, 22, 23, 24, 80, 1000, 1254, 1255, 1256, 1257, 20000, 65534, 65535}
	if random.IntN(4) > 0 {
		return edges[random.IntN(len(edges))]
	}
	return uint16(1 + random.IntN(65535))
}

func someHost(random *rand.Rand) netip.Addr {
	if random.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(2)), byte(random.IntN(8))})
	}
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: byte(random.IntN(8))})
}

func randomPart(random *rand.Rand, i int) part {
	p := part{name: fmt.Sprintf("p%d", i), rules: []rule{{say(fmt.Sprintf("part %d", i))}}}
	protocol := []packet.Protocol{packet.TCP, packet.UDP}[random.IntN(2)]
	for range 1 + random.IntN(3) {
		a, b := edge(random), edge(random)
		if random.IntN(2) == 0 {
			b = a
		}
		p.ports = append(p.ports, packet.PortRange{First: min(a, b), Last: max(a, b), Protocol: protocol})
	}
	p.ports = packet.MergeRanges(p.ports)
	for range random.IntN(4) {
		host := someHost(random)
		bits := host.BitLen()
		if random.IntN(4) == 0 {
			bits -= 2
		}
		p.to = append(p.to, netip.PrefixFrom(host, bits).Masked())
	}
	return p
}

// A packet passes a bounded number of rules, however many doors there are: with ports of
// their own, or with the same port at addresses of their own.
func TestRulesPassedDoNotGrowWithDoors(t *testing.T) {
	passed := func(doors int) (most int) {
		var own, same []part
		for i := range doors {
			port := packet.Port{Number: uint16(1000 + i), Protocol: packet.TCP}
			host := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			own = append(own, part{name: fmt.Sprintf("own%d", i), ports: packet.Ranges([]packet.Port{port}), rules: []rule{{say("own")}}})
			same = append(same, part{name: fmt.Sprintf("same%d", i), ports: packet.Ranges([]packet.Port{tcp(22)}), to: []netip.Prefix{netip.PrefixFrom(host, 32)}, rules: []rule{{say("same")}}})
		}
		for _, parts := range [][]part{own, same} {
			rules, chains := byPort("x", parts)
			most = max(most, len(rules))
			for _, c := range chains {
				most = max(most, len(c.rules))
			}
		}
		return most
	}
	if few, many := passed(10), passed(5000); few != many || few > 1 {
		t.Errorf("a chain has up to %d rules with 10 doors, and %d with 5000", few, many)
	}
}

// wideRanges returns parts with wide ranges that all differ.
func wideRanges(n int) (parts []part) {
	for i := range n {
		parts = append(parts, part{
			name:  fmt.Sprintf("part%d", i),
			ports: []packet.PortRange{{First: uint16(1000 + 10*i), Last: uint16(30000 + 10*i), Protocol: packet.TCP}},
			rules: []rule{{say(fmt.Sprintf("part %d", i))}},
		})
	}
	return parts
}

// A packet to a port of the parts passes no other rules of its chain, however the parts are
// found: such rules are only for ports that no part has.
func TestPacketsToPortsOfPartsLeaveTheChain(t *testing.T) {
	for _, n := range []int{1, 30, 1000} {
		rules, chains := byPort("x", wideRanges(n))
		l := newListed(append(chains, chain{name: "x", rules: append(rules, rule{say("behind")})}))
		for _, port := range []uint16{1, 999, 1000, 1005, 30000, 30000 + uint16(10*(n-1)), 30001 + uint16(10*(n-1)), 65535} {
			passed := l.passes("x", packet.Port{Number: port, Protocol: packet.TCP}, someHost(rand.New(rand.NewPCG(1, 1))))
			isOfPart := 1000 <= port && int(port) <= 30000+10*(n-1)
			if behind := slices.Contains(passed, "behind"); behind == isOfPart {
				t.Errorf("%d parts: a packet to port %d passes the rule behind them: %v", n, port, behind)
			}
			if got := len(passed) - 1; !isOfPart && got != 0 {
				t.Errorf("%d parts: a packet to port %d passes %d rules of parts", n, port, got)
			}
		}
	}
}

// Doors with wide ranges that all differ do not multiply the rules of the table.
func TestWideRangesDoNotMultiplyRules(t *testing.T) {
	const doors = 1000
	if n := rulesIn(byPort("x", wideRanges(doors))); n > 2*doors {
		t.Errorf("%d parts have become %d rules", doors, n)
	}
}

func rulesIn(rules []rule, chains []chain) int {
	n := len(rules)
	for _, c := range chains {
		n += len(c.rules)
	}
	return n
}

// Nor do doors at addresses of their own, with different ports, that also receive packets to
// many hosts.
func TestAddressesDoNotMultiplyRules(t *testing.T) {
	const doors, ports = 32, 20
	var parts []part
	for i := range doors {
		var all []packet.PortRange
		for j := range uint16(ports) {
			if int(j) != i%ports {
				all = append(all, packet.PortRange{First: 1000 + 2*j, Last: 1000 + 2*j, Protocol: packet.UDP})
			}
		}
		to := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)}
		rules := []rule{{say(fmt.Sprintf("door %d", i))}}
		name := fmt.Sprintf("door%d", i)
		parts = append(parts, part{name, all, to, rules}, part{name: name + manyHosts, ports: all, rules: rules})
	}
	if n := rulesIn(byPort("x", parts)); n > 3*copiesOf(parts) {
		t.Errorf("%d parts have become %d rules", len(parts), n)
	}
}

// A set that doors share has room for what one door may have, and for that of many as far as a
// set is that large. It is seldom made anew.
func TestRoomForDoors(t *testing.T) {
	for _, tt := range []struct {
		doors, each int
		want        uint32
	}{
		{0, 65536, 65536}, {1, 65536, 65536}, {2, 65536, 4 * 65536}, {4, 65536, 4 * 65536}, {5, 65536, 16 * 65536},
		{17, 65536, mostElements}, {16384, 65536, mostElements},
		{1, mostElements, mostElements}, {2, mostElements, mostElements}, {16384, mostElements, mostElements},
		{17, 16, 64 * 16}, {16384, 16, 16384 * 16},
	} {
		if got := roomFor(tt.doors, tt.each); got != tt.want {
			t.Errorf("%d doors with %d each have room for %d, want %d", tt.doors, tt.each, got, tt.want)
		}
	}
}
