package doctor

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// rule is a firewall rule, as far as it is understood. An nftables rule that looks up a
// map becomes several.
type rule struct {
	match   traffic
	narrow  bool // it has conditions that match does not contain, apart from the next two
	sources bool // it is for some sources
	local   bool // it is for packets to this host
	old     bool // it matches known connections only, no new ones
	verdict expr.VerdictKind
	chain   string  // the target of a jump
	leads   *target // the target of NAT
	untrack bool
}

// noVerdict means that evaluation continues with the next rule.
const noVerdict = expr.VerdictContinue

// target is the target of NAT or TPROXY.
type target struct {
	here    bool // this host, at any of its addresses
	silent  bool // TPROXY: the packet keeps its addresses, so no later rule sees the change
	address string
	ports   span // zero: the original port
	unknown bool
}

// loaded is the kind of value that a register holds.
type loaded uint8

const (
	somethingElse loaded = iota
	theProtocol
	thePort
	theState
	theInterface
	theInterfaceName
	theFamily
	theSource
	theDestinationType
)

// parser interprets a rule's expressions.
type parser struct {
	rule
	holds    map[uint32]loaded
	values   map[uint32][]byte // immediate values
	mask     []byte            // mask of the connection state
	family   bool              // the rule is for one version of IP
	base     uint32            // first register of the map's value
	elements []nftables.SetElement
	verdicts bool   // the elements' values are verdicts
	spans    []span // ports of the elements
	lookUp   func(set string) ([]nftables.SetElement, error)
}

// word returns the index of a register in units of 32 bits. NFT_REG32_00 of
// linux/netfilter/nf_tables.h is 8. A register that is numbered from 1 has four of them.
func word(register uint32) uint32 {
	if register >= 8 {
		return register - 8
	}
	return (register - 1) * 4
}

func parseRule(exprs []expr.Any, lookUp func(set string) ([]nftables.SetElement, error)) ([]rule, error) {
	p := &parser{holds: map[uint32]loaded{}, values: map[uint32][]byte{}, lookUp: lookUp}
	p.verdict = noVerdict
	var all []rule
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Meta:
			p.loadMeta(e)
		case *expr.Payload:
			p.loadPayload(e)
		case *expr.Ct:
			if !e.SourceRegister {
				p.holds[word(e.Register)] = somethingElse
				if e.Key == expr.CtKeySTATE {
					p.holds[word(e.Register)] = theState
				}
			}
		case *expr.Fib:
			p.holds[word(e.Register)] = somethingElse
			if e.ResultADDRTYPE && e.FlagDADDR && !e.FlagIIF {
				p.holds[word(e.Register)] = theDestinationType
			}
		case *expr.Immediate:
			p.values[word(e.Register)] = e.Data
		case *expr.Bitwise:
			p.mask = e.Mask
			what := somethingElse
			if held := p.holds[word(e.SourceRegister)]; held == theState || held == theSource {
				what = held
			}
			p.holds[word(e.DestRegister)] = what
		case *expr.Cmp:
			p.compare(e)
		case *expr.Range:
			p.inRange(e)
		case *expr.Lookup:
			if err := p.look(e); err != nil {
				return nil, err
			}
		case *expr.Verdict:
			p.verdict, p.chain = e.Kind, e.Chain
		case *expr.Queue:
			p.verdict = expr.VerdictQueue
		case *expr.Reject:
			p.verdict = expr.VerdictDrop
		case *expr.Notrack:
			p.untrack = true
		case *expr.Redir:
			all = append(all, p.redirected(e.RegisterProtoMin, 0, e.RegisterProtoMax, target{here: true})...)
		case *expr.NAT:
			if e.Type == expr.NATTypeDestNAT {
				all = append(all, p.redirected(e.RegProtoMin, e.RegAddrMin, e.RegProtoMax, target{})...)
			}
		case *expr.TProxy:
			all = append(all, p.redirected(e.RegPort, 0, 0, target{here: true, silent: true})...)
		case *expr.Match:
			p.matchXT(e)
		case *expr.Target:
			p.targetXT(e)
		default:
			p.narrow = true
		}
	}
	if p.family && !p.sources {
		p.narrow = true
		for i := range all {
			all[i].narrow = true
		}
	}
	switch {
	case len(all) > 0:
		return all, nil
	case p.verdicts:
		for i, element := range p.elements {
			branch := p.rule
			branch.match = branch.match.and(traffic{ports: p.spansOf(i)})
			branch.verdict, branch.chain = verdictOf(element.Val)
			all = append(all, branch)
		}
		return all, nil
	}
	return []rule{p.rule}, nil
}

