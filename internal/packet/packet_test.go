package packet_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
)

// The content of the packets of these tests.
const (
	sourcePort = 40000
	port       = 7000
	sequence   = 0xdeadbeef
)

var (
	source4      = netip.MustParseAddr("192.0.2.1")
	destination4 = netip.MustParseAddr("203.0.113.7")
	source6      = netip.MustParseAddr("2001:db8::1")
	destination6 = netip.MustParseAddr("2001:db8:ffff::7")
)

// tcp returns the 20 bytes of a TCP header without options.
func tcp(flags packet.Flags) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b[0:], sourcePort)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint32(b[4:], sequence)
	b[12] = 5 << 4
	b[13] = byte(flags)
	return b
}

// udp returns a UDP header.
func udp() []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b[0:], sourcePort)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], 8)
	return b
}

// ipv4 returns an IPv4 packet. fragment is the word with the fragment flags and offset.
func ipv4(protocol packet.Protocol, fragment uint16, options, payload []byte) []byte {
	b := make([]byte, 20)
	b[0] = 4<<4 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8] = 64
	b[9] = byte(protocol)
	copy(b[12:], source4.AsSlice())
	copy(b[16:], destination4.AsSlice())
	return slices.Concat(b, options, payload)
}

// extension is an IPv6 extension header. Its first byte is filled in by ipv6.
type extension struct {
	kind byte
	b    []byte
}

// options returns an extension header of a kind that counts its length in units of 8
// bytes, without the first.
func options(kind, length byte) extension {
	b := make([]byte, 8+8*int(length))
	b[1] = length
	return extension{kind, b}
}

func fragment(offset uint16, more bool) extension {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b[2:], offset<<3)
	if more {
		b[3] |= 1
	}
	return extension{44, b}
}

// authentication returns an authentication header. It counts its length in units of 4
// bytes, without the first two.
func authentication(length byte) extension {
	b := make([]byte, 8+4*int(length))
	b[1] = length
	return extension{51, b}
}

// ipv6 returns an IPv6 packet with a chain of extension headers.
func ipv6(source, destination netip.Addr, protocol packet.Protocol, payload []byte, chain ...extension) []byte {
	b := make([]byte, 40)
	b[0] = 6 << 4
	b[7] = 64
	copy(b[8:], source.AsSlice())
	copy(b[24:], destination.AsSlice())
	next := 6 // offset of the next header's kind
	for _, e := range chain {
		b[next] = e.kind
		next = len(b)
		b = append(b, e.b...)
	}
	b[next] = byte(protocol)
	return append(b, payload...)
}

// parsed is a packet that Parse accepts.
type parsed struct {
	name string
	b    []byte
	want packet.Packet
}

// readable returns packets that Parse accepts.
func readable() []parsed {
	syn4 := packet.Packet{
		Source: source4, Destination: destination4, SourcePort: sourcePort,
		Port: packet.Port{Number: port, Protocol: packet.TCP}, Sequence: sequence, Flags: packet.SYN,
	}
	syn6 := syn4
	syn6.Source, syn6.Destination = source6, destination6
	datagram := func(p packet.Packet) packet.Packet {
		p.Port.Protocol, p.Sequence, p.Flags = packet.UDP, 0, 0
		return p
	}
	xmas := syn4
	xmas.Flags = packet.FIN | packet.PSH | packet.URG
	all := syn4
	all.Flags = 0xff

	syn := tcp(packet.SYN)
	chain := func(chain ...extension) []byte {
		return ipv6(source6, destination6, packet.TCP, syn, chain...)
	}
	const mostExtensions = 7
	return []parsed{
		{"IPv4 TCP", ipv4(packet.TCP, 0, nil, syn), syn4},
		{"IPv4 UDP", ipv4(packet.UDP, 0, nil, udp()), datagram(syn4)},
		{"IPv4 that must not be fragmented", ipv4(packet.TCP, 0x4000, nil, syn), syn4},
		{"IPv4 first fragment", ipv4(packet.TCP, 0x2000, nil, syn), syn4},
		{"IPv4 with 4 bytes of options", ipv4(packet.TCP, 0, make([]byte, 4), syn), syn4},
		{"IPv4 with the most options", ipv4(packet.UDP, 0, make([]byte, 40), udp()), datagram(syn4)},
		{"TCP FIN PSH URG", ipv4(packet.TCP, 0, nil, tcp(packet.FIN|packet.PSH|packet.URG)), xmas},
		{"TCP every flag bit", ipv4(packet.TCP, 0, nil, tcp(0xff)), all},

		{"IPv6 TCP", chain(), syn6},
		{"IPv6 UDP", ipv6(source6, destination6, packet.UDP, udp()), datagram(syn6)},
		{"IPv6 hop-by-hop options", chain(options(0, 0)), syn6},
		{"IPv6 routing", chain(options(43, 2)), syn6},
		{"IPv6 destination options", chain(options(60, 1)), syn6},
		{"IPv6 mobility", chain(options(135, 1)), syn6},
		{"IPv6 authentication", chain(authentication(4)), syn6},
		{"IPv6 the shortest authentication", chain(authentication(0)), syn6},
		{"IPv6 first fragment", chain(fragment(0, true)), syn6},
		{"IPv6 only fragment", chain(fragment(0, false)), syn6},
		{
			"IPv6 one of each kind",
			chain(options(0, 0), options(60, 0), options(43, 0), fragment(0, true), authentication(1), options(60, 1), options(135, 0)),
			syn6,
		},
		{"IPv6 as many extension headers as may be", chain(slices.Repeat([]extension{options(60, 0)}, mostExtensions)...), syn6},
		{"IPv6 UDP behind a chain", ipv6(source6, destination6, packet.UDP, udp(), options(0, 0), fragment(0, true)), datagram(syn6)},
	}
}

