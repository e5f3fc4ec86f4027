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
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// RefusedMark is the packet mark of packets that the daemon has refused. With it they go
// through the rules again, and get the answer of their closed door. Packets that keep it
// are never delivered. It spells "knoc".
const RefusedMark = 0x6b6e6f63

var refusedMark = binaryutil.NativeEndian.PutUint32(RefusedMark)

// rule is one nftables rule: a list of terms.
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

// term is one term of a rule in two forms: as nft lists it, and as the kernel takes it.
// Tests on a kernel show that both mean the same.
type term struct {
	text     string
	exprs    func(*batch) []expr.Any
	userData []byte // stored by the kernel with the rule, and ignored by it
}

// say makes a term that does not depend on the batch that it is added in.
func say(text string, exprs ...expr.Any) term {
	return term{text: text, exprs: func(*batch) []expr.Any { return exprs }}
}

// The verdicts, and the matches without parameters.
var (
	accept = say("accept", &expr.Verdict{Kind: expr.VerdictAccept})
	drop   = say("drop", &expr.Verdict{Kind: expr.VerdictDrop})
	back   = say("return", &expr.Verdict{Kind: expr.VerdictReturn})

	fromLoopback = say(`iif "lo"`,
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
		equal(binaryutil.NativeEndian.PutUint32(1))) // LOOPBACK_IFINDEX

	// The device of a VRF. Its packets were judged when they came in by the interface
	// below it, and the kernel loses packets that are queued here.
	fromVRF = say(`meta iifkind "vrf"`,
		&expr.Meta{Key: metaIIFKIND, Register: 1},
		equal(append([]byte("vrf"), make([]byte, 13)...)))

	// The state "related" is left out: with a helper such as that for FTP, a stranger's
	// new connection would pass as related to another.
	ofKnownConnection = say("ct state established",
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		mask(binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED)),
		unequal(make([]byte, 4)))

	// confirmed: the connection has passed this host before. Not assured: both sides have
	// not seen its beginning yet.
	ofConfirmed   = ctStatus("confirmed", statusConfirmed, statusConfirmed)
	ofUnfinished  = ctStatus("confirmed / assured,confirmed", statusConfirmed|statusAssured, statusConfirmed)
	ofUnconfirmed = ctStatus("! confirmed", statusConfirmed, 0)
	ofRedirected  = ctStatus("dnat", statusDNAT, statusDNAT)

	ended  = hasLabel(EndedLabel)
	judged = hasLabel(JudgedLabel)
	// If conntrack ever confirms a connection that gets this label before, the connection
	// was accepted from here on.
	noteJudged = say(fmt.Sprintf("ct label set %d", JudgedLabel),
		&expr.Immediate{Register: 1, Data: labelBits(JudgedLabel)},
		&expr.Ct{Key: expr.CtKeyLABELS, Register: 1, SourceRegister: true})

	// All packets that are delivered here, and not only those to an address of this host:
	// a UDP service also receives packets to broadcast, multicast and anycast addresses.
	toThisHost = say("fib daddr type != unicast", addressType(unix.RTN_UNICAST, false)...)
	// Without the interface the kernel looks only at the addresses that are in no VRF.
	toThisVRF = say("fib daddr type unicast fib daddr . iif type != unicast",
		append(addressType(unix.RTN_UNICAST, true),
			&expr.Fib{Register: 1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
			unequal(binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)))...)
	toManyHosts = say("fib daddr type != unicast fib daddr type != local",
		append(addressType(unix.RTN_UNICAST, false), addressType(unix.RTN_LOCAL, false)...)...)
	// A closed port answers only packets to an address of this host.
	toNoneOfThis = say("fib daddr type != local fib daddr . iif type != local",
		append(addressType(unix.RTN_LOCAL, false),
			&expr.Fib{Register: 1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
			unequal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)))...)

	// Packets that this host sends to many hosts and receives itself. Such a packet still
	// has its route, which no packet from outside has here.
	fromThisHost = []term{
		say("fib saddr type local fib daddr type != local rt ip nexthop != 0.0.0.0", ownCopy(expr.RtNexthop4, 4)...),
		say("fib saddr type local fib daddr type != local rt ip6 nexthop != ::", ownCopy(expr.RtNexthop6, 16)...),
	}

	// Packets with a forged source address: the route back leads elsewhere. If several
	// interfaces lead to the rest of the world, the route may lead to any of them.
	forged = []term{
		say("fib saddr . iif oif missing iif != @"+uplinksSet, append(noRouteBack(),
			&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: uplinksSet, Invert: true})...),
		say("fib saddr . iif oif missing fib saddr oif != @"+uplinksSet, append(noRouteBack(),
			&expr.Fib{Register: 1, FlagSADDR: true, ResultOIF: true},
			&expr.Lookup{SourceRegister: 1, SetName: uplinksSet, Invert: true})...),
	}

	atServedPort = say(protocolAndPortText+" @"+servedSet,
		append(loadProtocolAndPort(), &expr.Lookup{SourceRegister: 1, SetName: servedSet})...)

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

	neitherTCPNorUDP = term{text: "meta l4proto != { tcp, udp }", exprs: func(b *batch) []expr.Any {
		lookup := b.lookup(nftables.TypeInetProto, []nftables.SetElement{{Key: []byte{byte(packet.TCP)}}, {Key: []byte{byte(packet.UDP)}}})
		lookup.Invert = true
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, lookup}
	}}

	resetTCP    = say("reject with tcp reset", &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	unreachable = say("reject", &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
)

// unsaved is the rule comment that tells the reader of a saved ruleset to delete the wall
// from it. Loading such a file fails as a whole while the daemon owns the table.
var unsaved = term{
	text:     `comment "` + doNotSave + `"`,
	exprs:    func(*batch) []expr.Any { return nil },
	userData: original,
}

const doNotSave = "knockwall makes this table by itself: delete it from files with saved rules"

// original is that comment with a second part of user data. Nft does not know its type,
// and neither lists nor saves it. So only tables that a daemon has made since the machine
// was started have it.
var original = userdata.Append(userdata.AppendString(nil, userdata.TypeComment, doNotSave), 'k', []byte("original"))

// opening matches the first segment of a TCP connection: a SYN without FIN, RST and ACK.
var opening = ruleset.FlagMatch{Mask: packet.FIN | packet.SYN | packet.RST | packet.ACK, Value: packet.SYN}

func equal(b []byte) *expr.Cmp   { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }
func unequal(b []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: b} }

