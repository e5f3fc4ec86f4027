package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// Knock sends knocks from one of the client's addresses, back to back.
func (l *Lab) Knock(from, to netip.Addr, ports ...packet.Port) {
	l.T.Helper()
	Must(l.T, l.Client.Do(func() error {
		for _, p := range ports {
			if err := SendKnock(from, to, p); err != nil {
				return fmt.Errorf("knock at %s: %w", p, err)
			}
		}
		return nil
	}))
}

// SendKnock sends one knock from the caller's host.
func SendKnock(from, to netip.Addr, p packet.Port) error {
	kind := unix.SOCK_STREAM
	if p.Protocol == packet.UDP {
		kind = unix.SOCK_DGRAM
	}
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := Bind(fd, from); err != nil {
		return err
	}
	err = unix.Connect(fd, Sockaddr(to, p.Number))
	if p.Protocol == packet.UDP && err == nil {
		_, err = unix.Write(fd, []byte{0})
	}
	if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return err
}

// SendDatagram sends a datagram from one of the client's addresses.
func (l *Lab) SendDatagram(from, to netip.Addr, port uint16, data string) {
	l.T.Helper()
	Must(l.T, l.Client.Do(func() error { return SendData(from, to, port, data) }))
}

// SendData sends a datagram from the caller's host.
func SendData(from, to netip.Addr, port uint16, data string) error {
	fd, err := BoundSocket(from, to, unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte(data), 0, Sockaddr(to, port))
}

// Send sends forged segments from the client, back to back. All have the same address
// family.
func (l *Lab) Send(segments ...forge.Segment) {
	l.T.Helper()
	if len(segments) == 0 {
		return
	}
	socket := l.RawSocket(segments[0].To)
	defer unix.Close(socket)
	for _, s := range segments {
		Must(l.T, s.Send(socket))
	}
}

// RawSocket opens a socket of the client for packets with their own IP header. The caller
// closes it.
func (l *Lab) RawSocket(to netip.Addr) (fd int) {
	l.T.Helper()
	Must(l.T, l.Client.Do(func() (err error) {
		fd, err = forge.RawSocket(to)
		return err
	}))
	return fd
}

// BoundSocket makes a blocking socket on the caller's host, and binds it to one of the
// client's addresses. Deadline is its time limit for sending and receiving. kind is
// SOCK_STREAM or SOCK_DGRAM.
func BoundSocket(from, to netip.Addr, kind int) (int, error) {
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	timeout := unix.NsecToTimeval(int64(Deadline))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &timeout); err != nil {
			return 0, errors.Join(err, unix.Close(fd))
		}
	}
	if err := Bind(fd, from); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Bind binds a socket to one of the client's many addresses, with the port that was unused
// for longest. A route makes the addresses local, although no interface has them. The
// kernel would choose a random port, and so soon the port of a connection that was reset.
// If that RST was lost, the server treats the new SYN as part of the old connection, and
// the client must retransmit it.
func Bind(fd int, from netip.Addr) error {
	if err := Freebind(fd, from); err != nil {
		return err
	}
	for {
		port := firstPort + uint16(lastPort.Add(1)%(1<<16-firstPort))
		if err := unix.Bind(fd, Sockaddr(from, port)); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
}

const firstPort = 1024 // of clients

var lastPort atomic.Uint32

// Freebind lets a socket be bound to an address that no interface has.
func Freebind(fd int, from netip.Addr) error {
	if from.Is4() {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
}

// Sockaddr returns an address and a port as package unix takes them.
func Sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

// ConnectSocket connects a blocking socket. It continues after a signal: Go's scheduler
// sends signals, and then a socket with a time limit returns EINTR.
func ConnectSocket(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	for errors.Is(err, unix.EINTR) {
		err = unix.Connect(fd, to) // waits for the same connection
	}
	if errors.Is(err, unix.EISCONN) {
		return nil
	}
	return err
}

// Receive receives from a blocking socket. It continues after a signal.
func Receive(fd int, b []byte) (n int, err error) {
	for {
		n, _, err = unix.Recvfrom(fd, b, 0)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