func TestParseReads(t *testing.T) {
	for _, tt := range readable() {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := packet.Parse(tt.b)
			if !ok || got != tt.want {
				t.Errorf("Parse = %+v, %t, want %+v", got, ok, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	syn := tcp(packet.SYN)
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	versioned := func(b []byte, version byte) []byte {
		b[0] = version<<4 | b[0]&0x0f
		return b
	}
	lying := func(length byte) []byte {
		b := ipv4(packet.TCP, 0, nil, syn)
		b[0] = 4<<4 | length
		return b
	}
	overlong := options(60, 0)
	overlong.b[1] = 255
	overlongAH := authentication(0)
	overlongAH.b[1] = 255
	tests := []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"IP version 0", versioned(ipv4(packet.TCP, 0, nil, syn), 0)},
		{"IP version 5", versioned(ipv4(packet.TCP, 0, nil, syn), 5)},
		{"IP version 15", versioned(ipv4(packet.TCP, 0, nil, syn), 15)},
		{"IPv4 header shorter than a header is", lying(4)},
		{"IPv4 header of no length", lying(0)},
		{"IPv4 header longer than the packet", lying(15)},
		{"IPv4 second fragment", ipv4(packet.TCP, 0x2000|1, nil, syn)},
		{"IPv4 last fragment", ipv4(packet.TCP, 0x1fff, nil, syn)},
		{"IPv4 ICMP", ipv4(1, 0, nil, syn)},
		{"IPv4 SCTP", ipv4(132, 0, nil, syn)},
		{"IPv4 UDP-Lite", ipv4(136, 0, nil, syn)},
		{"IPv6 in IPv4", ipv4(41, 0, nil, ipv6(source6, destination6, packet.TCP, syn))},
		{"IPv6 ICMP", ipv6(source6, destination6, 58, syn)},
		{"IPv6 no next header", ipv6(source6, destination6, 59, syn)},
		{"IPv6 encrypted", ipv6(source6, destination6, 50, syn)},
		{"IPv6 second fragment", ipv6(source6, destination6, packet.TCP, syn, fragment(1, true))},
		{"IPv6 last fragment", ipv6(source6, destination6, packet.TCP, syn, fragment(0x1fff, false))},
		{"IPv6 later fragment behind options", ipv6(source6, destination6, packet.UDP, udp(), options(0, 0), fragment(2, false))},
		{"IPv6 options longer than the packet", ipv6(source6, destination6, packet.TCP, syn, overlong)},
		{"IPv6 authentication longer than the packet", ipv6(source6, destination6, packet.TCP, syn, overlongAH)},
		{"IPv6 one extension header too many", ipv6(source6, destination6, packet.TCP, syn, slices.Repeat([]extension{options(60, 0)}, 8)...)},
		// Such a source would be taken for 192.0.2.1.
		{"IPv6 from an IPv4-mapped address", ipv6(mapped, destination6, packet.TCP, syn)},
		{"IPv6 to an IPv4-mapped address", ipv6(source6, mapped, packet.TCP, syn)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := packet.Parse(tt.b); ok {
				t.Errorf("Parse = %+v, true, want false", got)
			}
		})
	}
}

