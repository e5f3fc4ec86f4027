//go:build linux

package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// This file has the terms for addresses: how sources are told apart, the sets that they
// are looked up in and put into, and where packets go.

// family is an IP version in an inet table.
type family struct {
	keyword string // the keyword of nft
	number  byte   // NFPROTO_*
	source  uint32 // offset of the source address in the header
	dest    uint32 // offset of the destination address
	length  int    // length of an address in bytes
	kind    nftables.SetDatatype
	suffix  string // suffix of set names
	perLink bool   // the interface tells sources apart, too
}

// A link-local address is another host on each link (RFC 4007, section 6). So link-local
// sources are treated like a third IP version.
var (
	ipv4      = family{"ip", unix.NFPROTO_IPV4, 12, 16, 4, nftables.TypeIPAddr, "4", false}
	ipv6      = family{"ip6", unix.NFPROTO_IPV6, 8, 24, 16, nftables.TypeIP6Addr, "6", false}
	linkLocal = family{"ip6", unix.NFPROTO_IPV6, 8, 24, 16,
		nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIFIndex), "_link", true}

	versions = []family{ipv4, ipv6}            // families of destinations, and of prefixes in rule files
	families = []family{ipv4, ipv6, linkLocal} // families of sources
)

// familyOf returns the family of a source.
func familyOf(s packet.Source) family {
	switch {
	case s.Addr().Is4():
		return ipv4
	case s.Link != 0:
		return linkLocal
	}
	return ipv6
}

// key returns a source as the key of a set element.
func (f family) key(s packet.Source) []byte {
	key := s.Addr().AsSlice()
	if f.perLink {
		key = append(key, binaryutil.NativeEndian.PutUint32(s.Link)...)
	}
	return key
}

// sourceOf returns the source of a set element's key, with a prefix of so many bits.
func (f family) sourceOf(key []byte, bits int) (packet.Source, bool) {
	var link uint32
	if f.perLink && len(key) == f.length+4 {
		link = binaryutil.NativeEndian.Uint32(key[f.length:])
		key = key[:f.length]
	}
	addr, ok := netip.AddrFromSlice(key)
	if !ok || len(key) != f.length || (link != 0) != f.perLink {
		return packet.Source{}, false
	}
	return packet.Source{Prefix: netip.PrefixFrom(addr, bits), Link: link}, true
}

// of returns the prefixes of the family.
func (f family) of(prefixes []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool {
		return p.Addr().BitLen() != f.length*8
	})
}

// ofFamily matches packets whose source is of a family. Nft does not list the match on
// the IP version if a later term reads an address, because the address implies it.
func ofFamily(f family) term {
	switch {
	case f.perLink:
		return say("ip6 saddr fe80::/10", isFamily(f)...)
	case f.length == ipv6.length:
		return say("ip6 saddr != fe80::/10", append(isVersion(f), linkLocalSource(expr.CmpOpNeq)...)...)
	}
	return say("", isFamily(f)...)
}

// isFamily matches packets that can be looked up in a set of the family. The IPv6 sets
// hold no link-local sources, so those need not be excluded.
func isFamily(f family) []expr.Any {
	if f.perLink {
		return append(isVersion(f), linkLocalSource(expr.CmpOpEq)...)
	}
	return isVersion(f)
}

func isVersion(f family) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{f.number})}
}

// linkLocalSource matches by whether the source is in fe80::/10 (RFC 4291, section
// 2.5.6).
func linkLocalSource(op expr.CmpOp) []expr.Any {
	prefix := netip.MustParseAddr("fe80::").AsSlice()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: ipv6.source, Len: uint32(ipv6.length)},
		mask(netmask(10, ipv6)),
		&expr.Cmp{Op: op, Register: 1, Data: prefix},
	}
}

// fromAddresses and toAddresses return terms of which one matches packets of one family
// from, or to, any of the prefixes. The prefixes have to be sorted and disjoint. There is
// one term for each prefix length. [toPorts] says why they use no interval sets.
func fromAddresses(f family, from []netip.Prefix) []term {
	return addresses(f, "saddr", f.source, from)
}
func toAddresses(f family, to []netip.Prefix) []term { return addresses(f, "daddr", f.dest, to) }

