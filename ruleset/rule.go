package ruleset

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// RefusedMark is the packet mark with which a packet that the daemon has refused
// goes through the rules once more, to get the answer that its door gives when
// it is closed. Packets that keep it are never delivered. It spells "knoc".
const RefusedMark = 0x6b6e6f63

var refusedMark = binaryutil.NativeEndian.PutUint32(RefusedMark)

// rule is one nftables rule: a row of terms.
type rule []term

func (r rule) String() string {
	var words []string
	for _, t := range r {
		if t.text != "" {
			words = append(words, t.text)
		}
	}
	return strings.Join(words, " ")
}

// term is one word of a rule, said twice: as nft lists it, and as the kernel
// takes it. That both mean the same is for the tests on a kernel to show.
type term struct {
	text  string
	exprs func(*batch) []expr.Any
}

// say makes a term that needs nothing from the batch that it is added in.
func say(text string, exprs ...expr.Any) term {
	return term{text, func(*batch) []expr.Any { return exprs }}
}

// family is an IP version in an inet table.
type family struct {
	keyword string // as nft has it
	number  byte   // NFPROTO_*
	source  uint32 // offset of the source address in the header
	dest    uint32 // offset of the destination address
	length  int    // of an address, in bytes
	kind    nftables.SetDatatype
	suffix  string // of the names of sets
	perLink bool   // sources are told apart by the interface, too
}

// A link-local address is another host on each link (RFC 4007, section 6), so
// that those who come from one are told apart as if they were a third IP version.
var (
	ipv4      = family{"ip", unix.NFPROTO_IPV4, 12, 16, 4, nftables.TypeIPAddr, "4", false}
	ipv6      = family{"ip6", unix.NFPROTO_IPV6, 8, 24, 16, nftables.TypeIP6Addr, "6", false}
	linkLocal = family{"ip6", unix.NFPROTO_IPV6, 8, 24, 16,
		nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIFIndex), "_link", true}

	versions = []family{ipv4, ipv6}            // of destinations, and of prefixes that are written down
	families = []family{ipv4, ipv6, linkLocal} // of sources
)

// familyOf returns the family that a source is of.
func familyOf(s packet.Source) family {
	switch {
	case s.Addr().Is4():
		return ipv4
	case s.Link != 0:
		return linkLocal
	}
	return ipv6
}

// key is a source as an element of a set.
func (f family) key(s packet.Source) []byte {
	key := s.Addr().AsSlice()
	if f.perLink {
		key = append(key, binaryutil.NativeEndian.PutUint32(s.Link)...)
	}
	return key
}

// sourceOf is the source that an element of a set is, of which so many leading bits count.
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

// of returns those prefixes that are of the family.
func (f family) of(prefixes []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool {
		return p.Addr().BitLen() != f.length*8
	})
}

