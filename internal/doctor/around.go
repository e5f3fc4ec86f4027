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

// way is a rule that leads packets for one port to another port or host.
type way struct {
	from  traffic
	to    target
	where string
}

// ways returns the ways that a packet from outside can take, as far as the rules were
// understood. The error names the rules that were not.
func (h *Host) ways() (ways []way, err error) {
	f, err := h.firewall()
	if err != nil {
		return nil, err
	}
	err = f.partly
	chains := append(f.hooked(nftables.ChainHookPrerouting, nftables.ChainTypeNAT),
		f.hooked(nftables.ChainHookPrerouting, nftables.ChainTypeFilter)...) // TPROXY rules are here
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

// findAround finds rules of NAT and TPROXY that lead to the service behind a door from a
// port that the door does not guard.
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
	unguarded := make([]string, len(ways)) // the part of each way that no door guards
	for i, w := range ways {
		unguarded[i] = withoutDoors(h.Config, w.from, here)
	}
	for i := range h.Config.Doors {
		d := &h.Config.Doors[i]
		for i, w := range ways {
			behind, from := leadsBehind(d, w, here), unguarded[i]
			switch {
			case behind == "" || from == "":
			case w.isHere(here) && !w.to.silent:
				tell(Finding{Severity: Warning, Door: d.Name,
					Problem: fmt.Sprintf("Also reached by %s: a NAT rule (%s) leads from there to %s. Sources with an open window and trusted sources are admitted there as well. Others are refused.", from, w.where, behind),
					Cure:    "Delete that rule if you do not want it."})
			default:
				tell(Finding{Severity: Error, Door: d.Name,
					Problem: fmt.Sprintf("Also reached by %s, without a knock: a rule (%s) leads from there to %s, which the door guards.", from, w.where, behind),
					Cure:    fmt.Sprintf("Add %s to the ports of a door that has no `to`, or delete that rule.", from)})
			}
			if w.isHere(here) || !guardsHere(d, w.from, here) {
				continue
			}
			for i, other := range ways {
				if from := unguarded[i]; from != "" && sameTarget(w, other) {
					tell(Finding{Severity: Error, Door: d.Name,
						Problem: fmt.Sprintf("Also reached by %s, without a knock: a NAT rule (%s) leads from there to %s, where a port that the door guards leads as well.", from, other.where, other.to.at(other.from)),
						Cure:    fmt.Sprintf("Add %s to the ports of the door, or delete that rule.", from)})
				}
			}
		}
	}
	return findings, err
}

// isHere reports whether the way ends at this host.
func (w way) isHere(here map[netip.Addr]bool) bool {
	address, err := netip.ParseAddr(w.to.address)
	return w.to.here || err == nil && (address.IsLoopback() || here[address])
}

// arrives returns the ports at which packets that take the way arrive.
func (w way) arrives() traffic {
	if w.to.ports == (span{}) {
		return w.from
	}
	return traffic{protocol: w.from.protocol, ports: []span{w.to.ports}}
}

// at writes the place that a way leads to.
func (t target) at(from traffic) string {
	if t.ports != (span{}) {
		from.ports = []span{t.ports}
	}
	if t.here {
		return from.String()
	}
	return t.address + ", " + from.String()
}

// sameTarget reports whether two ways lead to the same port of another host.
func sameTarget(a, b way) bool {
	return a.to.address == b.to.address && a.to.address != "" && !a.arrives().and(b.arrives()).none
}

// leadsBehind returns the door's ports that a way leads to, or "". They are ports of this
// host or of an address that the door guards.
func leadsBehind(d *ruleset.Door, w way, here map[netip.Addr]bool) string {
	if address, err := netip.ParseAddr(w.to.address); w.isHere(here) && !isHere(d, here) ||
		!w.isHere(here) && (err != nil || !packet.Among(address, d.To)) {
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
		if packet.Among(address, d.To) {
			return true
		}
	}
	return false
}

// guardsHere reports whether the door guards a port of the traffic on this host.
func guardsHere(d *ruleset.Door, t traffic, here map[netip.Addr]bool) bool {
	return isHere(d, here) && slices.ContainsFunc(d.Ports, func(r packet.PortRange) bool { return !t.and(of(r)).none })
}

// withoutDoors returns the part of the traffic to this host that no door guards. It
// returns "" if doors guard all of it.
func withoutDoors(c *ruleset.Config, t traffic, here map[netip.Addr]bool) string {
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