func mask(b []byte) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(b)), Mask: b, Xor: make([]byte, len(b))}
}

// firstWord is the first 4-byte register. The first 16-byte register begins there, too:
// NFT_REG32_00 of enum nft_registers in linux/netfilter/nf_tables.h.
const firstWord = 8

// metaIIFKIND is NFT_META_IIFKIND of enum nft_meta_keys in linux/netfilter/nf_tables.h.
const metaIIFKIND = expr.MetaKey(26)

// From enum ip_conntrack_status in linux/netfilter/nf_conntrack_common.h.
const (
	statusAssured   = 1 << 2
	statusConfirmed = 1 << 3
	statusDNAT      = 1 << 5
)

// ctStatus matches packets by bits of their connection's status.
func ctStatus(text string, bits, value uint32) term {
	test := unequal(make([]byte, 4))
	if bits != value {
		test = equal(binaryutil.NativeEndian.PutUint32(value))
	}
	return say("ct status "+text,
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1}, mask(binaryutil.NativeEndian.PutUint32(bits)), test)
}

// addressType matches packets by the type of their destination address in the kernel's
// local routing table (RTN_*).
func addressType(kind uint32, is bool) []expr.Any {
	test := unequal(binaryutil.NativeEndian.PutUint32(kind))
	if is {
		test.Op = expr.CmpOpEq
	}
	return []expr.Any{&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}, test}
}

