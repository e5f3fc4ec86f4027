package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// findListening finds guarded ports on which nothing listens, or only a service on
// loopback.
func findListening(h *Host) (findings []Finding, err error) {
	all, err := host.Listeners()
	if err != nil {
		return nil, err
	}
	here, err := host.Addresses()
	if err != nil {
		return nil, err
	}
	ways, waysErr := h.ways()
	for i := range h.Config.Doors {
		d := &h.Config.Doors[i]
		if !isHere(d, here) {
			continue // the door guards other hosts
		}
		for _, r := range d.Ports {
			// A NAT rule leads this port to another one.
			if slices.ContainsFunc(ways, func(w way) bool { return !w.from.and(of(r)).none }) {
				continue
			}
			var loopback, elsewhere bool
			for _, l := range all {
				if r.Contains(l.Port) {
					loopback = loopback || l.Local.IsLoopback()
					elsewhere = elsewhere || !l.Local.IsLoopback()
				}
			}
			switch {
			case elsewhere:
			case loopback:
				findings = append(findings, Finding{Severity: Warning, Door: d.Name, Stops: Connections,
					Problem: fmt.Sprintf("The service on %s listens on loopback only. Clients that knock do not reach it.", r),
					Cure:    "Let it listen on the address that clients connect to, or remove the port from the door."})
			case waysErr == nil: // otherwise an unread NAT rule may lead to another port
				findings = append(findings, Finding{Severity: Warning, Door: d.Name, Stops: Connections,
					Problem: fmt.Sprintf("Nothing listens on %s. Clients that knock reach no service.", r),
					Cure:    "Start the service, or correct the port."})
			}
		}
	}
	if waysErr != nil {
		waysErr = fmt.Errorf("reading whether NAT rules lead from a port without a listener to a service: %w", waysErr)
	}
	return findings, waysErr
}

// findSecondPorts finds programs that serve a guarded port and listen on a port that no
// door guards. It also finds programs that listen on such a port and have a connection to
// a guarded port over loopback, where no knock is needed. It cannot tell whether the
// second port leads to the same service.
func findSecondPorts(h *Host) (findings []Finding, err error) {
	listening, err := sockets(tcpListen, nil)
	if err != nil {
		return nil, err
	}
	here, err := host.Addresses()
	if err != nil {
		return nil, err
	}
	var open []socket // reachable from outside
	for _, s := range listening {
		if !s.local.Addr().IsLoopback() && !h.guards(portOf(s.local.Port()), here) {
			open = append(open, s)
		}
	}
	if len(open) == 0 {
		return nil, nil
	}
	served, connected := map[string][]socket{}, map[string][]socket{}
	every := slices.Clone(open)
	for _, d := range h.Config.Doors {
		if !isHere(&d, here) {
			continue
		}
		for _, r := range d.Ports {
			if r.Protocol != packet.TCP {
				continue
			}
			for _, s := range listening {
				if r.Contains(portOf(s.local.Port())) {
					served[d.Name] = append(served[d.Name], s)
				}
			}
			connections, err := sockets(tcpEstablished, &r)
			if err != nil {
				return nil, err
			}
			for _, s := range connections {
				if to := s.remote.Addr(); to.IsLoopback() || here[to] {
					connected[d.Name] = append(connected[d.Name], s)
				}
			}
		}
		every = slices.Concat(every, served[d.Name], connected[d.Name])
	}
	p, err := programsOf(every)
	if p == nil {
		return nil, err
	}
	for _, d := range h.Config.Doors {
		said := map[string]bool{}
		tell := func(inner []socket, byChild bool, inside func(socket) packet.Port, problem, cure string) {
			for _, s := range inner {
				for _, o := range open {
					name := p.shared(s, o, byChild)
					second := portOf(o.local.Port())
					if key := second.String() + name; name != "" && !said[key] {
						said[key] = true
						findings = append(findings, Finding{Severity: Warning, Door: d.Name,
							Problem: fmt.Sprintf("Perhaps also reached by %s, which no door guards: "+problem, second, name, inside(s)),
							Cure:    fmt.Sprintf(cure, second)})
					}
				}
			}
		}
		tell(served[d.Name], false, func(s socket) packet.Port { return portOf(s.local.Port()) },
			"%s listens there, and on %s.", "If that is the same service, add %s to the ports of the door, or let the service listen on one port only.")
		tell(connected[d.Name], true, func(s socket) packet.Port { return portOf(s.remote.Port()) },
			"%s listens there, and has a connection to %s over loopback, where no knock is needed.",
			"If it forwards to that port, add %s to the ports of a door.")
	}
	return findings, err
}

func portOf(tcp uint16) packet.Port { return packet.Port{Number: tcp, Protocol: packet.TCP} }

// guards reports whether a door guards a port of this host.
func (h *Host) guards(p packet.Port, here map[netip.Addr]bool) bool {
	return slices.ContainsFunc(h.Config.Doors, func(d ruleset.Door) bool { return d.Guards(p) && isHere(&d, here) })
}
