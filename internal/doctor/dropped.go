package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
)

// findDropped finds tables that drop what the wall lets in, or knocks before the wall
// hears them. A rule that may depend on more than the port, such as the source, is no
// finding. The filter tables of iptables-legacy are not read.
func findDropped(h *Host) (findings []Finding, err error) {
	f, err := h.firewall()
	if err != nil {
		return nil, err
	}
	here, err := host.Addresses()
	if err != nil {
		return nil, err
	}
	ways, waysErr := h.ways()
	before := slices.Concat(f.ingress(), f.earlier(*nftables.ChainPriorityMangle))
	onTheWay := slices.Concat(f.ingress(), f.hooked(nftables.ChainHookPrerouting, nftables.ChainTypeFilter))
	for i := range h.Config.Doors {
		d := &h.Config.Doors[i]
		hook := nftables.ChainHookForward
		if isHere(d, here) {
			hook = nftables.ChainHookInput
		}
		for _, c := range slices.Concat(onTheWay, f.hooked(hook, nftables.ChainTypeFilter)) {
			if ports := f.drops(c, d.Ports, ways); ports != "" && waysErr == nil {
				severity, by := c.versions()
				findings = append(findings, Finding{Severity: severity, Door: d.Name,
					Problem: fmt.Sprintf("Another table (%s) drops what comes to %s%s: whoever knocks right is not let in either.", c.where(), ports, by),
					Cure:    fmt.Sprintf("Let that table accept %s: the wall drops strangers there before.", ports)})
			}
		}
		for _, c := range before {
			// Which ports are dropped is a secret.
			if f.drops(c, h.knocksOf(i), nil) != "" {
				severity, by := c.versions()
				findings = append(findings, Finding{Severity: severity, Door: d.Name,
					Problem: fmt.Sprintf("Another table (%s) drops knocks%s before the wall hears them.", c.where(), by),
					Cure:    fmt.Sprintf("Let that table pass the door's knocks, or give its chain a priority above %d.", *nftables.ChainPriorityMangle)})
			}
		}
	}
	return findings, f.partly
}

// versions says by which version of IP a chain shuts a door. One of them may be shut on
// purpose.
func (c *chain) versions() (severity Severity, by string) {
	switch c.Table.Family {
	case nftables.TableFamilyIPv4:
		return Warning, " by IPv4"
	case nftables.TableFamilyIPv6:
		return Warning, " by IPv6"
	}
	return Error, ""
}

// knocksOf are the ports at which the wall has to hear a door's clients.
func (h *Host) knocksOf(door int) []packet.PortRange {
	d := &h.Config.Doors[door]
	ports := packet.Ranges(d.CloseSequence)
	for _, m := range d.Methods {
		fixed, _ := m.Ports()
		ports = append(ports, fixed...)
	}
	if h.InForce != nil { // and so it is known which ports are chosen
		ports = append(ports, packet.Ranges(h.InForce.Doors[door].AllKnocks())...)
	}
	return packet.MergeRanges(ports)
}

// ingress returns the chains that see packets as soon as they come in by an interface.
func (f *firewall) ingress() (all []*chain) {
	const inetIngress, netdevIngress = 5, 0 // NF_INET_INGRESS, NF_NETDEV_INGRESS of linux/netfilter.h
	for _, c := range f.chains {
		if c.Hooknum != nil && (c.Table.Family == nftables.TableFamilyINet && *c.Hooknum == inetIngress ||
			c.Table.Family == nftables.TableFamilyNetdev && *c.Hooknum == netdevIngress) {
			all = append(all, c)
		}
	}
	return all
}

// earlier returns the chains of prerouting that see packets before a priority.
func (f *firewall) earlier(than nftables.ChainPriority) []*chain {
	return slices.DeleteFunc(f.hooked(nftables.ChainHookPrerouting, nftables.ChainTypeFilter), func(c *chain) bool {
		return c.Priority == nil || *c.Priority >= than
	})
}

// drops says to which of these ports a chain lets no new connection, whoever makes it. A
// port that NAT leads on from is another one by then, or comes to another host.
func (f *firewall) drops(c *chain, ports []packet.PortRange, ways []way) string {
	var dropped []string
	for _, r := range ports {
		if slices.ContainsFunc(ways, func(w way) bool { return !w.from.and(of(r)).none }) {
			continue
		}
		if steps := 0; f.fate(c, of(r), 0, &steps) == fateDropped {
			dropped = append(dropped, r.String())
		}
	}
	return strings.Join(dropped, ", ")
}

// fate is what becomes of traffic in a chain.
type fate uint8

const (
	fateUnknown fate = iota // it depends on more than the port
	fateDropped
	fateAccepted
	fateReturned // to the rule behind the one that led there
)

// fate follows new connections through a chain.
func (f *firewall) fate(c *chain, t traffic, depth int, steps *int) fate {
	for _, r := range c.rules {
		if *steps++; *steps > maxSteps || depth > maxDepth {
			return fateUnknown
		}
		both := r.match.and(t)
		if both.none || r.old {
			continue
		}
		then := fateReturned // to the next rule
		switch r.verdict {
		case expr.VerdictAccept, expr.VerdictStop:
			then = fateAccepted
		case expr.VerdictDrop:
			then = fateDropped
		case expr.VerdictReturn:
			return fateIf(!r.narrow && both.covers(t), c.end())
		case expr.VerdictJump, expr.VerdictGoto:
			next := f.chain(c.Table, r.chain)
			if next == nil {
				return fateUnknown
			}
			then = f.fate(next, t, depth+1, steps)
			if r.verdict == expr.VerdictGoto && then == fateReturned {
				return fateIf(!r.narrow && both.covers(t), c.end())
			}
		case noVerdict:
			if r.leads != nil && r.leads.silent {
				then = fateAccepted // by TPROXY
			}
		default:
			then = fateUnknown
		}
		switch certain := !r.narrow && both.covers(t); {
		case then == fateReturned:
		case certain:
			return then
		case then != fateDropped:
			return fateUnknown // what it does not accept may be dropped later
		}
	}
	return c.end()
}

// fateIf is a fate that is known, or not.
func fateIf(known bool, then fate) fate {
	if known {
		return then
	}
	return fateUnknown
}

// end is the fate of what no rule of a chain decides about.
func (c *chain) end() fate {
	switch {
	case c.Hooknum == nil:
		return fateReturned
	case c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop:
		return fateDropped
	}
	return fateAccepted
}

// covers reports whether all of other is in the traffic, as far as that can be told of one
// run of ports.
func (t traffic) covers(other traffic) bool {
	if t.protocol != 0 && t.protocol != other.protocol {
		return false
	}
	if t.ports == nil {
		return true
	}
	return slices.ContainsFunc(t.ports, func(s span) bool {
		return !slices.ContainsFunc(other.ports, func(o span) bool { return o.first < s.first || o.last > s.last })
	})
}
