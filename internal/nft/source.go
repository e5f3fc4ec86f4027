//go:build linux

package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
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

// key returns a source as the key of a set element, and keyAt as that of one in a set that
// all doors share.
func (f family) key(s packet.Source) []byte {
	key := s.Addr().AsSlice()
	if f.perLink {
		key = append(key, binaryutil.NativeEndian.PutUint32(s.Link)...)
	}
	return key
}

func (f family) keyAt(door string, s packet.Source) []byte {
	return append(f.key(s), doorKey(ruleset.DoorNumber(door))...)
}

// sourceAt returns the source and the number of the door of a set element's key. The
// address stands alone: how many of its bits count is not in the key.
func (f family) sourceAt(key []byte) (addr netip.Addr, link, door uint32, ok bool) {
	if len(key) != int(kindOf(f, true).Bytes) {
		return netip.Addr{}, 0, 0, false
	}
	door = binaryutil.NativeEndian.Uint32(key[len(key)-4:])
	if f.perLink {
		link = binaryutil.NativeEndian.Uint32(key[f.length:])
	}
	addr, ok = netip.AddrFromSlice(key[:f.length])
	return addr, link, door, ok && (link != 0) == f.perLink
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

// sourceKey is what a set of sources has of each: the leading bits of the address, for
// link-local sources the interface, and in a set that all doors share the number of the
// door.
type sourceKey struct {
	family
	bits   int
	door   uint32
	atDoor bool
}

// numbered is the key in a set that all doors share, at the door of that name.
func (k sourceKey) numbered(door string) sourceKey {
	k.door, k.atDoor = ruleset.DoorNumber(door), true
	return k
}

// kindOf returns the type of the keys in sets of sources, and in those that all doors share.
// The number of a door has the type of a packet mark: see [sourceKey.load].
func kindOf(f family, atDoor bool) nftables.SetDatatype {
	switch {
	case !atDoor:
		return f.kind
	case f.perLink:
		return nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIFIndex, nftables.TypeMark)
	}
	return nftables.MustConcatSetType(f.kind, nftables.TypeMark)
}

// fromSet matches packets whose source is in the set.
func fromSet(set string, k sourceKey) term { return inSet(set, k, false) }

// notFromSet matches packets whose source is not in the set. The packets have to be known
// to be of the family.
func notFromSet(set string, k sourceKey) term { return inSet(set, k, true) }

func inSet(set string, k sourceKey, not bool) term {
	text := k.text()
	switch {
	case not:
		text += " !="
	case k.bits < k.length*8 && !k.perLink && !k.atDoor:
		text += " =="
	}
	if k.perLink {
		text = "ip6 saddr fe80::/10 " + text
	}
	return say(text+" @"+set, append(append(isFamily(k.family), k.load()...),
		&expr.Lookup{SourceRegister: 1, SetName: set, Invert: not})...)
}

// remember puts the source of a packet into the set, for the set's timeout or, if it is not
// zero, for the given one. The packet has to be known to be of the family.
func remember(set string, k sourceKey, timeout time.Duration) term {
	text := k.text()
	if timeout > 0 {
		text += " timeout " + nftDuration(timeout)
	}
	return say("update @"+set+" { "+text+" }", append(k.load(),
		&expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: timeout})...)
}

// tooMany counts the source of a packet in the set, and matches if the rate of its
// packets is exceeded, after a burst of as many. The packet has to be known to be of the
// family.
func tooMany(set string, k sourceKey, rate uint64, unit expr.LimitTime) term {
	name := map[expr.LimitTime]string{expr.LimitTimeSecond: "second", expr.LimitTimeMinute: "minute"}[unit]
	return say(fmt.Sprintf("update @%s { %s limit rate over %d/%s burst %d packets }", set, k.text(), rate, name, rate),
		append(k.load(), &expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE,
			Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: unit, Burst: uint32(rate), Over: true}}})...)
}

// triedBefore matches packets whose source and destination port are in a set of [probeOf]
// elements; rememberTry puts them into it.
func triedBefore(set string, k sourceKey) term {
	text := ""
	if k.perLink {
		text = "ip6 saddr fe80::/10 "
	}
	return say(text+probeText(k)+" @"+set, append(append(isFamily(k.family), loadProbe(k)...), &expr.Lookup{SourceRegister: 1, SetName: set})...)
}

func rememberTry(set string, k sourceKey) term {
	return say("update @"+set+" { "+probeText(k)+" }", append(loadProbe(k),
		&expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE})...)
}

func probeText(k sourceKey) string { return k.text() + " . meta l4proto . th dport" }

func loadProbe(k sourceKey) []expr.Any {
	next := k.next()
	return append(k.load(),
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

func (k sourceKey) text() string {
	text := k.keyword + " saddr"
	if k.bits < k.length*8 {
		text += " & " + netmaskText(k.bits, k.family)
	}
	if k.perLink {
		text += " . iif"
	}
	if k.atDoor {
		text += fmt.Sprintf(" . meta mark & 0x%08[1]x | 0x%08[1]x", k.door)
	}
	return text
}

// load loads the key. Nft has no term for a constant in a key: the number of a door is the
// packet mark with all bits replaced.
func (k sourceKey) load() []expr.Any {
	exprs := []expr.Any{&expr.Payload{
		DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: k.source, Len: uint32(k.length),
	}}
	if k.bits < k.length*8 {
		exprs = append(exprs, mask(netmask(k.bits, k.family)))
	}
	if k.perLink {
		exprs = append(exprs, &expr.Meta{Key: expr.MetaKeyIIF, Register: firstWord + uint32(k.length/4)})
	}
	if k.atDoor {
		next := k.next()
		exprs = append(exprs,
			&expr.Meta{Key: expr.MetaKeyMARK, Register: next},
			&expr.Bitwise{SourceRegister: next, DestRegister: next, Len: 4, Mask: allReplaced, Xor: doorKey(k.door)})
	}
	return exprs
}

// next returns the first register behind the source.
func (k sourceKey) next() uint32 {
	next := firstWord + uint32(k.length/4)
	if k.perLink {
		next++
	}
	return next
}

// allReplaced is the mask that keeps no bit of a packet mark.
var allReplaced = make([]byte, 4)

// doorKey is the number of a door in a key.
func doorKey(number uint32) []byte { return binaryutil.NativeEndian.PutUint32(number) }

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
