package integration

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// segment is a TCP segment without data, or a datagram, that is made by hand.
type segment struct {
	from, to   netip.Addr
	sourcePort uint16
	port       packet.Port
	sequence   uint32
	flags      packet.Flags
}

// send sends raw segments from the client, back to back.
func (l *lab) send(segments ...segment) {
	l.t.Helper()
	must(l.t, l.client.Do(func() error {
		for _, s := range segments {
			if err := s.send(); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (s segment) send() error {
	family := unix.AF_INET
	if s.to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, s.bytes(), 0, sockaddr(s.to, 0))
}

// rawSocket opens a socket for packets that bring their IP header.
func (l *lab) rawSocket(to netip.Addr) (fd int) {
	l.t.Helper()
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	must(l.t, l.client.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}))
	return fd
}

// sendBy sends by such a socket. On a cable, what there is no room for would be
// lost; here it is sent once there is.
func (s segment) sendBy(socket int) error {
	for {
		err := unix.Sendto(socket, s.bytes(), 0, sockaddr(s.to, 0))
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// bytes builds the packet from its IP header on.
func (s segment) bytes() []byte {
	var transport []byte
	transport = binary.BigEndian.AppendUint16(transport, s.sourcePort)
	transport = binary.BigEndian.AppendUint16(transport, s.port.Number)
	checksumAt := 6
	if s.port.Protocol == packet.UDP {
		transport = binary.BigEndian.AppendUint16(transport, 9)
		transport = append(transport, 0, 0, 0)
	} else {
		transport = binary.BigEndian.AppendUint32(transport, s.sequence)
		transport = binary.BigEndian.AppendUint32(transport, 0)
		transport = append(transport, 5<<4, byte(s.flags), 0xfa, 0xf0, 0, 0, 0, 0)
		checksumAt = 16
	}
	var pseudo []byte
	pseudo = append(pseudo, s.from.AsSlice()...)
	pseudo = append(pseudo, s.to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(transport)))
	pseudo = append(pseudo, 0, 0, 0, byte(s.port.Protocol))
	binary.BigEndian.PutUint16(transport[checksumAt:], checksum(append(pseudo, transport...)))

	var header []byte
	if s.to.Is4() {
		header = append(header, 0x45, 0)
		header = binary.BigEndian.AppendUint16(header, uint16(20+len(transport)))
		header = append(header, 0, 0, 0x40, 0, 64, byte(s.port.Protocol), 0, 0)
		header = append(header, s.from.AsSlice()...)
		header = append(header, s.to.AsSlice()...)
		binary.BigEndian.PutUint16(header[10:], checksum(header))
	} else {
		header = append(header, 0x60, 0, 0, 0)
		header = binary.BigEndian.AppendUint16(header, uint16(len(transport)))
		header = append(header, byte(s.port.Protocol), 64)
		header = append(header, s.from.AsSlice()...)
		header = append(header, s.to.AsSlice()...)
	}
	return append(header, transport...)
}

// checksum is the Internet checksum of RFC 1071.
func checksum(b []byte) uint16 {
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
