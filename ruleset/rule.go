//go:build linux

package ruleset

import (
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
	text     string
	exprs    func(*batch) []expr.Any
	userData []byte // that the kernel keeps beside the rule, and makes nothing of
}

// say makes a term that needs nothing from the batch that it is added in.
func say(text string, exprs ...expr.Any) term {
	return term{text: text, exprs: func(*batch) []expr.Any { return exprs }}
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

	neitherTCPNorUDP = term{text: "meta l4proto != { tcp, udp }", exprs: func(b *batch) []expr.Any {
		lookup := b.lookup(nftables.TypeInetProto, []nftables.SetElement{{Key: []byte{byte(packet.TCP)}}, {Key: []byte{byte(packet.UDP)}}})
		lookup.Invert = true
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, lookup}
	}}

	resetTCP    = say("reject with tcp reset", &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	unreachable = say("reject", &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
)

// unsaved is the comment that tells who reads a saved ruleset what to do about the wall in
// it: a table that is there already, and is the daemon's own, makes all of such a file fail.
var unsaved = term{
	text:     `comment "` + doNotSave + `"`,
	exprs:    func(*batch) []expr.Any { return nil },
	userData: original,
}

const doNotSave = "knockwall makes this table by itself: delete it from files with saved rules"

// original is that comment, with a second part, which nft neither lists nor saves, as it
// does not know the type: so it is in no table but those that a daemon has made since the
// machine was started.
var original = userdata.Append(userdata.AppendString(nil, userdata.TypeComment, doNotSave), 'k', []byte("original"))

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

// by matches packets that come in by an interface, or by any whose name fits a pattern.
func by(name string) term {
	begin, pattern := strings.CutSuffix(name, "*")
	compared := []byte(begin)
	if !pattern {
		compared = append(compared, make([]byte, maxInterface+1-len(name))...)
	}
	return say("iifname "+strconv.Quote(name), &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(compared))
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
			text: protocol.String() + " dport { " + strings.Join(numbers, ", ") + " }",
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
		text: text + strconv.Itoa(int(number)),
		exprs: func(b *batch) []expr.Any {
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
