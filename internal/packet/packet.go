// Package packet parses the first bytes of a packet: its addresses, protocol and ports.
//
// The bytes come from the network through the kernel's NFLOG and NFQUEUE, which copy the
// packet from its IP header on. They are hostile: a header may be cut short, lie about
// its length, or hide behind extension headers. Parse reads each byte at most once, never
// reads past the end, and allocates nothing.
package packet

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// SnapLen is how many bytes of a packet the kernel copies: the longest IPv4 header (60
// bytes), or an IPv6 header with 68 bytes of extension headers, and the 20 bytes of a TCP
// header without options.
const SnapLen = 128

// MaxPayload is the largest payload of a datagram that matters, in bytes: more than the
// largest that Ethernet carries without fragments. MaxSnapLen is how many bytes of a packet
// with it the kernel copies.
const (
	MaxPayload = 1500
	MaxSnapLen = SnapLen + MaxPayload
)

// maxExtensions is how many IPv6 extension headers Parse accepts. RFC 8200, section 4.1,
// names six kinds, of which one may occur twice.
const maxExtensions = 7

// Packet has the header fields of one TCP or UDP packet.
type Packet struct {
	Source, Destination netip.Addr
	SourcePort          uint16
	Port                Port   // destination port
	Sequence            uint32 // TCP sequence number, 0 for UDP
	Flags               Flags  // TCP flags, 0 for UDP
}

// CameBy records the interface, by its index, that a packet came in by. Only a link-local
// source (RFC 4291, section 2.5.6) needs it, and gets the index as its zone.
func (p *Packet) CameBy(index uint32) {
	if p.Source.Is6() && p.Source.IsLinkLocalUnicast() && index != 0 {
		p.Source = p.Source.WithZone(strconv.FormatUint(uint64(index), 10))
	}
}

// Flags are the flag bits of a TCP header (RFC 9293, section 3.1).
type Flags uint8

// The TCP flags that rule files can name.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Parse parses a packet that starts with its IP header. It reports false for anything but
// a TCP or UDP packet whose ports (and for TCP, sequence number and flags) are within b.
// It reports false for later fragments, too, and for an IPv6 packet from or to an
// IPv4-mapped address, which would be taken for the IPv4 host of that address.
func Parse(b []byte) (Packet, bool) {
	p, _, ok := parse(b)
	return p, ok
}

// ParseDatagram does what Parse does, and also returns the payload of a UDP datagram: as
// many bytes of b after the UDP header as its length field says. The payload is nil for
// TCP, and if the length is less than the 8 bytes of the header, or goes beyond the end
// of b, as that of a fragmented or cut datagram does.
func ParseDatagram(b []byte) (p Packet, data []byte, ok bool) {
	p, transport, ok := parse(b)
	if !ok || p.Port.Protocol != UDP {
		return p, nil, ok
	}
	length := int(binary.BigEndian.Uint16(transport[4:6]))
	if length < 8 || length > len(transport) {
		return p, nil, true
	}
	return p, transport[8:length:length], true
}

// parse parses the headers, and returns b from the TCP or UDP header on.
func parse(b []byte) (p Packet, transport []byte, ok bool) {
	if len(b) < 20 {
		return Packet{}, nil, false
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return Packet{}, nil, false
}

// parse4 parses an IPv4 packet (RFC 791, section 3.1) of at least 20 bytes.
func parse4(b []byte) (p Packet, transport []byte, ok bool) {
	header := int(b[0]&0x0f) * 4
	fragmentOffset := binary.BigEndian.Uint16(b[6:8]) & 0x1fff
	if header < 20 || header > len(b) || fragmentOffset != 0 {
		return Packet{}, nil, false
	}
	p = Packet{
		Source:      netip.AddrFrom4([4]byte(b[12:16])),
		Destination: netip.AddrFrom4([4]byte(b[16:20])),
	}
	transport = b[header:]
	ok = p.parseTransport(Protocol(b[9]), transport)
	return p, transport, ok
}

// parse6 parses an IPv6 packet (RFC 8200, section 3).
func parse6(b []byte) (p Packet, transport []byte, ok bool) {
	if len(b) < 40 {
		return Packet{}, nil, false
	}
	p = Packet{
		Source:      netip.AddrFrom16([16]byte(b[8:24])),
		Destination: netip.AddrFrom16([16]byte(b[24:40])),
	}
	if p.Source.Is4In6() || p.Destination.Is4In6() {
		return Packet{}, nil, false
	}
	next, rest := b[6], b[40:]
	for range maxExtensions {
		var length int
		switch next {
		case 0, 43, 60, 135: // hop-by-hop, routing, destination options, mobility
			if len(rest) < 8 {
				return Packet{}, nil, false
			}
			length = int(rest[1])*8 + 8
		case 44: // fragment header: only the first fragment has the ports
			if len(rest) < 8 || binary.BigEndian.Uint16(rest[2:4])&0xfff8 != 0 {
				return Packet{}, nil, false
			}
			length = 8
		case 51: // authentication header, RFC 4302, section 2.2
			if len(rest) < 8 {
				return Packet{}, nil, false
			}
			length = int(rest[1])*4 + 8
		default:
			ok = p.parseTransport(Protocol(next), rest)
			return p, rest, ok
		}
		if length > len(rest) {
			return Packet{}, nil, false
		}
		next, rest = rest[0], rest[length:]
	}
	ok = p.parseTransport(Protocol(next), rest)
	return p, rest, ok
}

// parseTransport parses the start of a TCP (RFC 9293) or UDP (RFC 768) header.
func (p *Packet) parseTransport(protocol Protocol, b []byte) bool {
	switch protocol {
	case TCP:
		if len(b) < 14 {
			return false
		}
		p.Sequence = binary.BigEndian.Uint32(b[4:8])
		p.Flags = Flags(b[13])
	case UDP:
		if len(b) < 8 {
			return false
		}
	default:
		return false
	}
	p.SourcePort = binary.BigEndian.Uint16(b[0:2])
	p.Port = Port{Number: binary.BigEndian.Uint16(b[2:4]), Protocol: protocol}
	return true
}