func addresses(f family, field string, offset uint32, prefixes []netip.Prefix) (terms []term) {
	byLength := map[int][]netip.Prefix{}
	for _, p := range prefixes {
		byLength[p.Bits()] = append(byLength[p.Bits()], p)
	}
	for _, bits := range slices.Backward(slices.Sorted(maps.Keys(byLength))) {
		same := byLength[bits]
		load := append(isVersion(f), &expr.Payload{
			DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(f.length),
		})
		text := f.keyword + " " + field + " "
		if bits < f.length*8 {
			load = append(load, mask(netmask(bits, f)))
		}
		if len(same) == 1 {
			terms = append(terms, say(text+packet.Source{Prefix: same[0]}.String(), append(load, equal(same[0].Addr().AsSlice()))...))
			continue
		}
		var elements []nftables.SetElement
		var words []string
		for _, p := range same {
			elements = append(elements, nftables.SetElement{Key: p.Addr().AsSlice()})
			words = append(words, p.Addr().String())
		}
		if bits < f.length*8 {
			text += "& " + netmaskText(bits, f) + " == "
		}
		terms = append(terms, term{
			text:  text + "{ " + strings.Join(words, ", ") + " }",
			exprs: func(b *batch) []expr.Any { return append(slices.Clone(load), b.lookup(f.kind, elements)) },
		})
	}
	return terms
}

// fromSet matches packets of one family whose source, or its leading bits, is in the set.
func fromSet(f family, set string, bits int) term { return inSet(f, set, bits, false) }

// notFromSet matches packets whose source is not in the set. The packets have to be known
// to be of the family.
func notFromSet(f family, set string, bits int) term { return inSet(f, set, bits, true) }

func inSet(f family, set string, bits int, not bool) term {
	text := sourceText(f, bits)
	switch {
	case not:
		text += " !="
	case bits < f.length*8 && !f.perLink:
		text += " =="
	}
	if f.perLink {
		text = "ip6 saddr fe80::/10 " + text
	}
	return say(text+" @"+set, append(append(isFamily(f), loadSource(f, bits)...),
		&expr.Lookup{SourceRegister: 1, SetName: set, Invert: not})...)
}

// remember puts the source of a packet into the set, for the set's timeout. The packet
// has to be known to be of the family.
func remember(f family, set string, bits int) term {
	return say("update @"+set+" { "+sourceText(f, bits)+" }", append(loadSource(f, bits),
		&expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE})...)
}

// tooMany counts the source of a packet in the set, and matches if the rate of its
// packets is exceeded, after a burst of as many. The packet has to be known to be of the
// family.
func tooMany(f family, set string, bits int, rate uint64, unit expr.LimitTime) term {
	name := map[expr.LimitTime]string{expr.LimitTimeSecond: "second", expr.LimitTimeMinute: "minute"}[unit]
	return say(fmt.Sprintf("update @%s { %s limit rate over %d/%s burst %d packets }", set, sourceText(f, bits), rate, name, rate),
		append(loadSource(f, bits), &expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE,
			Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: unit, Burst: uint32(rate), Over: true}}})...)
}

// triedBefore matches packets whose source and destination port are in a set of [probeOf]
// elements; rememberTry puts them into it.
func triedBefore(f family, set string, bits int) term {
	text := ""
	if f.perLink {
		text = "ip6 saddr fe80::/10 "
	}
	return say(text+probeText(f, bits)+" @"+set, append(append(isFamily(f), loadProbe(f, bits)...), &expr.Lookup{SourceRegister: 1, SetName: set})...)
}

func rememberTry(f family, set string, bits int) term {
	return say("update @"+set+" { "+probeText(f, bits)+" }", append(loadProbe(f, bits),
		&expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE})...)
}

func probeText(f family, bits int) string { return sourceText(f, bits) + " . meta l4proto . th dport" }

func loadProbe(f family, bits int) []expr.Any {
	next := uint32(firstWord + f.length/4)
	if f.perLink {
		next++
	}
	return append(loadSource(f, bits),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
}

// probeOf returns the key type of sets of sources and the ports that they tried.
func probeOf(f family) nftables.SetDatatype {
	kinds := []nftables.SetDatatype{ipv4.kind}
	switch {
	case f.perLink:
		kinds = []nftables.SetDatatype{ipv6.kind, nftables.TypeIFIndex}
	case f.length == ipv6.length:
		kinds = []nftables.SetDatatype{ipv6.kind}
	}
	return nftables.MustConcatSetType(append(kinds, nftables.TypeInetProto, nftables.TypeInetService)...)
}

func sourceText(f family, bits int) string {
	text := f.keyword + " saddr"
	if bits < f.length*8 {
		text += " & " + netmaskText(bits, f)
	}
	if f.perLink {
		text += " . iif"
	}
	return text
}

// loadSource loads the leading bits of the source address, and for link-local sources the
// interface.
func loadSource(f family, bits int) []expr.Any {
	exprs := []expr.Any{&expr.Payload{
		DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.source, Len: uint32(f.length),
	}}
	if bits < f.length*8 {
		exprs = append(exprs, mask(netmask(bits, f)))
	}
	if f.perLink {
		exprs = append(exprs, &expr.Meta{Key: expr.MetaKeyIIF, Register: firstWord + 4})
	}
	return exprs
}

func netmask(bits int, f family) []byte {
	m := make([]byte, f.length)
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

func netmaskText(bits int, f family) string {
	addr, _ := netip.AddrFromSlice(netmask(bits, f))
	return addr.String()
}
