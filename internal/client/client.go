// Package client sends knocks and one-time passwords, and connects.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// Resolve returns the addresses of a host. network is "ip", "ip4" or "ip6".
func Resolve(ctx context.Context, network, host string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return nil, fmt.Errorf("looking up %s: %s", host, dns.Err) // dns.Err repeats no name, unlike err
	}
	if err != nil {
		return nil, fmt.Errorf("looking up %s: %w", host, err)
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

// Knock sends knocks to the ports of a host in order, with a pause between them, and
// calls said before each. A TCP knock is a SYN, and a UDP knock is a datagram with one
// NUL byte. Knock does not wait for answers and ignores them. It returns an error if it
// cannot send a knock.
func Knock(ctx context.Context, host netip.Addr, ports []packet.Port, pause time.Duration, said func(packet.Port)) error {
	for i, p := range ports {
		if i > 0 && pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		said(p)
		if err := knock(host, p); err != nil {
			return fmt.Errorf("knocking at %s of %s: %w", p, host, err)
		}
	}
	return nil
}

// knock sends one knock with system calls: net.Dial would wait for the answer.
func knock(host netip.Addr, p packet.Port) error {
	kind := syscall.SOCK_STREAM
	if p.Protocol == packet.UDP {
		kind = syscall.SOCK_DGRAM
	}
	family, to, err := socketAddress(host, p.Number)
	if err != nil {
		return err
	}
	fd, err := openSocket(family, kind)
	if err != nil {
		return err
	}
	defer closeSocket(fd)
	if p.Protocol == packet.UDP {
		return syscall.Sendto(fd, []byte{0}, 0, to)
	}
	// connect returns after it has sent the SYN. Closing the socket prevents
	// retransmissions. A refusal means that the port is closed; the host has received the
	// knock.
	if err := syscall.Connect(fd, to); !errors.Is(err, errInProgress) && !errors.Is(err, errRefused) {
		return err
	}
	return nil
}

func socketAddress(host netip.Addr, port uint16) (int, syscall.Sockaddr, error) {
	if host.Is4() {
		return syscall.AF_INET, &syscall.SockaddrInet4{Port: int(port), Addr: host.As4()}, nil
	}
	to := &syscall.SockaddrInet6{Port: int(port), Addr: host.As16()}
	if zone := host.Zone(); zone != "" {
		link, err := net.InterfaceByName(zone)
		if err != nil {
			return 0, nil, err
		}
		to.ZoneId = uint32(link.Index)
	}
	return syscall.AF_INET6, to, nil
}

// settle is how long Connect gives a host that refused the connection to act on the
// knocks.
const settle = 100 * time.Millisecond

// Connect calls knock with each of a host's addresses in turn and then connects to the
// TCP port, until a connection succeeds. Each connection may take the timeout. A SYN can
// overtake its knocks on the way, and a door that rejects strangers then rejects it. So
// Connect tries a refused connection once more.
func Connect(ctx context.Context, host []netip.Addr, port uint16, knock func(netip.Addr) error, timeout time.Duration) (*net.TCPConn, error) {
	var failures []error
	for _, addr := range host {
		err := knock(addr)
		if err == nil {
			var conn *net.TCPConn
			conn, err = dial(ctx, netip.AddrPortFrom(addr, port), timeout)
			if errors.Is(err, errRefused) {
				select {
				case <-time.After(settle):
					conn, err = dial(ctx, netip.AddrPortFrom(addr, port), timeout)
				case <-ctx.Done():
				}
			}
			if err == nil {
				return conn, nil
			}
			err = fmt.Errorf("connecting after the knocks: %w", err)
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

func dial(ctx context.Context, to netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: timeout}
	return dialer.DialTCP(ctx, "tcp", netip.AddrPort{}, to)
}

// Join copies in to the connection, and the connection to out, until the other side
// closes the connection. At the end of in, it closes the connection for writing.
func Join(conn *net.TCPConn, in io.Reader, out io.Writer) error {
	go func() {
		// If sending fails, reading from the connection ends.
		_, _ = io.Copy(conn, in)
		_ = conn.CloseWrite()
	}()
	if _, err := io.Copy(out, conn); err != nil {
		return fmt.Errorf("reading from %s: %w", conn.RemoteAddr(), err)
	}
	return nil
}
