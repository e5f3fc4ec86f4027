package doctor

import (
	"fmt"

	"github.com/google/nftables/expr"

	"github.com/knockwall/knockwall/internal/packet"
)

// traffic is the packets that a rule matches, by protocol and port only.
type traffic struct {
	protocol packet.Protocol // 0: any
	ports    []span          // nil: all
	none     bool            // nothing that can reach a door
}

// span is a range of ports.
type span struct{ first, last uint16 }

// and returns the traffic that is in both.
func (t traffic) and(other traffic) traffic {
	both := traffic{protocol: t.protocol, ports: t.ports, none: t.none || other.none}
	if both.protocol == 0 {
		both.protocol = other.protocol
	}
	both.none = both.none || other.protocol != 0 && other.protocol != both.protocol
	switch {
	case t.ports == nil:
		both.ports = other.ports
	case other.ports != nil:
		both.ports = []span{}
		for _, a := range t.ports {
			for _, b := range other.ports {
				if first, last := max(a.first, b.first), min(a.last, b.last); first <= last {
					both.ports = append(both.ports, span{first, last})
				}
			}
		}
		both.none = both.none || len(both.ports) == 0
	}
	return both
}

// of returns the traffic to ports.
func of(r packet.PortRange) traffic {
	return traffic{protocol: r.Protocol, ports: []span{{r.First, r.Last}}}
}

// without removes ports. It removes nothing from traffic of any protocol.
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

// String writes the ports as in rule files.
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

func portsBy(op expr.CmpOp, n uint16) []span {
	switch op {
	case expr.CmpOpEq:
		return []span{{n, n}}
	case expr.CmpOpGte:
		return []span{{n, 65535}}
	case expr.CmpOpLte:
		return []span{{0, n}}
	case expr.CmpOpGt:
		return between(int(n)+1, 65535)
	case expr.CmpOpLt:
		return between(0, int(n)-1)
	}
	return outside(n, n)
}

func between(first, last int) []span {
	if first > last {
		return []span{}
	}
	return []span{{uint16(first), uint16(last)}}
}

func outside(first, last uint16) []span {
	return append(between(0, int(first)-1), between(int(last)+1, 65535)...)
}
