//go:build linux

package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/knockwall/knockwall/internal/packet"
)

// This file passes each packet to the rules for its port, and for its address if many doors
// share a port, by verdict maps. So a packet passes a few rules, however many doors there
// are.

// part is what a door does with the packets to some of its ports.
type part struct {
	name  string             // of one protocol's parts, only one has this name
	ports []packet.PortRange // of one protocol
	// to are the addresses whose packets the rules can match. Empty: those of any.
	to    []netip.Prefix
	rules []rule
}

// byPort returns rules that do with each packet what the parts with its port do, in the
// order of the parts, and the chains that these rules name. No other rules of the packet's
// chain are passed afterwards. The chains' names begin with name.
//
// The ports with the same parts share a chain. Doors with many different wide ranges of
// ports would need more rules for all these chains than the parts have: there, all ports
// share a chain, which compares the port for each part, one after the other.
func byPort(name string, parts []part) (rules []rule, chains []chain) {
	groups, ok := groupPorts(parts)
	if !ok {
		target := name + "_all"
		var all []packet.PortRange
		for _, p := range parts {
			all = append(all, p.ports...)
		}
		return toAny(all, goTo(target)), []chain{{target, from(name) + "all these ports.", inOrder(parts)}}
	}
	targets := map[packet.Port]string{}
	room := copiesOf(parts)
	for _, g := range groups {
		protocol := g.ports[0].Protocol
		target, ok := g.only()
		if !ok {
			target = fmt.Sprintf("%s_%s_%d", name, protocol, g.ports[0].First)
			if len(g.parts) == 1 {
				// This name stays when the knocks of a rolling sequence change: some kernels
				// before 6.4 cannot delete a chain in the transaction that deletes its map. No
				// door's name has a dot, so that no door's chain has this name.
				target = fmt.Sprintf("%s_%s.%s", name, protocol, g.parts[0].name)
			}
			content, more := byAddress(target, g.parts, &room)
			chains = append(append(chains, chain{target, from(name) + someOf(g.ports) + ".", content}), more...)
		}
		for _, r := range g.ports {
			if r.Last-r.First >= maxSpread {
				for _, to := range toPorts(protocol, []packet.PortRange{r}) {
					rules = append(rules, rule{to, goTo(target)})
				}
				continue
			}
			for n := int(r.First); n <= int(r.Last); n++ {
				targets[packet.Port{Number: uint16(n), Protocol: protocol}] = target
			}
		}
	}
	if len(targets) > 0 {
		rules = append([]rule{{portMap(expr.VerdictGoto, targets)}}, rules...)
	}
	return rules, chains
}

// from begins what is said about a chain that another one goes to.
func from(chain string) string { return "From " + chain + ": packets to " }

