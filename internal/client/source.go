package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun/v3"
)

// Source says which address of the client a door opens for. The zero Source is the client's
// own address if it is a public one, and otherwise the address that the host sees.
type Source struct {
	Seen bool       // the address that the host sees
	Addr netip.Addr // this address, if it is valid
	STUN string     // the address that this STUN server sees: host or host:port
}

// Towards returns the address to name to a host. It is not valid if the host should take
// the one that it sees.
func (s Source) Towards(ctx context.Context, host netip.Addr) (netip.Addr, error) {
	switch {
	case s.Seen:
		return netip.Addr{}, nil
	case s.Addr.IsValid():
		return s.Addr, nil
	case s.STUN != "":
		return askSTUN(ctx, s.STUN, host.Is4())
	}
	own, err := SourceTowards(ctx, host)
	if err != nil || !IsPublic(own) {
		return netip.Addr{}, err
	}
	return own, nil
}

// notPublic are the networks that the methods of netip.Addr know nothing of: RFC 6598
// (carriers' NAT) and RFC 7335 (translation from IPv6).
var notPublic = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24")}

// IsPublic reports whether other hosts on the internet may see an address as it is.
func IsPublic(a netip.Addr) bool {
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate()
}

// SourceTowards returns the address from which this machine sends to a host.
func SourceTowards(ctx context.Context, host netip.Addr) (netip.Addr, error) {
	// Connecting a UDP socket looks up the route and sends nothing.
	const anyPort = 9
	conn, err := dialUDP(ctx, netip.AddrPort{}, netip.AddrPortFrom(host, anyPort))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("finding this machine's address towards %s: %w", host, reason(err))
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// sendFrom sends one datagram from an address. If the address is not valid, or if this
// machine does not have it, it uses the one that routing chooses.
func sendFrom(ctx context.Context, source netip.Addr, to netip.AddrPort, datagram []byte) error {
	var from netip.AddrPort
	if source.IsValid() && source.Is4() == to.Addr().Is4() { // behind NAT64, a host with an IPv6 address sees an IPv4 source
		// A link-local source is on the link of the host.
		from = netip.AddrPortFrom(source.WithZone(to.Addr().Zone()), 0)
	}
	conn, err := dialUDP(ctx, from, to)
	if errors.Is(err, errNoSuchAddress) {
		conn, err = dialUDP(ctx, netip.AddrPort{}, to)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(datagram)
	return err
}

func dialUDP(ctx context.Context, from, to netip.AddrPort) (*net.UDPConn, error) {
	var dialer net.Dialer
	return dialer.DialUDP(ctx, "udp", from, to)
}

// How often a request to a STUN server is sent, and how long it waits for an answer each
// time. RFC 8489, section 6.2.1, begins with the same time.
const (
	stunTries = 4
	stunWait  = 500 * time.Millisecond
)

// askSTUN returns the address of this machine as a STUN server sees it (RFC 8489).
func askSTUN(ctx context.Context, server string, ipv4 bool) (netip.Addr, error) {
	network, family := "udp6", "ip6"
	if ipv4 {
		network, family = "udp4", "ip4"
	}
	addr, err := askOneSTUN(ctx, server, network)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("asking the STUN server %s for this machine's %s address: %w", server, family, reason(err))
	}
	return addr, nil
}

func askOneSTUN(ctx context.Context, server, network string) (netip.Addr, error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, fmt.Sprint(stun.DefaultPort))
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, server)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.Addr{}, err
	}
	answer := make([]byte, 1500)
	for range stunTries {
		if _, err := conn.Write(request.Raw); err != nil {
			return netip.Addr{}, err
		}
		deadline := time.Now().Add(stunWait)
		if err := conn.SetReadDeadline(deadline); err != nil {
			return netip.Addr{}, err
		}
		for {
			n, err := conn.Read(answer)
			if ctx.Err() != nil {
				return netip.Addr{}, ctx.Err()
			}
			if isTimeout(err) {
				break
			}
			if err != nil {
				return netip.Addr{}, err
			}
			if addr, ok := readSTUN(answer[:n], request.TransactionID); ok {
				return addr, nil
			}
		}
	}
	return netip.Addr{}, errors.New("it does not answer")
}

// readSTUN returns the address in the answer to a request.
func readSTUN(datagram []byte, request [stun.TransactionIDSize]byte) (netip.Addr, bool) {
	m := &stun.Message{Raw: datagram}
	if m.Decode() != nil || m.Type != stun.BindingSuccess || m.TransactionID != request {
		return netip.Addr{}, false
	}
	var seen stun.XORMappedAddress
	if seen.GetFrom(m) != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(seen.IP)
	return addr.Unmap(), ok
}
