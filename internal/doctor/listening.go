package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// findListening finds doors with nothing behind them, or only what nobody else reaches.
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
			continue // it guards other hosts
		}
		for _, r := range d.Ports {
			// A rule of NAT leads on to what answers there.
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
				findings = append(findings, Finding{Severity: Warning, Door: d.Name,
					Problem: fmt.Sprintf("What listens on %s does so on loopback only: whoever knocks does not reach it.", r),
					Cure:    "Let it listen on the address that is knocked at, or take the port from the door."})
			case waysErr == nil: // else a rule may lead on
				findings = append(findings, Finding{Severity: Warning, Door: d.Name,
					Problem: fmt.Sprintf("Nothing listens on %s: whoever knocks reaches nobody.", r),
					Cure:    "Start the service, or correct the port."})
			}
		}
	}
	if waysErr != nil {
		waysErr = fmt.Errorf("whether rules of NAT lead on from where nothing listens is unknown: %w", waysErr)
	}
	return findings, waysErr
}

// findSecondPorts finds programs that serve a guarded port, and listen on another one that
// no door guards, or have connections to a guarded port over loopback, where nobody has to
// knock, and listen for others. Whether it is the same service there cannot be told.
func findSecondPorts(h *Host) (findings []Finding, err error) {
	listening, err := sockets(tcpListen, nil)
	if err != nil {
		return nil, err
	}
	here, err := host.Addresses()
	if err != nil {
		return nil, err
	}
	var open []socket // to everybody
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
			"%s listens there, and on %s.", "If it is the same service there, add %s to the ports of the door, or let it listen on one port only.")
		tell(connected[d.Name], true, func(s socket) packet.Port { return portOf(s.remote.Port()) },
			"%s listens there, and has a connection to %s over loopback, where nobody has to knock.",
			"If it passes on what it gets, add %s to the ports of a door.")
	}
	return findings, err
}

func portOf(tcp uint16) packet.Port { return packet.Port{Number: tcp, Protocol: packet.TCP} }

// guards reports whether any door guards a port of this host.
func (h *Host) guards(p packet.Port, here map[netip.Addr]bool) bool {
	return slices.ContainsFunc(h.Config.Doors, func(d ruleset.Door) bool { return d.Guards(p) && isHere(&d, here) })
}
