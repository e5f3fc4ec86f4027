package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// way is a rule by which what comes to one port reaches another, or another host.
type way struct {
	from  traffic
	to    target
	where string
}

// ways returns those that a packet from outside may take, as far as they could be
// understood; the error says of what it is not known.
func (h *Host) ways() (ways []way, err error) {
	f, err := h.firewall()
	if err != nil {
		return nil, err
	}
	err = f.partly
	chains := append(f.hooked(nftables.ChainHookPrerouting, nftables.ChainTypeNAT),
		f.hooked(nftables.ChainHookPrerouting, nftables.ChainTypeFilter)...) // where TPROXY is
	for _, c := range chains {
		err = errors.Join(err, f.walk(c, func(in *chain, r rule) {
			if r.leads == nil {
				return
			}
			if r.leads.unknown {
				err = errors.Join(err, fmt.Errorf("%s: %w", in.where(), errNotPlain))
				return
			}
			ways = append(ways, way{r.match, *r.leads, in.where()})
		}))
	}
	legacy, legacyErr := legacyWays()
	return append(ways, legacy...), errors.Join(err, legacyErr)
}

// findAround finds rules of NAT and TPROXY by which a door's service is reached without
// the door having been asked.
func findAround(h *Host) (findings []Finding, err error) {
	ways, err := h.ways()
	if len(ways) == 0 {
		return nil, err
	}
	here, addressErr := host.Addresses()
	if addressErr != nil {
		return nil, addressErr
	}
	said := map[string]bool{}
	tell := func(f Finding) {
		if key := f.Door + f.Problem; !said[key] {
			said[key] = true
			findings = append(findings, f)
		}
	}
	for i := range h.Config.Doors {
		d := &h.Config.Doors[i]
		for _, w := range ways {
			behind := leadsBehind(d, w, here)
			from := unguarded(h.Config, w.from, here)
			switch {
			case behind == "" || from == "":
			case w.isHere(here) && !w.to.silent:
				tell(Finding{Severity: Warning, Door: d.Name,
					Problem: fmt.Sprintf("Also reached by %s: a rule of NAT (%s) leads from there to %s. Who has a window, or is trusted, comes in there, too; others are refused.", from, w.where, behind),
					Cure:    "Delete that rule, unless it is wanted."})
			default:
				tell(Finding{Severity: Error, Door: d.Name,
					Problem: fmt.Sprintf("Also reached by %s, without a knock: a rule (%s) leads from there to %s, behind the door.", from, w.where, behind),
					Cure:    fmt.Sprintf("Add %s to the ports of a door that has no `to`, or delete that rule.", from)})
			}
			for _, other := range ways {
				from := unguarded(h.Config, other.from, here)
				if from != "" && !w.isHere(here) && guardsHere(d, w.from, here) && sameTarget(w, other) {
					tell(Finding{Severity: Error, Door: d.Name,
						Problem: fmt.Sprintf("Also reached by %s, without a knock: a rule of NAT (%s) leads from there to where those lead that the door guards, %s.", from, other.where, other.to.at(other.from)),
						Cure:    fmt.Sprintf("Add %s to the ports of the door, or delete that rule.", from)})
				}
			}
		}
	}
	return findings, err
}

// isHere reports whether what takes the way is delivered to this host.
func (w way) isHere(here map[netip.Addr]bool) bool {
	address, err := netip.ParseAddr(w.to.address)
	return w.to.here || err == nil && (address.IsLoopback() || here[address])
}

// arrives returns the ports that are reached by a way.
func (w way) arrives() traffic {
	if w.to.ports == (span{}) {
		return w.from
	}
	return traffic{protocol: w.from.protocol, ports: []span{w.to.ports}}
}

// at writes where a way leads.
func (t target) at(from traffic) string {
	if t.ports != (span{}) {
		from.ports = []span{t.ports}
	}
	if t.here {
		return from.String()
	}
	return t.address + ", " + from.String()
}

// sameTarget reports whether two ways lead to one port of another host.
func sameTarget(a, b way) bool {
	return a.to.address == b.to.address && a.to.address != "" && !a.arrives().and(b.arrives()).none
}

// leadsBehind says which of the door's ports a way leads to, if any: those of this host, or
// of an address that it guards.
func leadsBehind(d *ruleset.Door, w way, here map[netip.Addr]bool) string {
	if address, err := netip.ParseAddr(w.to.address); w.isHere(here) && !isHere(d, here) ||
		!w.isHere(here) && (err != nil || !slices.ContainsFunc(d.To, func(p netip.Prefix) bool { return p.Contains(address) })) {
		return ""
	}
	for _, r := range d.Ports {
		if both := w.arrives().and(of(r)); !both.none {
			if w.isHere(here) {
				return both.String()
			}
			return w.to.address + ", " + both.String()
		}
	}
	return ""
}

// isHere reports whether the door guards an address of this host.
func isHere(d *ruleset.Door, here map[netip.Addr]bool) bool {
	if len(d.To) == 0 {
		return true
	}
	for address := range here {
		if slices.ContainsFunc(d.To, func(p netip.Prefix) bool { return p.Contains(address) }) {
			return true
		}
	}
	return false
}

// guardsHere reports whether the door stands before what comes to a port of this host.
func guardsHere(d *ruleset.Door, t traffic, here map[netip.Addr]bool) bool {
	return isHere(d, here) && slices.ContainsFunc(d.Ports, func(r packet.PortRange) bool { return !t.and(of(r)).none })
}

// unguarded says what of the traffic to this host no door guards, and nothing if doors
// guard all of it.
func unguarded(c *ruleset.Config, t traffic, here map[netip.Addr]bool) string {
	for i := range c.Doors {
		if d := &c.Doors[i]; isHere(d, here) {
			for _, r := range d.Ports {
				t = t.without(r)
			}
		}
	}
	if t.none {
		return ""
	}
	return t.String()
}

// of is the traffic to ports.
func of(r packet.PortRange) traffic {
	return traffic{protocol: r.Protocol, ports: []span{{r.First, r.Last}}}
}

// without takes ports out. Of traffic of any protocol none can be taken out.
func (t traffic) without(r packet.PortRange) traffic {
	if t.protocol != r.Protocol {
		return t
	}
	if t.ports == nil {
		t.ports = []span{{0, 65535}}
	}
	var left []span
	for _, s := range t.ports {
		for _, side := range outside(r.First, r.Last) {
			if first, last := max(s.first, side.first), min(s.last, side.last); first <= last {
				left = append(left, span{first, last})
			}
		}
	}
	t.ports, t.none = left, t.none || len(left) == 0
	return t
}

// String writes ports as rule files do.
func (t traffic) String() string {
	protocol := "of any protocol"
	if t.protocol != 0 {
		protocol = t.protocol.String()
	}
	if t.ports == nil {
		return "every port (" + protocol + ")"
	}
	const most = 4
	text := ""
	for i, s := range t.ports {
		if i == most {
			return text + fmt.Sprintf(" and %d more", len(t.ports)-most)
		}
		if i > 0 {
			text += ", "
		}
		switch {
		case t.protocol == 0 && s.first == s.last:
			text += fmt.Sprintf("port %d", s.first)
		case t.protocol == 0:
			text += fmt.Sprintf("ports %d-%d", s.first, s.last)
		default:
			text += packet.PortRange{First: s.first, Last: s.last, Protocol: t.protocol}.String()
		}
	}
	return text
}
