//go:build linux

package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// This file has the terms for ports and for the sizes of datagrams.

// toAny returns rules that end in last for packets to any of the ports, of whichever protocol.
func toAny(ports []packet.PortRange, last term) (rules []rule) {
	for _, ports := range byProtocol(packet.MergeRanges(slices.Clone(ports))) {
		for _, to := range toPorts(ports[0].Protocol, ports) {
			rules = append(rules, rule{to, last})
		}
	}
	return rules
}

// byProtocol splits merged ranges into those of TCP and those of UDP, and leaves out
// empty ones.
func byProtocol(ports []packet.PortRange) [][]packet.PortRange {
	i := slices.IndexFunc(ports, func(r packet.PortRange) bool { return r.Protocol != packet.TCP })
	if i < 0 {
		i = len(ports)
	}
	return slices.DeleteFunc([][]packet.PortRange{ports[:i], ports[i:]}, func(p []packet.PortRange) bool { return len(p) == 0 })
}

// maxSpread is the largest range of numbers that is put into a set one by one.
const maxSpread = 256

// toPorts returns terms of which one matches packets of one protocol to any of the ports.
// The ranges have to be sorted and must not touch.
func toPorts(protocol packet.Protocol, ports []packet.PortRange) []term {
	var ranges, short []span
	numbers := 0
	for _, r := range ports {
		ranges = append(ranges, span{r.First, r.Last})
		if r.Last-r.First < maxSpread {
			short = append(short, span{r.First, r.Last})
			numbers += int(r.Last-r.First) + 1
		}
	}
	if numbers > maxBitmap {
		wide := slices.DeleteFunc(slices.Clone(ports), func(r packet.PortRange) bool { return r.Last-r.First < maxSpread })
		return append(toPorts(protocol, wide), toManyPorts(protocol, short))
	}
	return among(protocol.String()+" dport", []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(protocol)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}, ranges)
}

// maxBitmap is the largest number of ports of a set that has only the port as its key. The
// kernel uses a bitmap for such a set, with a list of its elements, and looks through that
// list for each element that is added (nft_bitmap_elem_find of
// net/netfilter/nft_set_bitmap.c).
const maxBitmap = 256

// toManyPorts matches packets of one protocol to any of many ports.
func toManyPorts(protocol packet.Protocol, ranges []span) term {
	var words []string
	var elements []nftables.SetElement
	for _, r := range ranges {
		for n := int(r.first); n <= int(r.last); n++ {
			e := portElement(packet.Port{Number: uint16(n), Protocol: protocol})
			words = append(words, e.text)
			elements = append(elements, nftables.SetElement{Key: e.key})
		}
	}
	return term{
		text: protocolAndPortText + " { " + strings.Join(words, ", ") + " }",
		exprs: func(b *batch) []expr.Any {
			return append(loadProtocolAndPort(), b.lookup(protocolAndPort, elements))
		},
	}
}

// protocolAndPort is the key type of sets and maps of ports.
var protocolAndPort = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)

// protocolAndPortText is how nft writes that key, and loadProtocolAndPort loads it.
const protocolAndPortText = "meta l4proto . th dport"

func loadProtocolAndPort() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Payload{DestRegister: firstWord + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

func portElement(p packet.Port) element {
	// Each part of a key is padded to 4 bytes.
	key := append([]byte{byte(p.Protocol), 0, 0, 0}, append(bigEndian(p.Number), 0, 0)...)
	return element{fmt.Sprintf("%s . %d", p.Protocol, p.Number), key}
}

func comparePorts(a, b packet.Port) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
}

// toFew is [toPorts] for ports that usually are few. It compares few ports one by one: the
// kernel takes long to install a table with a set for each of many doors.
func toFew(protocol packet.Protocol, ports []packet.PortRange) (terms []term) {
	const few = 8
	var single []packet.PortRange
	for _, r := range ports {
		for n := int(r.First); n <= int(r.Last) && len(single) <= few; n++ {
			single = append(single, packet.PortRange{First: uint16(n), Last: uint16(n), Protocol: protocol})
		}
	}
	if len(single) > few {
		return toPorts(protocol, ports)
	}
	for _, p := range single {
		terms = append(terms, toPorts(protocol, []packet.PortRange{p})...)
	}
	return terms
}

// ofSizes returns terms of which one matches UDP datagrams with a payload of any of the
// sizes. The ranges have to be sorted and must not touch.
func ofSizes(sizes []method.Sizes) []term {
	const header = 8 // the UDP length includes the header (RFC 768)
	var ranges []span
	for _, s := range sizes {
		ranges = append(ranges, span{header + s.Least, header + s.Most})
	}
	return among("udp length", []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(packet.UDP)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 4, Len: 2},
	}, ranges)
}

// span is a range of numbers, with both ends.
type span struct{ first, last uint16 }

// among returns terms of which one matches packets with a field of 16 bits in any of the
// ranges. field is its name in nft, and load puts it into register 1.
//
// The terms use no interval sets: on some kernels (6.18) an interval set that a
// transaction makes matches nothing for a moment after it, and strangers would get in. So
// long ranges are comparisons, and short ones are elements of a hash set.
func among(field string, load []expr.Any, ranges []span) []term {
	var terms []term
	var numbers []string
	var elements []nftables.SetElement
	for _, r := range ranges {
		if r.last-r.first >= maxSpread {
			terms = append(terms, say(fmt.Sprintf("%s %d-%d", field, r.first, r.last), append(slices.Clone(load),
				&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: bigEndian(r.first)},
				&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: bigEndian(r.last)})...))
			continue
		}
		for n := int(r.first); n <= int(r.last); n++ {
			numbers = append(numbers, strconv.Itoa(n))
			elements = append(elements, nftables.SetElement{Key: bigEndian(uint16(n))})
		}
	}
	switch len(elements) {
	case 0:
	case 1:
		terms = append(terms, say(field+" "+numbers[0], append(load, equal(elements[0].Key))...))
	default:
		terms = append(terms, term{
			text: field + " { " + strings.Join(numbers, ", ") + " }",
			exprs: func(b *batch) []expr.Any {
				return append(slices.Clone(load), b.lookup(nftables.TypeInetService, elements))
			},
		})
	}
	return terms
}

func bigEndian(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