// The verdicts, and the matches that have no parameter.
var (
	accept = say("accept", &expr.Verdict{Kind: expr.VerdictAccept})
	drop   = say("drop", &expr.Verdict{Kind: expr.VerdictDrop})
	back   = say("return", &expr.Verdict{Kind: expr.VerdictReturn})

	fromLoopback = say(`iif "lo"`,
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
		equal(binaryutil.NativeEndian.PutUint32(1))) // LOOPBACK_IFINDEX

	// The device of a VRF: what it hands on has been judged when the interface took
	// it in, and the kernel loses what is queued here.
	fromVRF = say(`meta iifkind "vrf"`,
		&expr.Meta{Key: metaIIFKIND, Register: 1},
		equal(append([]byte("vrf"), make([]byte, 13)...)))

	// Not related: a helper such as that for FTP would let a stranger's new
	// connection pass as related to another.
	ofKnownConnection = say("ct state established",
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		mask(binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED)),
		unequal(make([]byte, 4)))

	// Of a connection that has passed this host before, and of one whose beginning both
	// sides have not seen yet.
	ofConfirmed   = ctStatus("confirmed", statusConfirmed, statusConfirmed)
	ofUnfinished  = ctStatus("confirmed / assured,confirmed", statusConfirmed|statusAssured, statusConfirmed)
	ofUnconfirmed = ctStatus("! confirmed", statusConfirmed, 0)
	ofRedirected  = ctStatus("dnat", statusDNAT, statusDNAT)

	ended  = hasLabel(EndedLabel)
	judged = hasLabel(JudgedLabel)
	// A connection that conntrack has not confirmed when it gets this label was let pass
	// from here on, if conntrack ever confirms it.
	noteJudged = say(fmt.Sprintf("ct label set %d", JudgedLabel),
		&expr.Immediate{Register: 1, Data: labelBits(JudgedLabel)},
		&expr.Ct{Key: expr.CtKeyLABELS, Register: 1, SourceRegister: true})

	// Whatever is delivered here, and not only to an address of this host: a
	// service on UDP hears what is sent to broadcast, multicast and anycast
	// addresses, too.
	toThisHost = say("fib daddr type != unicast", addressType(unix.RTN_UNICAST, false)...)
	// Without the interface the kernel looks only at the addresses that are in no VRF.
	toThisVRF = say("fib daddr type unicast fib daddr . iif type != unicast",
		append(addressType(unix.RTN_UNICAST, true),
			&expr.Fib{Register: 1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
			unequal(binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)))...)
	toManyHosts = say("fib daddr type != unicast fib daddr type != local",
		append(addressType(unix.RTN_UNICAST, false), addressType(unix.RTN_LOCAL, false)...)...)
	// No closed port answers anything else.
	toNoneOfThis = say("fib daddr type != local fib daddr . iif type != local",
		append(addressType(unix.RTN_LOCAL, false),
			&expr.Fib{Register: 1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
			unequal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)))...)

	// What this host has sent to many hosts and hears itself: it has its route yet,
	// which nothing has that comes from outside.
	fromThisHost = []term{
		say("fib saddr type local fib daddr type != local rt ip nexthop != 0.0.0.0", ownCopy(expr.RtNexthop4, 4)...),
		say("fib saddr type local fib daddr type != local rt ip6 nexthop != ::", ownCopy(expr.RtNexthop6, 16)...),
	}

	// A source whose address is another's: the route back leads elsewhere. Where
	// several interfaces lead to the rest of the world, any of them will do for it.
	forged = []term{
		say("fib saddr . iif oif missing iif != @"+uplinksSet, append(noRouteBack(),
			&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: uplinksSet, Invert: true})...),
		say("fib saddr . iif oif missing fib saddr oif != @"+uplinksSet, append(noRouteBack(),
			&expr.Fib{Register: 1, FlagSADDR: true, ResultOIF: true},
			&expr.Lookup{SourceRegister: 1, SetName: uplinksSet, Invert: true})...),
	}

	atServedPort = say("meta l4proto . th dport @"+servedSet,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Payload{DestRegister: firstWord + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: servedSet})

	notRefused = say(fmt.Sprintf("meta mark != %#x", RefusedMark),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		unequal(binaryutil.NativeEndian.PutUint32(RefusedMark)))

	refused = say(fmt.Sprintf("meta mark %#x", RefusedMark),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		equal(binaryutil.NativeEndian.PutUint32(RefusedMark)))

	ofTCP  = transport(packet.TCP)
	ofUDP  = transport(packet.UDP)
	notTCP = say("meta l4proto != tcp",
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, unequal([]byte{byte(packet.TCP)}))

	neitherTCPNorUDP = term{"meta l4proto != { tcp, udp }", func(b *batch) []expr.Any {
		lookup := b.lookup(nftables.TypeInetProto, []nftables.SetElement{{Key: []byte{byte(packet.TCP)}}, {Key: []byte{byte(packet.UDP)}}})
		lookup.Invert = true
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, lookup}
	}}

	resetTCP    = say("reject with tcp reset", &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	unreachable = say("reject", &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
)

// opening is what the first segment of a TCP connection looks like: a SYN and
// none of FIN, RST and ACK.
var opening = FlagMatch{Mask: packet.FIN | packet.SYN | packet.RST | packet.ACK, Value: packet.SYN}

func equal(b []byte) *expr.Cmp   { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }
func unequal(b []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: b} }

func mask(b []byte) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(b)), Mask: b, Xor: make([]byte, len(b))}
}

// firstWord is the first register of 4 bytes, where that of 16 begins: NFT_REG32_00 of
// enum nft_registers in linux/netfilter/nf_tables.h.
const firstWord = 8

// metaIIFKIND is NFT_META_IIFKIND of enum nft_meta_keys in linux/netfilter/nf_tables.h.
const metaIIFKIND = expr.MetaKey(26)

// Of enum ip_conntrack_status in linux/netfilter/nf_conntrack_common.h.
const (
	statusAssured   = 1 << 2
	statusConfirmed = 1 << 3
	statusDNAT      = 1 << 5
)

// ctStatus matches packets of connections by bits of their status.
func ctStatus(text string, bits, value uint32) term {
	test := unequal(make([]byte, 4))
	if bits != value {
		test = equal(binaryutil.NativeEndian.PutUint32(value))
	}
	return say("ct status "+text,
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1}, mask(binaryutil.NativeEndian.PutUint32(bits)), test)
}

