// Package forge makes single packets and floods, for tests and measurements on networks
// of package netlab.
package forge

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// Segment is a TCP segment without data, or a UDP datagram.
type Segment struct {
	From, To   netip.Addr
	SourcePort uint16
	Port       packet.Port
	Sequence   uint32       // of TCP
	Flags      packet.Flags // of TCP
	Payload    []byte       // of UDP; nil: one NUL byte, as in a knock
}

// RawSocket opens a socket for packets with IP header, for the address family of to.
func RawSocket(to netip.Addr) (fd int, err error) {
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	return unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
}

// Send sends the segment by such a socket. If the cable is full, Send tries again; a real
// cable would lose the packet.
func (s Segment) Send(socket int) error {
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: s.To.As16()}
	if s.To.Is4() {
		to = &unix.SockaddrInet4{Addr: s.To.As4()}
	}
	b := s.Bytes()
	for {
		err := unix.Sendto(socket, b, 0, to)
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Bytes returns the packet, from its IP header on.
func (s Segment) Bytes() []byte {
	var transport []byte
	transport = binary.BigEndian.AppendUint16(transport, s.SourcePort)
	transport = binary.BigEndian.AppendUint16(transport, s.Port.Number)
	if s.Port.Protocol == packet.UDP {
		payload := s.Payload
		if len(payload) == 0 {
			payload = []byte{0}
		}
		transport = binary.BigEndian.AppendUint16(transport, uint16(8+len(payload)))
		transport = append(transport, 0, 0)
		transport = append(transport, payload...)
	} else {
		transport = binary.BigEndian.AppendUint32(transport, s.Sequence)
		transport = binary.BigEndian.AppendUint32(transport, 0)
		transport = append(transport, 5<<4, byte(s.Flags), 0xfa, 0xf0, 0, 0, 0, 0)
	}
	var pseudo []byte
	pseudo = append(pseudo, s.From.AsSlice()...)
	pseudo = append(pseudo, s.To.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(transport)))
	pseudo = append(pseudo, 0, 0, 0, byte(s.Port.Protocol))
	binary.BigEndian.PutUint16(transport[checksumOffset(s.Port.Protocol):], Checksum(append(pseudo, transport...)))

	var header []byte
	if s.To.Is4() {
		header = append(header, 0x45, 0)
		header = binary.BigEndian.AppendUint16(header, uint16(20+len(transport)))
		header = append(header, 0, 0, 0x40, 0, 64, byte(s.Port.Protocol), 0, 0)
		header = append(header, s.From.AsSlice()...)
		header = append(header, s.To.AsSlice()...)
		binary.BigEndian.PutUint16(header[10:], Checksum(header))
	} else {
		header = append(header, 0x60, 0, 0, 0)
		header = binary.BigEndian.AppendUint16(header, uint16(len(transport)))
		header = append(header, byte(s.Port.Protocol), 64)
		header = append(header, s.From.AsSlice()...)
		header = append(header, s.To.AsSlice()...)
	}
	return append(header, transport...)
}

// checksumOffset returns the offset of the checksum in a TCP or UDP header.
func checksumOffset(p packet.Protocol) int {
	if p == packet.UDP {
		return 6
	}
	return 16
}

// Checksum returns the Internet checksum of RFC 1071.
func Checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