// verdictOf parses the verdict of a map's element: NFTA_VERDICT_CODE and
// NFTA_VERDICT_CHAIN. The library leaves them unparsed.
func verdictOf(data []byte) (kind expr.VerdictKind, chain string) {
	kind = noVerdict
	attributes, _ := netlink.UnmarshalAttributes(data)
	for _, a := range attributes {
		switch a.Type & attributeType {
		case unix.NFTA_VERDICT_CODE:
			if len(a.Data) == 4 {
				kind = expr.VerdictKind(int32(binary.BigEndian.Uint32(a.Data)))
			}
		case unix.NFTA_VERDICT_CHAIN:
			chain = text(a.Data)
		}
	}
	return kind, chain
}

// spansOf returns the ports of an element, or nil if its key is not a port.
func (p *parser) spansOf(element int) []span {
	if p.spans == nil {
		return nil
	}
	return p.spans[element : element+1]
}

func (p *parser) loadMeta(e *expr.Meta) {
	if e.SourceRegister {
		return
	}
	what := somethingElse
	switch e.Key {
	case expr.MetaKeyL4PROTO:
		what = theProtocol
	case expr.MetaKeyIIFNAME:
		what = theInterfaceName
	case expr.MetaKeyIIF:
		what = theInterface
	case expr.MetaKeyNFPROTO:
		what = theFamily
	}
	p.holds[word(e.Register)] = what
}

func (p *parser) loadPayload(e *expr.Payload) {
	if e.OperationType != expr.PayloadLoad {
		return
	}
	what := somethingElse
	switch {
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
		what = thePort
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 9 && e.Len == 1:
		what = theProtocol
	// A prefix of whole bytes is loaded as that many bytes.
	case e.Base == expr.PayloadBaseNetworkHeader && (e.Offset == 12 && e.Len <= 4 || e.Offset == 8 && e.Len > 1):
		what = theSource
	}
	p.holds[word(e.DestRegister)] = what
}

func (p *parser) compare(e *expr.Cmp) {
	is := e.Op == expr.CmpOpEq
	switch p.holds[word(e.Register)] {
	case theProtocol:
		if len(e.Data) > 0 && is {
			p.forProtocol(packet.Protocol(e.Data[0]))
			return
		}
	case thePort:
		if len(e.Data) == 2 {
			p.ports(portsBy(e.Op, uint16(e.Data[0])<<8|uint16(e.Data[1])))
			return
		}
	case theState: // the rule says state & mask != 0
		if e.Op == expr.CmpOpNeq && len(p.mask) > 0 {
			p.ofStates(uint32(p.mask[0]))
			return
		}
	case theInterface:
		if is && bytes.Equal(e.Data, binary.NativeEndian.AppendUint32(nil, loopback)) {
			p.match.none = true
			return
		}
	case theInterfaceName:
		if is && string(bytes.TrimRight(e.Data, "\x00")) == "lo" {
			p.match.none = true
			return
		}
	case theFamily:
		if is {
			p.family = true
			return
		}
	case theSource:
		p.sources = true
		return
	case theDestinationType:
		if is && bytes.Equal(e.Data, binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)) {
			p.local = true
			return
		}
	}
	p.narrow = true
}

// loopback is the index of lo on every host (LOOPBACK_IFINDEX of net/flow.h).
const loopback = 1

// stateNew is NF_CT_STATE_BIT(IP_CT_NEW) of linux/netfilter/nf_conntrack_common.h.
const stateNew = 1 << 3

func (p *parser) ofStates(mask uint32) { p.old = p.old || mask&stateNew == 0 }

func (p *parser) forProtocol(protocol packet.Protocol) {
	p.match = p.match.and(traffic{protocol: protocol, none: protocol != packet.TCP && protocol != packet.UDP})
}

func (p *parser) ports(spans []span) { p.match = p.match.and(traffic{ports: spans}) }

func (p *parser) inRange(e *expr.Range) {
	if p.holds[word(e.Register)] == theSource {
		p.sources = true
		return
	}
	if p.holds[word(e.Register)] != thePort || len(e.FromData) != 2 || len(e.ToData) != 2 {
		p.narrow = true
		return
	}
	first, last := uint16(e.FromData[0])<<8|uint16(e.FromData[1]), uint16(e.ToData[0])<<8|uint16(e.ToData[1])
	if e.Op == expr.CmpOpNeq {
		p.ports(outside(first, last))
		return
	}
	p.ports(between(int(first), int(last)))
}