// A later fragment has any of the 13 bits of the offset set.
func TestParseRefusesLaterFragments(t *testing.T) {
	for bit := range 13 {
		offset := uint16(1) << bit
		for name, b := range map[string][]byte{
			"IPv4": ipv4(packet.TCP, offset, nil, tcp(packet.SYN)),
			"IPv6": ipv6(source6, destination6, packet.TCP, tcp(packet.SYN), fragment(offset, false)),
		} {
			if got, ok := packet.Parse(b); ok {
				t.Errorf("%s fragment at %d: %+v", name, offset, got)
			}
		}
	}
}

// A cut packet parses like the whole one if all that Parse must know is there, and does
// not parse otherwise.
func TestParseOfATruncatedPacketIsRightOrFalse(t *testing.T) {
	for _, tt := range readable() {
		t.Run(tt.name, func(t *testing.T) {
			needed := len(tt.b) // the whole UDP header is needed
			if tt.want.Port.Protocol == packet.TCP {
				needed -= 20 - 14 // a TCP header is needed up to its flags
			}
			for n := range len(tt.b) + 1 {
				got, ok := packet.Parse(slices.Clip(tt.b[:n]))
				if ok != (n >= needed) {
					t.Errorf("Parse of %d of %d bytes reports %t, of which %d are needed", n, len(tt.b), ok, needed)
				}
				if ok && got != tt.want {
					t.Errorf("Parse of %d of %d bytes = %+v, want %+v", n, len(tt.b), got, tt.want)
				}
			}
		})
	}
}

func TestSnapLenIsEnoughForTheLongestIPv4Header(t *testing.T) {
	b := ipv4(packet.TCP, 0, make([]byte, 40), append(tcp(packet.SYN), make([]byte, 1000)...))
	if _, ok := packet.Parse(b[:packet.SnapLen]); !ok {
		t.Errorf("Parse cannot read the first %d bytes", packet.SnapLen)
	}
}

// datagram returns a UDP header and its payload. length is the length field.
func datagram(length uint16, data string) []byte {
	b := udp()
	binary.BigEndian.PutUint16(b[4:], length)
	return append(b, data...)
}

// carrier is a packet, and the payload that ParseDatagram returns.
type carrier struct {
	name string
	b    []byte
	want []byte
}

func carriers() []carrier {
	over4 := func(length uint16, data string) []byte {
		return ipv4(packet.UDP, 0, nil, datagram(length, data))
	}
	return []carrier{
		{"all of it", over4(13, "hello"), []byte("hello")},
		{"behind IPv4 options", ipv4(packet.UDP, 0, make([]byte, 40), datagram(13, "hello")), []byte("hello")},
		{"behind IPv6 headers", ipv6(source6, destination6, packet.UDP, datagram(13, "hello"), options(0, 0), options(60, 1)), []byte("hello")},
		{"bytes behind the datagram", over4(12, "hello"), []byte("hell")},
		{"nothing", over4(8, ""), []byte{}},
		{"nothing, and bytes behind it", over4(8, "hello"), []byte{}},
		{"a length of one too many", over4(14, "hello"), nil},
		{"the greatest length", over4(0xffff, "hello"), nil},
		{"a length without the whole header", over4(7, "hello"), nil},
		{"no length, as of a jumbogram", over4(0, "hello"), nil},
		{"a first fragment", ipv4(packet.UDP, 0x2000, nil, datagram(14, "hello")), nil},
		{"TCP", ipv4(packet.TCP, 0, nil, append(tcp(packet.SYN), "hello"...)), nil},
	}
}

func TestParseDatagramReturnsWhatIsCarried(t *testing.T) {
	for _, tt := range carriers() {
		t.Run(tt.name, func(t *testing.T) {
			want, _ := packet.Parse(tt.b)
			p, data, ok := packet.ParseDatagram(tt.b)
			if !ok || p != want {
				t.Errorf("ParseDatagram = %+v, %t, Parse %+v", p, ok, want)
			}
			if !bytes.Equal(data, tt.want) || (data == nil) != (tt.want == nil) {
				t.Errorf("the data is %#v, want %#v", data, tt.want)
			}
			if len(data) != cap(data) {
				t.Error("what is appended to the data would be written into the packet")
			}
		})
	}
}

func TestParseDatagramRefusesWhatParseRefuses(t *testing.T) {
	b := ipv4(packet.UDP, 1, nil, datagram(13, "hello")) // a later fragment
	if p, data, ok := packet.ParseDatagram(b); ok || data != nil {
		t.Errorf("ParseDatagram = %+v, %q, true", p, data)
	}
}

