// Package client knocks at a host, and connects to it: with sequences of ports, signed
// datagrams and one-time passwords.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// Resolve returns the addresses of a host, those first that this machine prefers (RFC 6724).
// host is a name or an address, which may have a zone or be in brackets: [fe80::1%eth0].
// network is "ip", "ip4" or "ip6".
func Resolve(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if within, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(within, "]") {
		host = strings.TrimSuffix(within, "]")
	}
	addr, err := netip.ParseAddr(host)
	switch isLinkLocal := err == nil && addr.Is6() && addr.IsLinkLocalUnicast(); {
	case isLinkLocal && addr.Zone() == "":
		return nil, fmt.Errorf("%s may be another host on each link: name the interface, as in %[1]s%%eth0", addr)
	case isLinkLocal && network != "ip4":
		if addr, err = onLink(addr); err != nil {
			return nil, err
		}
		return []netip.Addr{addr}, nil // the resolver loses the zone
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, fmt.Errorf("looking up %s: %w", host, reason(err))
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

// onLink returns a link-local address whose zone is the name of an interface of this host. The
// zone may be the interface's index.
func onLink(addr netip.Addr) (netip.Addr, error) {
	link, err := net.InterfaceByName(addr.Zone())
	if index, notNumber := strconv.Atoi(addr.Zone()); err != nil && notNumber == nil {
		link, err = net.InterfaceByIndex(index)
	}
	if err != nil {
		return addr, fmt.Errorf("%s: there is no interface %s here", addr, addr.Zone())
	}
	return addr.WithZone(link.Name), nil
}

// Pace is how fast knocks follow each other.
type Pace struct {
	Pause time.Duration // between two knocks
	// Wait is how long each TCP knock waits for an answer. Some carriers' proxies send a SYN
	// on only as long as the client waits. Zero means not at all.
	Wait time.Duration
}

// Knock sends knocks to the ports of a host in order, and calls said before each. A TCP
// knock is a SYN, and a UDP knock is a datagram with one NUL byte. Knock ignores answers.
// It returns an error if it cannot send a knock.
func Knock(ctx context.Context, host netip.Addr, ports []packet.Port, pace Pace, said func(packet.Port)) error {
	for i, p := range ports {
		if i > 0 && pace.Pause > 0 {
			select {
			case <-time.After(pace.Pause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		said(p)
		var err error
		if p.Protocol == packet.TCP && pace.Wait > 0 {
			err = knockAndWait(ctx, netip.AddrPortFrom(host, p.Number), pace.Wait)
		} else {
			err = knock(host, p)
		}
		if err != nil {
			return fmt.Errorf("knocking at %s of %s: %w", p, host, reason(err))
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

// knockAndWait sends one TCP knock and waits for an answer. A port that does not answer, or
// that refuses, has received the knock.
func knockAndWait(ctx context.Context, to netip.AddrPort, wait time.Duration) error {
	conn, err := dial(ctx, to, wait)
	if err == nil {
		return conn.Close()
	}
	if ctx.Err() == nil && (isTimeout(err) || errors.Is(err, errRefused)) {
		return nil
	}
	return err
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