// addressType matches packets by what the kernel's local table says of where they go.
func addressType(kind uint32, is bool) []expr.Any {
	test := unequal(binaryutil.NativeEndian.PutUint32(kind))
	if is {
		test.Op = expr.CmpOpEq
	}
	return []expr.Any{&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}, test}
}

// ownCopy matches what this host has sent, and has a route.
func ownCopy(key expr.RtKey, length int) []expr.Any {
	return append([]expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true}, equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL))},
		append(addressType(unix.RTN_LOCAL, false),
			&expr.Rt{Register: 1, Key: key}, unequal(make([]byte, length)))...)
}

// noRouteBack matches packets whose source is not where they came from.
func noRouteBack() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

func jump(chain string) term {
	return say("jump "+chain, &expr.Verdict{Kind: expr.VerdictJump, Chain: chain})
}

func goTo(chain string) term {
	return say("goto "+chain, &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

func transport(p packet.Protocol) term {
	return say("meta l4proto "+p.String(),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(p)}))
}

// ofFamily matches packets whose source is of a family. nft implies the IP version
// where a term after it reads an address, and does not list it.
func ofFamily(f family) term {
	switch {
	case f.perLink:
		return say("ip6 saddr fe80::/10", isFamily(f)...)
	case f.length == ipv6.length:
		return say("ip6 saddr != fe80::/10", append(isVersion(f), linkLocalSource(expr.CmpOpNeq)...)...)
	}
	return say("", isFamily(f)...)
}

// isFamily is all that a packet needs to be looked up in a set of the family:
// nobody puts a link-local source into one of IPv6.
func isFamily(f family) []expr.Any {
	if f.perLink {
		return append(isVersion(f), linkLocalSource(expr.CmpOpEq)...)
	}
	return isVersion(f)
}

func isVersion(f family) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{f.number})}
}

// linkLocalSource tells whether a source is one of fe80::/10 (RFC 4291, section 2.5.6).
func linkLocalSource(op expr.CmpOp) []expr.Any {
	prefix := netip.MustParseAddr("fe80::").AsSlice()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: ipv6.source, Len: uint32(ipv6.length)},
		mask(netmask(10, ipv6)),
		&expr.Cmp{Op: op, Register: 1, Data: prefix},
	}
}

// by matches packets that come in by an interface.
func by(name string) term {
	return say("iifname "+strconv.Quote(name),
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		equal(append([]byte(name), make([]byte, 16-len(name))...)))
}

// maxSpread is how many ports a range has at most that are put into a set one by one.
const maxSpread = 256

// toPorts returns terms of which one matches packets of one protocol to any of the
// ports, which are sorted and apart.
//
// No set of intervals is among them: those that are made in a transaction match
// nothing for a moment after it on some kernels (6.18), and strangers would be in.
// So ranges are compared with, or, if they are short, are elements of a hash set.
func toPorts(protocol packet.Protocol, ports []packet.PortRange) []term {
	load := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(protocol)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
	var terms []term
	var numbers []string
	var elements []nftables.SetElement
	for _, r := range ports {
		if r.Last-r.First >= maxSpread {
			terms = append(terms, say(fmt.Sprintf("%s dport %d-%d", protocol, r.First, r.Last), append(slices.Clone(load),
				&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: bigEndian(r.First)},
				&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: bigEndian(r.Last)})...))
			continue
		}
		for n := int(r.First); n <= int(r.Last); n++ {
			numbers = append(numbers, strconv.Itoa(n))
			elements = append(elements, nftables.SetElement{Key: bigEndian(uint16(n))})
		}
	}
	switch len(elements) {
	case 0:
	case 1:
		terms = append(terms, say(protocol.String()+" dport "+numbers[0], append(load, equal(elements[0].Key))...))
	default:
		terms = append(terms, term{
			protocol.String() + " dport { " + strings.Join(numbers, ", ") + " }",
			func(b *batch) []expr.Any {
				return append(slices.Clone(load), b.lookup(nftables.TypeInetService, elements))
			},
		})
	}
	return terms
}

func bigEndian(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// fromAddresses and toAddresses return terms of which one matches packets of one
// family from, or to, any of the prefixes, which are sorted and apart. There is one
// for each length that they have; of sets [toPorts] tells.
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
			text + "{ " + strings.Join(words, ", ") + " }",
			func(b *batch) []expr.Any { return append(slices.Clone(load), b.lookup(f.kind, elements)) },
		})
	}
	return terms
}

// fromSet matches packets of one family whose source, or as many leading bits
// of it, is in the set.
func fromSet(f family, set string, bits int) term { return inSet(f, set, bits, false) }

// notFromSet matches packets that are known to be of the family whose source is not in
// the set.
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