// transport finds the start of a packet's TCP or UDP header in a slow and simple way: one
// header after the other.
func transport(next byte, b []byte, at, extensions int) (protocol packet.Protocol, offset int, ok bool) {
	if next == byte(packet.TCP) || next == byte(packet.UDP) {
		return packet.Protocol(next), at, true
	}
	if extensions == 0 || at+8 > len(b) {
		return 0, 0, false
	}
	length := 0
	switch next {
	case 0, 43, 60, 135:
		length = 8 * (1 + int(b[at+1]))
	case 51:
		length = 4 * (2 + int(b[at+1]))
	case 44:
		length = 8
		if b[at+2] != 0 || b[at+3]>>3 != 0 {
			return 0, 0, false
		}
	default:
		return 0, 0, false
	}
	if at+length > len(b) {
		return 0, 0, false
	}
	return transport(b[at], b, at+length, extensions-1)
}

func FuzzParse(f *testing.F) {
	for _, tt := range readable() {
		f.Add(tt.b)
	}
	for _, tt := range carriers() {
		f.Add(tt.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), 1024)] // each length up to that is tried
		before := bytes.Clone(b)
		p, ok := packet.Parse(b)
		if !bytes.Equal(b, before) {
			t.Fatal("Parse has changed what it reads")
		}
		same, data, alsoOK := packet.ParseDatagram(b)
		if same != p || alsoOK != ok {
			t.Fatalf("ParseDatagram = %+v, %t, Parse %+v, %t", same, alsoOK, p, ok)
		}
		if !ok {
			if data != nil {
				t.Errorf("ParseDatagram reports false and the data %q", data)
			}
			if p.Port != (packet.Port{}) {
				t.Errorf("Parse reports false and the port %v", p.Port)
			}
			// Then no shorter part parses.
			for n := range b {
				if _, ok := packet.Parse(b[:n]); ok {
					t.Fatalf("Parse reads %d of %d bytes, but not all", n, len(b))
				}
			}
			return
		}
		source, destination := b[12:16], b[16:20]
		protocol, at, found := packet.Protocol(b[9]), 4*int(b[0]&15), b[0]>>4 == 4
		if !found {
			source, destination = b[8:24], b[24:40]
			protocol, at, found = transport(b[6], b, 40, 7)
		}
		if !found {
			t.Fatalf("Parse reads %+v where there is no TCP or UDP header", p)
		}
		if !bytes.Equal(p.Source.AsSlice(), source) || !bytes.Equal(p.Destination.AsSlice(), destination) {
			t.Errorf("from %v to %v, want % x and % x", p.Source, p.Destination, source, destination)
		}
		if p.Source.Is4In6() || p.Destination.Is4In6() {
			t.Errorf("from %v to %v: an IPv4-mapped address", p.Source, p.Destination)
		}
		want := packet.Packet{
			Source: p.Source, Destination: p.Destination,
			SourcePort: binary.BigEndian.Uint16(b[at:]),
			Port:       packet.Port{Number: binary.BigEndian.Uint16(b[at+2:]), Protocol: protocol},
		}
		if protocol == packet.TCP {
			want.Sequence = binary.BigEndian.Uint32(b[at+4:])
			want.Flags = packet.Flags(b[at+13])
		}
		if p != want {
			t.Errorf("Parse = %+v, want %+v", p, want)
		}
		var carried []byte
		if protocol == packet.UDP {
			if length := int(b[at+4])<<8 | int(b[at+5]); length >= 8 && at+length <= len(b) {
				carried = b[at+8 : at+length]
			}
		}
		if !bytes.Equal(data, carried) || (data == nil) != (carried == nil) {
			t.Errorf("the data is %#v, want %#v", data, carried)
		}
		for n := range b {
			if part, ok := packet.Parse(b[:n]); ok && part != p {
				t.Fatalf("Parse of %d of %d bytes = %+v, of all %+v", n, len(b), part, p)
			}
			// Cut data is not returned.
			if _, part, _ := packet.ParseDatagram(b[:n]); part != nil && !bytes.Equal(part, data) {
				t.Fatalf("ParseDatagram of %d of %d bytes has %q, of all %q", n, len(b), part, data)
			}
		}
	})
}

func TestParseDoesNotAllocate(t *testing.T) {
	for _, tt := range readable() {
		if n := testing.AllocsPerRun(100, func() { packet.Parse(tt.b) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
		if n := testing.AllocsPerRun(100, func() { packet.ParseDatagram(tt.b) }); n != 0 {
			t.Errorf("%s: %v allocations by ParseDatagram", tt.name, n)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, tt := range readable() {
		switch tt.name {
		case "IPv4 TCP", "IPv6 TCP", "IPv6 one of each kind":
			b.Run(tt.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := packet.Parse(tt.b); !ok {
						b.Fatal("not read")
					}
				}
			})
		}
	}
}
