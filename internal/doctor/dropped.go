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

// findDropped finds tables that drop packets that the wall accepts, or that drop knocks
// before the wall hears them. A rule that may depend on more than the port and the source
// is no finding. It does not read the filter tables of iptables-legacy.
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
			if waysErr != nil {
				continue // an unread NAT rule may lead the ports elsewhere
			}
			severity, by, version := c.versions()
			all, most := f.drops(c, d.Ports, ways, isHere(d, here))
			if ports := inWords(all); ports != "" {
				findings = append(findings, Finding{Severity: severity, Door: d.Name, Stops: Connections, IPVersion: version,
					Problem: fmt.Sprintf("Another table (%s) drops what comes to %s%s, even from sources with an open window.", c.where(), ports, by),
					Cure:    fmt.Sprintf("Let that table accept %s%s. The wall drops packets from sources without a window before that table sees them.", ports, f.byUFW(c, all))})
			}
			if ports := inWords(most); ports != "" {
				findings = append(findings, Finding{Severity: Warning, Door: d.Name, Stops: Others, IPVersion: version,
					Problem: fmt.Sprintf("Another table (%s) accepts %s%s only from some sources. It drops the others, even with an open window.", c.where(), ports, by),
					Cure:    fmt.Sprintf("If clients come from elsewhere, let that table accept %s%s. The wall drops packets from sources without a window before that table sees them.", ports, f.byUFW(c, most))})
			}
		}
		for _, c := range before {
			// The finding does not name the ports, because they are a secret.
			if all, _ := f.drops(c, h.knocksOf(i), nil, isHere(d, here)); len(all) > 0 {
				severity, by, version := c.versions()
				findings = append(findings, Finding{Severity: severity, Door: d.Name, Stops: Knocks, IPVersion: version,
					Problem: fmt.Sprintf("Another table (%s) drops knocks%s before the wall hears them.", c.where(), by),
					Cure:    fmt.Sprintf("Let that table accept the door's knocks, or give its chain a priority above %d.", *nftables.ChainPriorityMangle)})
			}
		}
	}
	return findings, f.partly
}

// versions returns the severity for a chain that drops a door's packets, and the version
// of IP if it drops only one, for people and as a number. That may be intended, so it is a
// warning.
func (c *chain) versions() (severity Severity, by string, version int) {
	switch c.Table.Family {
	case nftables.TableFamilyIPv4:
		return Warning, " by IPv4", 4
	case nftables.TableFamilyIPv6:
		return Warning, " by IPv6", 6
	}
	return Error, "", 0
}

// knocksOf returns the ports at which the wall must hear a door's clients.
func (h *Host) knocksOf(door int) []packet.PortRange {
	d := &h.Config.Doors[door]
	ports := packet.Ranges(d.CloseSequence)
	for _, m := range d.Methods {
		fixed, _ := m.Ports()
		ports = append(ports, fixed...)
	}
	if h.InForce != nil { // the ports that are chosen by method are known
		ports = append(ports, packet.Ranges(h.InForce.Doors[door].AllKnocks())...)
	}
	return packet.MergeRanges(ports)
}

// ingress returns the chains of the ingress hooks.
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

// earlier returns the prerouting chains that run before a priority.
func (f *firewall) earlier(than nftables.ChainPriority) []*chain {
	return slices.DeleteFunc(f.hooked(nftables.ChainHookPrerouting, nftables.ChainTypeFilter), func(c *chain) bool {
		return c.Priority == nil || *c.Priority >= than
	})
}

// inWords joins ports for a sentence.
func inWords(ports []packet.PortRange) string {
	var words []string
	for _, r := range ports {
		words = append(words, r.String())
	}
	return strings.Join(words, ", ")
}

// byUFW says how to let ufw accept ports, if it has made the chain.
func (f *firewall) byUFW(c *chain, ports []packet.PortRange) string {
	if f.chain(c.Table, "ufw-user-input") == nil && f.chain(c.Table, "ufw6-user-input") == nil {
		return ""
	}
	var commands []string
	for _, r := range ports {
		commands = append(commands, "`ufw allow "+strings.Replace(r.String(), "-", ":", 1)+"`")
	}
	return ": " + strings.Join(commands, ", ")
}

// drops returns those of the ports to which a chain drops every new connection, and those to
// which it drops all but those of some sources. It leaves out ports that NAT leads elsewhere:
// the packet then has another port or host. here says that the packets are for this host.
func (f *firewall) drops(c *chain, ports []packet.PortRange, ways []way, here bool) (all, most []packet.PortRange) {
	for _, r := range ports {
		if slices.ContainsFunc(ways, func(w way) bool { return !w.from.and(of(r)).none }) {
			continue
		}
		w := walker{firewall: f, here: here}
		switch {
		case w.fate(c, of(r), 0) != fateDropped:
		case w.spared:
			most = append(most, r)
		default:
			all = append(all, r)
		}
	}
	return all, most
}

// fate is what happens to traffic in a chain.
type fate uint8

const (
	fateUnknown fate = iota // it depends on more than the port and the source
	fateDropped
	fateAccepted
	fateReturned // to the rule after the jump
)

// walker follows new connections through chains.
type walker struct {
	*firewall
	here   bool // they are for this host
	steps  int  // rules that it has read
	spared bool // some sources were accepted on the way
}

// fate follows new connections through a chain, those of sources for which no rule is.
func (w *walker) fate(c *chain, t traffic, depth int) fate {
	for _, r := range c.rules {
		if w.steps++; w.steps > maxSteps || depth > maxDepth {
			return fateUnknown
		}
		both := r.match.and(t)
		if both.none || r.old {
			continue
		}
		certain := !r.narrow && !r.sources && (!r.local || w.here) && both.covers(t)
		then := fateReturned // continue with the next rule
		switch r.verdict {
		case expr.VerdictAccept, expr.VerdictStop:
			then = fateAccepted
		case expr.VerdictDrop:
			then = fateDropped
		case expr.VerdictReturn:
			return fateIf(certain, c.end())
		case expr.VerdictJump, expr.VerdictGoto:
			next := w.chain(c.Table, r.chain)
			if next == nil {
				return fateUnknown
			}
			then = w.fate(next, t, depth+1)
			if r.verdict == expr.VerdictGoto && then == fateReturned {
				return fateIf(certain, c.end())
			}
		case noVerdict:
			if r.leads != nil && r.leads.silent {
				then = fateAccepted // TPROXY accepts
			}
		default:
			then = fateUnknown
		}
		switch {
		case then == fateReturned:
		case certain:
			return then
		case then == fateAccepted && r.sources && !r.narrow:
			w.spared = true
		case then != fateDropped:
			return fateUnknown // a later rule may drop what this one does not accept
		}
	}
	return c.end()
}

// fateIf returns then if it is certain, else fateUnknown.
func fateIf(known bool, then fate) fate {
	if known {
		return then
	}
	return fateUnknown
}

// end returns the fate of traffic that no rule of the chain decides about.
func (c *chain) end() fate {
	switch {
	case c.Hooknum == nil:
		return fateReturned
	case c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop:
		return fateDropped
	}
	return fateAccepted
}

// covers reports whether the traffic includes all of other. It may report false when
// several port ranges together include it.
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
