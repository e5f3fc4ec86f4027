package ruleset

import (
	"encoding/binary"
	"fmt"
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

// EndedMark is the mark of connections, in conntrack, that are to end: the wall
// lets nothing of them pass. It spells "knoe".
const EndedMark = 0x6b6e6f65

var endedMark = binaryutil.NativeEndian.PutUint32(EndedMark)

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
	digit   string // in the names of sets
}

var (
	ipv4     = family{"ip", unix.NFPROTO_IPV4, 12, 16, 4, nftables.TypeIPAddr, "4"}
	ipv6     = family{"ip6", unix.NFPROTO_IPV6, 8, 24, 16, nftables.TypeIP6Addr, "6"}
	families = []family{ipv4, ipv6}
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
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

	// Not related: a helper such as that for FTP would let a stranger's new
	// connection pass as related to another.
	ofKnownConnection = say("ct state established",
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		mask(binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED)),
		unequal(make([]byte, 4)))

	// Whatever is delivered here, and not only to an address of this host: a
	// service on UDP hears what is sent to broadcast, multicast and anycast
	// addresses, too.
	toThisHost = say("fib daddr type != unicast",
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		unequal(binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)))

	notRefused = say(fmt.Sprintf("meta mark != %#x", RefusedMark),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		unequal(binaryutil.NativeEndian.PutUint32(RefusedMark)))

	refused = say(fmt.Sprintf("meta mark %#x", RefusedMark),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		equal(binaryutil.NativeEndian.PutUint32(RefusedMark)))

	notEnded = say(fmt.Sprintf("ct mark != %#x", EndedMark),
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		unequal(endedMark))

	// Who has a window anew begins anew, even by a flow of the same ports.
	pardon = say(fmt.Sprintf("ct mark %#x ct mark set 0x00000000", EndedMark),
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		equal(endedMark),
		&expr.Immediate{Register: 1, Data: make([]byte, 4)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true})

	ofTCP  = transport(packet.TCP)
	ofUDP  = transport(packet.UDP)
	notTCP = say("meta l4proto != tcp",
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, unequal([]byte{byte(packet.TCP)}))

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

// ofFamily matches packets of one IP version. nft implies it where a term after
// it reads an address, and does not list it.
func ofFamily(f family) term { return say("", isFamily(f)...) }

func isFamily(f family) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{f.number})}
}

// by matches packets that come in by an interface.
func by(name string) term {
	return say("iifname "+strconv.Quote(name),
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		equal(append([]byte(name), make([]byte, 16-len(name))...)))
}

// toPorts matches packets of one protocol to any of the ports, which are sorted
// and apart.
func toPorts(protocol packet.Protocol, ports []packet.PortRange) term {
	text := make([]string, len(ports))
	interval := false
	for i, r := range ports {
		text[i] = strconv.Itoa(int(r.First))
		if r.First != r.Last {
			text[i] += "-" + strconv.Itoa(int(r.Last))
			interval = true
		}
	}
	load := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{byte(protocol)}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
	if len(ports) == 1 {
		first, last := bigEndian(ports[0].First), bigEndian(ports[0].Last)
		if !interval {
			return say(protocol.String()+" dport "+text[0], append(load, equal(first))...)
		}
		return say(protocol.String()+" dport "+text[0], append(load,
			&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: first},
			&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: last})...)
	}
	return term{
		protocol.String() + " dport { " + strings.Join(text, ", ") + " }",
		func(b *batch) []expr.Any {
			var elements []nftables.SetElement
			for _, r := range ports {
				elements = append(elements, nftables.SetElement{Key: bigEndian(r.First)})
				if interval && r.Last < 65535 {
					elements = append(elements, nftables.SetElement{Key: bigEndian(r.Last + 1), IntervalEnd: true})
				}
			}
			return append(slices.Clone(load), b.lookup(nftables.TypeInetService, interval, elements))
		},
	}
}

func bigEndian(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// toAddresses matches packets of one family to any of the addresses, which are
// sorted and apart.
func toAddresses(f family, to []netip.Prefix) term {
	load := append(isFamily(f), &expr.Payload{
		DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dest, Len: uint32(f.length),
	})
	text := make([]string, len(to))
	interval := false
	for i, p := range to {
		text[i] = packet.Source{Prefix: p}.String()
		interval = interval || !p.IsSingleIP()
	}
	if len(to) == 1 {
		test := []expr.Any{equal(to[0].Addr().AsSlice())}
		if interval {
			test = append([]expr.Any{mask(netmask(to[0].Bits(), f))}, test...)
		}
		return say(f.keyword+" daddr "+text[0], append(load, test...)...)
	}
	return term{
		f.keyword + " daddr { " + strings.Join(text, ", ") + " }",
		func(b *batch) []expr.Any {
			return append(slices.Clone(load), b.lookup(f.kind, interval, prefixElements(to, interval)))
		},
	}
}

// fromSet matches packets of one family whose source, or as many leading bits
// of it, is in the set.
func fromSet(f family, set string, bits int) term {
	text := f.keyword + " saddr "
	exprs := append(isFamily(f), loadSource(f, bits)...)
	if bits < f.length*8 {
		text += "& " + netmaskText(bits, f) + " == "
	}
	return say(text+"@"+set, append(exprs, &expr.Lookup{SourceRegister: 1, SetName: set})...)
}

// remember puts the source of a packet that is known to be of the family into
// the set, for the set's timeout.
func remember(f family, set string, bits int) term {
	text := f.keyword + " saddr"
	if bits < f.length*8 {
		text += " & " + netmaskText(bits, f)
	}
	return say("update @"+set+" { "+text+" }", append(loadSource(f, bits),
		&expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE})...)
}

// loadSource loads the leading bits of the source address.
func loadSource(f family, bits int) []expr.Any {
	exprs := []expr.Any{&expr.Payload{
		DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.source, Len: uint32(f.length),
	}}
	if bits < f.length*8 {
		exprs = append(exprs, mask(netmask(bits, f)))
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

// prefixElements are the elements that a set holds prefixes as: just their
// addresses, or, in an interval set, where each begins and where it has ended.
func prefixElements(prefixes []netip.Prefix, interval bool) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, p := range prefixes {
		first := p.Addr().AsSlice()
		elements = append(elements, nftables.SetElement{Key: first})
		if !interval {
			continue
		}
		last := slices.Clone(first)
		for i := p.Bits(); i < len(last)*8; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		addr, _ := netip.AddrFromSlice(last)
		if end := addr.Next(); end.IsValid() {
			elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
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
			if b.nativeQueue {
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
