package ruleset

import (
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// Traps are ports beside a door's knocks: who tries them is looking for the knocks.
// Whatever the order of a scan, it meets one of those next to a knock before it has
// met the knocks that are left; who knocks meets none.

// maxTraps is how many a door can have.
const maxTraps = 1024

func (l *Loaded) traps(e hcl.Expression, d *Door) {
	if _, err := hcl.ExprList(e); absent(e) || err != nil {
		number(l, e, &d.TrapCount, 0, maxTraps, "How many ports are traps is a whole number from %d to %d, or it is a list of ports.")
	} else {
		d.TrapCount = 0
		d.TrapList, _, _ = l.portList(e, func(e hcl.Expression, r packet.PortRange) { l.trap(e, r, d) })
	}
	if !absent(e) && !d.isKnocked() && (d.TrapCount > 0 || len(d.TrapList) > 0) {
		l.failAt(e, "Traps without a sequence", "Traps keep scans from knocking, and a one-time password is found by no scan. Leave traps out.")
	}
}

// trap checks a trap that is written down.
func (l *Loaded) trap(e hcl.Expression, r packet.PortRange, d *Door) {
	for _, m := range d.Methods {
		ports, _ := m.Ports()
		at := slices.IndexFunc(ports, r.Overlaps)
		if _, knocks := m.(method.Sequences); at >= 0 && knocks {
			l.failAtKnock(e, ports[at])
		} else if at >= 0 {
			l.failAt(e, "Trap at the port of "+m.Name(), "Clients that knock by a datagram to "+ports[at].String()+" could not knock then.")
		}
	}
	if at := slices.IndexFunc(d.CloseSequence, r.Contains); at >= 0 {
		l.failAtKnock(e, packet.Ranges(d.CloseSequence)[at])
	}
	if slices.ContainsFunc(d.Ports, r.Overlaps) {
		l.failAt(e, "Trap at a guarded port", "The door guards it, or some of it: who tries to connect could not knock then.")
	}
}

func (l *Loaded) failAtKnock(trap hcl.Expression, knock packet.PortRange) {
	l.failAt(trap, "Trap at a knock", "It is the door's own knock "+knock.String()+", or has it within: nobody could knock.")
}
