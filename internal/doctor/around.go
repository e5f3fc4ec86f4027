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
	unguarded := make([]string, len(ways)) // what of each is
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
					Problem: fmt.Sprintf("Also reached by %s: a rule of NAT (%s) leads from there to %s. Who has a window, or is trusted, comes in there, too; others are refused.", from, w.where, behind),
					Cure:    "Delete that rule, unless it is wanted."})
			default:
				tell(Finding{Severity: Error, Door: d.Name,
					Problem: fmt.Sprintf("Also reached by %s, without a knock: a rule (%s) leads from there to %s, behind the door.", from, w.where, behind),
					Cure:    fmt.Sprintf("Add %s to the ports of a door that has no `to`, or delete that rule.", from)})
			}
			if w.isHere(here) || !guardsHere(d, w.from, here) {
				continue
			}
			for i, other := range ways {
				if from := unguarded[i]; from != "" && sameTarget(w, other) {
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

// guardsHere reports whether the door stands before what comes to a port of this host.
func guardsHere(d *ruleset.Door, t traffic, here map[netip.Addr]bool) bool {
	return isHere(d, here) && slices.ContainsFunc(d.Ports, func(r packet.PortRange) bool { return !t.and(of(r)).none })
}

// withoutDoors says what of the traffic to this host no door guards, and nothing if doors
// guard all of it.
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
