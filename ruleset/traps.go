package ruleset

import (
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// Traps are ports near a door's knocks. A source that tries a trap is looking for the
// knocks. A scan in whatever order meets the traps next to a knock before it has met the
// other knocks. A client that knows the knocks meets no trap.

// maxTraps is the maximum number of traps of a door.
const maxTraps = 1024

func (l *Loaded) traps(e hcl.Expression, d *Door) {
	if _, err := hcl.ExprList(e); absent(e) || err != nil {
		number(l, e, &d.TrapCount, 0, maxTraps, "Write the number of traps, a whole number from %d to %d, or a list of ports.")
	} else {
		d.TrapCount = 0
		d.TrapList, _, _ = l.portList(e, func(e hcl.Expression, r packet.PortRange) { l.trap(e, r, d) })
	}
	if !absent(e) && !d.isKnocked() && (d.TrapCount > 0 || len(d.TrapList) > 0) {
		l.failAt(e, "Traps without a sequence", "Traps stop scans that look for knocks. No scan finds a one-time password. Leave traps out.")
	}
}

// trap checks a trap of the rule file.
func (l *Loaded) trap(e hcl.Expression, r packet.PortRange, d *Door) {
	for _, m := range d.Methods {
		ports, _ := m.Ports()
		at := slices.IndexFunc(ports, r.Overlaps)
		if _, knocks := m.(method.Sequences); at >= 0 && knocks {
			l.failAtKnock(e, ports[at])
		} else if at >= 0 {
			l.failAt(e, "Trap at the port of "+m.Name(), "Clients that send their datagram to "+ports[at].String()+" could not knock. Choose another port.")
		}
	}
	if at := slices.IndexFunc(d.CloseSequence, r.Contains); at >= 0 {
		l.failAtKnock(e, packet.Ranges(d.CloseSequence)[at])
	}
	if slices.ContainsFunc(d.Ports, r.Overlaps) {
		l.failAt(e, "Trap at a guarded port", "The door guards one of these ports. A client that connects before it knocks could not knock. Choose another port.")
	}
}

func (l *Loaded) failAtKnock(trap hcl.Expression, knock packet.PortRange) {
	l.failAt(trap, "Trap at a knock", "The trap contains the door's knock "+knock.String()+", so nobody could knock. Choose another port.")
}
