//go:build linux

package nft

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

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
	target   string // the chain that it jumps or goes to
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
	// Packets that neither of them matches.
	toOtherHosts = say("fib daddr type unicast fib daddr . iif type unicast",
		append(addressType(unix.RTN_UNICAST, true),
			&expr.Fib{Register: 1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
			equal(binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)))...)
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

func jump(chain string) term { return toChain("jump", expr.VerdictJump, chain) }

func goTo(chain string) term { return toChain("goto", expr.VerdictGoto, chain) }

func toChain(word string, kind expr.VerdictKind, chain string) term {
	t := say(word+" "+chain, &expr.Verdict{Kind: kind, Chain: chain})
	t.target = chain
	return t
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

// withoutFlags matches TCP segments that withFlags does not match.
func withoutFlags(m ruleset.FlagMatch) term {
	value, all := flagText(m.Value), flagText(m.Mask)
	load := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(packet.TCP)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		mask([]byte{byte(m.Mask)}),
	}
	switch {
	case m.Value == 0:
		return say("tcp flags "+all, append(load, unequal([]byte{0}))...)
	case m.Value == m.Mask && m.Mask&(m.Mask-1) == 0:
		return say("tcp flags ! "+all, append(load, equal([]byte{0}))...)
	}
	return say("tcp flags != "+value+" / "+all, append(load, unequal([]byte{byte(m.Value)}))...)
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