// look interprets the lookup of a port in a set or map.
func (p *parser) look(e *expr.Lookup) error {
	what := p.holds[word(e.SourceRegister)]
	if what == theSource && !e.IsDestRegSet && !p.isPart(e.SourceRegister) {
		p.sources = true
		return nil
	}
	if what != thePort && !e.IsDestRegSet {
		p.narrow = true
		return nil
	}
	elements, err := p.lookUp(e.SetName)
	if err != nil {
		return err
	}
	var spans []span
	if what == thePort {
		elements, spans = runs(elements)
	} else {
		p.narrow = true
	}
	if !e.IsDestRegSet {
		if e.Invert {
			p.narrow = true
			return nil
		}
		p.ports(append([]span{}, spans...))
		return nil
	}
	if what == theState {
		elements = slices.DeleteFunc(elements, func(s nftables.SetElement) bool { return len(s.Key) == 0 || s.Key[0]&stateNew == 0 })
	}
	p.verdicts = e.DestRegister == unix.NFT_REG_VERDICT
	p.elements, p.spans, p.base = append([]nftables.SetElement{}, elements...), spans, word(e.DestRegister)
	return nil
}

// isPart reports whether the registers behind an address hold another part of the same key.
func (p *parser) isPart(register uint32) bool {
	for i := uint32(1); i <= 4; i++ { // an IPv6 address has four words
		if _, held := p.holds[word(register)+i]; held {
			return true
		}
	}
	return false
}

// runs returns the elements of a set of ports without the ends of intervals, and the
// ports of each element.
func runs(elements []nftables.SetElement) (starts []nftables.SetElement, spans []span) {
	elements = slices.DeleteFunc(slices.Clone(elements), func(e nftables.SetElement) bool { return len(e.Key) < 2 })
	slices.SortStableFunc(elements, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key[:2], b.Key[:2]) })
	intervals := slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return e.IntervalEnd })
	spans = []span{}
	for i, e := range elements {
		if e.IntervalEnd {
			continue
		}
		first := uint16(e.Key[0])<<8 | uint16(e.Key[1])
		last := first
		if intervals {
			last = 65535
			if i+1 < len(elements) {
				last = uint16(elements[i+1].Key[0])<<8 | uint16(elements[i+1].Key[1]) - 1
			}
		}
		starts, spans = append(starts, e), append(spans, span{first, max(first, last)})
	}
	return starts, spans
}

// redirected returns one rule for each target that the rule leads to. A register of 0 is
// not used: the rule does not change that part.
func (p *parser) redirected(port, address, lastPort uint32, to target) []rule {
	if p.elements == nil {
		return []rule{p.leadsTo(to, p.value(port, nil), p.value(address, nil), p.value(lastPort, nil), port, address)}
	}
	var all []rule
	for i, element := range p.elements {
		r := p.leadsTo(to, p.value(port, element.Val), p.value(address, element.Val), nil, port, address)
		if p.spans == nil {
			r.leads.unknown = true
		}
		r.match = r.match.and(traffic{ports: p.spansOf(i)})
		all = append(all, r)
	}
	return all
}

func (p *parser) leadsTo(to target, port, address, lastPort []byte, portFrom, addressFrom uint32) rule {
	r := p.rule
	switch {
	case portFrom == 0:
	case len(port) < 2:
		to.unknown = true
	default:
		to.ports.first = uint16(port[0])<<8 | uint16(port[1])
		to.ports.last = to.ports.first
		if len(lastPort) >= 2 {
			to.ports.last = uint16(lastPort[0])<<8 | uint16(lastPort[1])
		}
	}
	switch {
	case addressFrom == 0:
		to.here = true
	case len(address) >= 16:
		to.address = addressOf(address[:16])
	case len(address) >= 4:
		to.address = addressOf(address[:4])
	default:
		to.unknown = true
	}
	r.leads = &to
	return r
}

// value returns the content of a register: an immediate value, or a part of the map's
// value.
func (p *parser) value(register uint32, mapped []byte) []byte {
	if register == 0 {
		return nil
	}
	w := word(register)
	if mapped != nil && w >= p.base && int(w-p.base)*4 < len(mapped) {
		return mapped[(w-p.base)*4:]
	}
	return p.values[w]
}