// someOf returns the first items of a list, and how many there are beyond.
func someOf[T fmt.Stringer](all []T) string {
	const most = 8
	var words []string
	for _, item := range all[:min(len(all), most)] {
		words = append(words, item.String())
	}
	text := strings.Join(words, ", ")
	if more := len(all) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// inOrder returns rules that compare the port for each part.
func inOrder(parts []part) (rules []rule) {
	for _, p := range parts {
		for _, to := range toPorts(p.ports[0].Protocol, p.ports) {
			for _, r := range p.rules {
				rules = append(rules, append(rule{to}, r...))
			}
		}
	}
	return rules
}

// portGroup is all ports with the same parts.
type portGroup struct {
	ports []packet.PortRange // of one protocol
	parts []part
}

// only returns the chain that all packets of the group go to, if that is all that is done with
// them.
func (g *portGroup) only() (chain string, ok bool) {
	if len(g.parts) > 1 || len(g.parts[0].rules) > 1 || len(g.parts[0].rules[0]) > 1 {
		return "", false
	}
	chain = g.parts[0].rules[0][0].target
	return chain, chain != ""
}

// shared limits how many chains may have a copy of a part's rules, on average. A table
// with few parts may have more.
const (
	shared    = 16
	fewCopies = 1024
)

// copiesOf returns how many copies of parts there may be in groups of ports, and as many
// again in groups of addresses.
func copiesOf(parts []part) int { return fewCopies + shared*len(parts) }

// groupPorts groups all ports by their parts. It reports false if there are too many copies
// of parts in the groups.
func groupPorts(parts []part) (groups []*portGroup, ok bool) {
	// At a limit the set of parts changes: they begin at its port, or end before it.
	type limit struct {
		at   int // 65536: behind the last port
		part int
		ends bool
	}
	limits := map[packet.Protocol][]limit{}
	for i, p := range parts {
		for _, r := range p.ports {
			limits[r.Protocol] = append(limits[r.Protocol], limit{int(r.First), i, false}, limit{int(r.Last) + 1, i, true})
		}
	}
	copies := 0
	for _, protocol := range slices.Sorted(maps.Keys(limits)) {
		all := limits[protocol]
		slices.SortFunc(all, func(a, b limit) int { return cmp.Compare(a.at, b.at) })
		known := map[string]*portGroup{}
		var present []int // sorted indexes of the parts with the port
		for i, l := range all {
			where, found := slices.BinarySearch(present, l.part)
			switch {
			case l.ends:
				present = slices.Delete(present, where, where+1)
			case !found:
				present = slices.Insert(present, where, l.part)
			}
			if len(present) == 0 || l.at == all[i+1].at {
				continue
			}
			var key []byte
			for _, part := range present {
				key = binary.AppendUvarint(key, uint64(part))
			}
			g := known[string(key)]
			if g == nil {
				g = &portGroup{}
				for _, part := range present {
					g.parts = append(g.parts, parts[part])
				}
				if copies += len(g.parts); copies > copiesOf(parts) {
					return nil, false
				}
				known[string(key)] = g
				groups = append(groups, g)
			}
			g.ports = append(g.ports, packet.PortRange{First: uint16(l.at), Last: uint16(all[i+1].at - 1), Protocol: protocol})
		}
	}
	return groups, true
}

// manyAddresses is the number of parts with addresses, at one port, from which on a map
// finds those for a packet's destination.
const manyAddresses = 4

// byAddress returns the rules of all parts, in their order. If many parts are for packets
// to single addresses, the rules pass each packet to a chain for its destination, as long
// as there is room for copies of parts in such chains.
func byAddress(name string, parts []part, room *int) (rules []rule, chains []chain) {
	hosts, ok := groupHosts(parts, room)
	targets := map[netip.Addr]string{}
	if ok {
		for _, g := range hosts {
			target := name + "_" + strings.ReplaceAll(g.hosts[0].String(), ":", "_")
			chains = append(chains, chain{target, from(name) + someOf(g.hosts) + ".", rulesOf(g.parts)})
			for _, h := range g.hosts {
				targets[h] = target
			}
		}
		for _, f := range versions {
			if m, ok := hostMap(f, targets); ok {
				rules = append(rules, rule{m})
			}
		}
		// Packets to single addresses have left this chain.
		parts = slices.DeleteFunc(slices.Clone(parts), func(p part) bool {
			return len(p.to) > 0 && !slices.ContainsFunc(p.to, func(to netip.Prefix) bool { return !to.IsSingleIP() })
		})
	}
	return append(rules, rulesOf(parts)...), chains
}

func rulesOf(parts []part) (rules []rule) {
	for _, p := range parts {
		rules = append(rules, p.rules...)
	}
	return rules
}

// hostGroup is all addresses with the same parts.
type hostGroup struct {
	hosts []netip.Addr
	parts []part
}

// groupHosts groups the single addresses of parts by the parts that can match packets to
// them. It reports false if there are few, or if there is no room for the copies of parts in
// the groups.
func groupHosts(parts []part, room *int) (groups []*hostGroup, ok bool) {
	var hosts []netip.Addr
	of := map[netip.Addr][]int{} // parts with this single address
	var wide []int               // parts that match packets to other addresses, too
	addressed := 0
	for i, p := range parts {
		if len(p.to) > 0 {
			addressed++
		}
		isWide := len(p.to) == 0
		for _, to := range p.to {
			if !to.IsSingleIP() {
				isWide = true
				continue
			}
			if of[to.Addr()] == nil {
				hosts = append(hosts, to.Addr())
			}
			of[to.Addr()] = append(of[to.Addr()], i)
		}
		if isWide {
			wide = append(wide, i)
		}
	}
	if addressed < manyAddresses || len(hosts)*len(wide) > copiesOf(parts) {
		return nil, false
	}
	copies := 0
	known := map[string]*hostGroup{}
	for _, h := range hosts {
		present := of[h]
		for _, i := range wide {
			to := parts[i].to
			if len(to) == 0 || slices.ContainsFunc(to, func(p netip.Prefix) bool { return !p.IsSingleIP() && p.Contains(h) }) {
				present = append(present, i)
			}
		}
		slices.Sort(present)
		present = slices.Compact(present)
		var key []byte
		for _, i := range present {
			key = binary.AppendUvarint(key, uint64(i))
		}
		g := known[string(key)]
		if g == nil {
			g = &hostGroup{}
			for _, i := range present {
				g.parts = append(g.parts, parts[i])
			}
			if copies += len(g.parts); copies > *room {
				return nil, false
			}
			known[string(key)] = g
			groups = append(groups, g)
		}
		g.hosts = append(g.hosts, h)
	}
	*room -= copies
	return groups, true
}

// heldPorts are ports of one protocol, and the chain for packets to them.
type heldPorts struct {
	ports []packet.PortRange
	chain string
}

// jumpToAll returns rules that pass each packet to all chains for its port. Unlike the rules
// of [byPort] they need no chain for each combination of doors, of which there are very many
// if doors have many ports at random, as traps are. The first map has a chain for each port,
// the second one has another chain for each port that has two, and so on.
func jumpToAll(held []heldPorts) (rules []rule) {
	var maps []map[packet.Port]string
	has := map[packet.Port]int{} // in how many maps a port is
	for _, h := range held {
		for _, r := range h.ports {
			if r.Last-r.First >= maxSpread {
				for _, to := range toPorts(r.Protocol, []packet.PortRange{r}) {
					rules = append(rules, rule{to, jump(h.chain)})
				}
				continue
			}
			for n := int(r.First); n <= int(r.Last); n++ {
				p := packet.Port{Number: uint16(n), Protocol: r.Protocol}
				if has[p] == len(maps) {
					maps = append(maps, map[packet.Port]string{})
				}
				maps[has[p]][p] = h.chain
				has[p]++
			}
		}
	}
	for _, m := range maps {
		rules = append(rules, rule{portMap(expr.VerdictJump, m)})
	}
	return rules
}

// portMap jumps or goes to the chain for a packet's protocol and port.
func portMap(kind expr.VerdictKind, targets map[packet.Port]string) term {
	ports := slices.SortedFunc(maps.Keys(targets), comparePorts)
	m := verdictMap{
		verdict: kind,
		text:    protocolAndPortText,
		load:    loadProtocolAndPort(),
		kind:    protocolAndPort,
	}
	for _, p := range ports {
		m.add(portElement(p), targets[p])
	}
	return m.term()
}

// hostMap goes to the chain for a packet's destination. It reports false if there are no
// addresses of the family.
func hostMap(f family, targets map[netip.Addr]string) (term, bool) {
	m := verdictMap{
		verdict: expr.VerdictGoto,
		text:    f.keyword + " daddr",
		load:    append(isVersion(f), &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dest, Len: uint32(f.length)}),
		kind:    f.kind,
	}
	for _, h := range slices.SortedFunc(maps.Keys(targets), netip.Addr.Compare) {
		if h.BitLen() == 8*f.length {
			m.add(element{h.String(), h.AsSlice()}, targets[h])
		}
	}
	return m.term(), len(m.elements) > 0
}