// ownCopy matches packets that this host has sent, and that have a route.
func ownCopy(key expr.RtKey, length int) []expr.Any {
	return append([]expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true}, equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL))},
		append(addressType(unix.RTN_LOCAL, false),
			&expr.Rt{Register: 1, Key: key}, unequal(make([]byte, length)))...)
}

// noRouteBack matches packets whose source is not reachable by the interface they came in
// by.
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

// by matches packets by the interface they come in by: its name, or a pattern with * at
// the end.
func by(name string) term {
	begin, pattern := strings.CutSuffix(name, "*")
	compared := []byte(begin)
	if !pattern {
		compared = append(compared, make([]byte, unix.IFNAMSIZ-len(name))...)
	}
	return say("iifname "+strconv.Quote(name), &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(compared))
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
func withFlags(m ruleset.FlagMatch) term {
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

// withoutFlags matches TCP segments whose flags are not those of m. The mask of m has
// more than one flag, and its value at least one.
func withoutFlags(m ruleset.FlagMatch) term {
	return say("tcp flags != "+flagText(m.Value)+" / "+flagText(m.Mask),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(packet.TCP)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		mask([]byte{byte(m.Mask)}), unequal([]byte{byte(m.Value)}))
}

func flagText(f packet.Flags) string {
	var names []string
	for _, flag := range []struct {
		bit  packet.Flags
		name string
	}{{packet.FIN, "fin"}, {packet.SYN, "syn"}, {packet.RST, "rst"}, {packet.PSH, "psh"}, {packet.ACK, "ack"}, {packet.URG, "urg"}} {
		if f&flag.bit != 0 {
			names = append(names, flag.name)
		}
	}
	return strings.Join(names, ",")
}

// limit matches up to rate packets a second, after a burst.
func limit(rate uint64, burst uint32) term {
	return say(fmt.Sprintf("limit rate %d/second burst %d packets", rate, burst),
		&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst})
}

// count adds the packet to a named counter.
func count(counter string) term {
	return say(fmt.Sprintf("counter name %q", counter),
		&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counter})
}

// notBeginningWith matches UDP datagrams by the first byte of their payload. Other packets
// must not get here.
func notBeginningWith(b byte) term {
	return say(fmt.Sprintf("@th,64,8 != 0x%02x", b),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 8, Len: 1}, unequal([]byte{b}))
}

// logTo copies the first length bytes of the packet to an NFLOG group.
func logTo(group uint16, prefix string, length uint32) term {
	return say(fmt.Sprintf("log prefix %q group %d snaplen %d", prefix, group, length),
		&expr.Log{
			Key:     1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Group:   group,
			Snaplen: length,
			Data:    []byte(prefix),
		})
}

// queueTo queues the packet to an NFQUEUE. If no process has bound the queue, the packet
// is accepted with bypass, and dropped without.
func queueTo(number uint16, bypass bool) term {
	text, flags := "queue to ", uint16(0)
	if bypass {
		text, flags = "queue flags bypass to ", unix.NFT_QUEUE_FLAG_BYPASS
	}
	return term{
		text: text + strconv.Itoa(int(number)),
		exprs: func(b *batch) []expr.Any {
			if b.features.NativeQueue {
				return []expr.Any{&expr.Queue{Num: number, Flag: expr.QueueFlag(flags)}}
			}
			// struct xt_NFQ_info_v3 of linux/netfilter/xt_NFQUEUE.h, padded to the
			// alignment of x_tables. Its bypass flag has the same value.
			info := make(xt.Unknown, 8)
			binary.NativeEndian.PutUint16(info[0:], number)
			binary.NativeEndian.PutUint16(info[2:], 1)
			binary.NativeEndian.PutUint16(info[4:], flags)
			return []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}
		},
	}
}
