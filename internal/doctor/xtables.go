package doctor

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"github.com/knockwall/knockwall/internal/packet"
)

// matchXT interprets a match of iptables.
func (p *parser) matchXT(e *expr.Match) {
	switch info := e.Info.(type) {
	case *xt.Comment:
	case *xt.Tcp:
		p.forProtocol(packet.TCP)
		p.matchPorts(info.DstPorts, info.InvFlags&xt.TcpInvDestPorts != 0)
		p.narrow = p.narrow || info.SrcPorts != [2]uint16{0, 65535} || info.FlagsMask != 0 || info.Option != 0
	case *xt.Udp:
		p.forProtocol(packet.UDP)
		p.matchPorts(info.DstPorts, info.InvFlags&xt.UdpInvDestPorts != 0)
		p.narrow = p.narrow || info.SrcPorts != [2]uint16{0, 65535}
	case *xt.AddrTypeV1: // without flags, so nothing is inverted
		p.local = p.local || *info == xt.AddrTypeV1{Dest: uint16(xt.AddrTypeLocal)}
		p.narrow = p.narrow || !p.local
	case *xt.ConntrackMtinfo3:
		p.matchState(info.StateMask, info.MatchFlags, info.InvertFlags)
	case *xt.ConntrackMtinfo2:
		p.matchState(info.StateMask, info.MatchFlags, info.InvertFlags)
	case *xt.Unknown:
		if e.Name == "multiport" && p.matchMultiport(*info) {
			return
		}
		p.narrow = true
	default:
		p.narrow = true
	}
}

func (p *parser) matchPorts(ports [2]uint16, invert bool) {
	if invert {
		p.ports(outside(ports[0], ports[1]))
		return
	}
	if ports != [2]uint16{0, 65535} {
		p.ports(between(int(ports[0]), int(ports[1])))
	}
}

// matchState interprets states of linux/netfilter/xt_conntrack.h. Their bits are those of
// nftables.
func (p *parser) matchState(mask, match, invert uint16) {
	const byState = 1 << 0 // XT_CONNTRACK_STATE
	if match != byState {
		p.narrow = true
	}
	if match&byState != 0 {
		p.old = p.old || (mask&stateNew != 0) == (invert&byState != 0)
	}
}

// matchMultiport interprets struct xt_multiport_v1 of linux/netfilter/xt_multiport.h: the
// direction, the number of ports, up to fifteen ports, and a flag for each that begins a
// range.
func (p *parser) matchMultiport(info []byte) bool {
	const destination, most, flags, invert = 1, 15, 32, 47
	if len(info) <= invert || info[0] != destination || info[1] > most || info[invert] != 0 {
		return false
	}
	spans := []span{}
	for i := 0; i < int(info[1]); i++ {
		at := func(i int) uint16 { return binary.NativeEndian.Uint16(info[2+2*i:]) }
		first, last := at(i), at(i)
		if info[flags+i] != 0 && i+1 < int(info[1]) {
			i++
			last = at(i)
		}
		spans = append(spans, span{first, last})
	}
	p.ports(spans)
	return true
}

// targetXT interprets a target of iptables.
func (p *parser) targetXT(e *expr.Target) {
	to := target{here: e.Name == "REDIRECT"}
	switch {
	case e.Name == "DNAT", e.Name == "REDIRECT":
		to.take(e.Info)
	case e.Name == "TPROXY":
		to.here, to.silent = true, true
		to.takeTPROXY(e)
	case e.Name == "NOTRACK":
		p.untrack = true
		return
	case e.Name == "CT":
		if info, ok := e.Info.(*xt.Unknown); ok && len(*info) >= 2 {
			const notrack = 1 << 0 // XT_CT_NOTRACK of linux/netfilter/xt_CT.h
			p.untrack = binary.NativeEndian.Uint16(*info)&notrack != 0
		}
		return
	case e.Name == "REJECT":
		p.verdict = expr.VerdictDrop
		return
	case e.Name == "NFQUEUE", e.Name == "SYNPROXY":
		p.verdict = expr.VerdictQueue
		return
	default:
		return
	}
	p.leads = &to
}

// take interprets a range of linux/netfilter/nf_nat.h.
func (t *target) take(info xt.InfoAny) {
	var r xt.NatRange
	switch info := info.(type) {
	case *xt.NatRange:
		r = *info
	case *xt.NatRange2:
		r = info.NatRange
	case *xt.NatIPv4MultiRangeCompat:
		if len(*info) != 1 {
			t.unknown = true
			return
		}
		r = xt.NatRange((*info)[0])
	default:
		t.unknown = true
		return
	}
	if xt.NatRangeFlags(r.Flags)&xt.NatRangeMapIPs != 0 && !t.here {
		t.address = addressOf(r.MinIP)
	} else {
		t.here = true
	}
	if xt.NatRangeFlags(r.Flags)&xt.NatRangeProtoSpecified != 0 {
		t.ports = span{r.MinPort, r.MaxPort}
	}
}

// takeTPROXY interprets struct xt_tproxy_target_info_v1 of linux/netfilter/xt_TPROXY.h:
// mark, mask, address and port. Revision 0 has room for an IPv4 address only.
func (t *target) takeTPROXY(e *expr.Target) {
	info, ok := e.Info.(*xt.Unknown)
	at := 24
	if e.Rev == 0 {
		at = 12
	}
	if !ok || len(*info) < at+2 {
		t.unknown = true
		return
	}
	if port := binary.BigEndian.Uint16((*info)[at:]); port != 0 {
		t.ports = span{port, port}
	}
}

// addressOf writes an address. It writes IPv4 addresses within IPv6 as IPv4.
func addressOf(b []byte) string {
	address, _ := netip.AddrFromSlice(b)
	return address.Unmap().String()
}