// verdictMap is an anonymous map whose values are chains to jump or go to. A hash set holds
// it: [toPorts] says why no interval set does.
type verdictMap struct {
	verdict  expr.VerdictKind
	text     string // the key as nft lists it
	load     []expr.Any
	kind     nftables.SetDatatype
	words    []string
	elements []nftables.SetElement
}

func (m *verdictMap) add(key element, target string) {
	word := map[expr.VerdictKind]string{expr.VerdictGoto: "goto", expr.VerdictJump: "jump"}[m.verdict]
	m.words = append(m.words, key.text+" : "+word+" "+target)
	m.elements = append(m.elements, nftables.SetElement{Key: key.key, VerdictData: &expr.Verdict{Kind: m.verdict, Chain: target}})
}

func (m *verdictMap) term() term {
	return term{
		text: m.text + " vmap { " + strings.Join(m.words, ", ") + " }",
		exprs: func(b *batch) []expr.Any {
			s := &nftables.Set{Table: b.table, Anonymous: true, Constant: true, IsMap: true, KeyType: m.kind, DataType: nftables.TypeVerdict}
			b.conn.AddSet(s, m.elements)
			return append(slices.Clone(m.load), &expr.Lookup{SourceRegister: 1, IsDestRegSet: true, SetName: s.Name, SetID: s.ID})
		},
	}
}