// remember puts the source of a packet that is known to be of the family into
// the set, for the set's timeout.
func remember(f family, set string, bits int) term {
	return say("update @"+set+" { "+sourceText(f, bits)+" }", append(loadSource(f, bits),
		&expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE})...)
}

// tooMany counts the source of a packet that is known to be of the family in the set,
// and matches if that is more often than the rate, in packets, after a burst of as many.
func tooMany(f family, set string, bits int, rate uint64, unit expr.LimitTime) term {
	name := map[expr.LimitTime]string{expr.LimitTimeSecond: "second", expr.LimitTimeMinute: "minute"}[unit]
	return say(fmt.Sprintf("update @%s { %s limit rate over %d/%s burst %d packets }", set, sourceText(f, bits), rate, name, rate),
		append(loadSource(f, bits), &expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE,
			Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: unit, Burst: uint32(rate), Over: true}}})...)
}

// Where a source tried to connect, to be looked up or put into a set of [probeOf].
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

// probeOf is the kind of sets of sources and where they tried to connect.
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

// loadSource loads the leading bits of the source address, and where it matters the
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

// hasLabel matches packets of connections that have a label, whatever others they have.
func hasLabel(label int) term {
	return say(fmt.Sprintf("ct label %d", label),
		&expr.Ct{Key: expr.CtKeyLABELS, Register: 1}, mask(labelBits(label)), unequal(make([]byte, 16)))
}

func labelBits(label int) []byte {
	bits := LabelBits(label)
	return bits[:]
}

// withFlags matches TCP segments by their flags.
func withFlags(m FlagMatch) term {
	value, all := flagText(m.Value), flagText(m.Mask)
	load := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(packet.TCP)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		mask([]byte{byte(m.Mask)}),
	}
	switch {
	case m.Value == 0:
		return say("tcp flags ! "+all, append(load, equal([]byte{0}))...)
	case m.Value == m.Mask && m.Mask&(m.Mask-1) == 0:
		return say("tcp flags "+value, append(load, unequal([]byte{0}))...)
	}
	return say("tcp flags "+value+" / "+all, append(load, equal([]byte{byte(m.Value)}))...)
}

// withoutFlags matches TCP segments whose flags are not as m says; m has more
// than one flag in its mask and some in its value.
func withoutFlags(m FlagMatch) term {
	return say("tcp flags != "+flagText(m.Value)+" / "+flagText(m.Mask),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(packet.TCP)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		mask([]byte{byte(m.Mask)}), unequal([]byte{byte(m.Value)}))
}

func flagText(f packet.Flags) string {
	var names []string
	for _, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg"} {
		if f&flagNames[name] != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// limit matches up to so many packets a second, after a burst.
func limit(rate uint64, burst uint32) term {
	return say(fmt.Sprintf("limit rate %d/second burst %d packets", rate, burst),
		&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst})
}

// count adds the packet to a named counter.
func count(counter string) term {
	return say(fmt.Sprintf("counter name %q", counter),
		&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counter})
}

// ofLength matches UDP datagrams by how many bytes they carry.
func ofLength(n uint16) term {
	const header = 8 // of UDP, which counts itself: RFC 768
	return say(fmt.Sprintf("udp length %d", header+n),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(packet.UDP)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 4, Len: 2},
		equal(bigEndian(header+n)))
}

// logTo copies the first bytes of the packet to an NFLOG group.
func logTo(group uint16, prefix string, length uint32) term {
	return say(fmt.Sprintf("log prefix %q group %d snaplen %d", prefix, group, length),
		&expr.Log{
			Key:     1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Group:   group,
			Snaplen: length,
			Data:    []byte(prefix),
		})
}

// queueTo hands the packet to an NFQUEUE. With bypass it is accepted if nobody
// listens there, else it is dropped then.
func queueTo(number uint16, bypass bool) term {
	text, flags := "queue to ", uint16(0)
	if bypass {
		text, flags = "queue flags bypass to ", unix.NFT_QUEUE_FLAG_BYPASS
	}
	return term{
		text + strconv.Itoa(int(number)),
		func(b *batch) []expr.Any {
			if b.features.NativeQueue {
				return []expr.Any{&expr.Queue{Num: number, Flag: expr.QueueFlag(flags)}}
			}
			// struct xt_NFQ_info_v3 of linux/netfilter/xt_NFQUEUE.h, padded to the
			// alignment that x_tables wants. Its bypass flag has the same value.
			info := make(xt.Unknown, 8)
			binary.NativeEndian.PutUint16(info[0:], number)
			binary.NativeEndian.PutUint16(info[2:], 1)
			binary.NativeEndian.PutUint16(info[4:], flags)
			return []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}
		},
	}
}
