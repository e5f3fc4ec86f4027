package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/knockwall/knockwall/internal/otp"
)

// SendOTP sends a one-time password (package otp), made of key for the minute of
// now, to a UDP port of a host. Source is the address that the host sees: behind
// NAT not one of this machine's, else the one that the datagram is sent from. If it
// is not valid, it is what [SourceTowards] returns. Nothing is waited for. The error
// says that the password could not be sent.
func SendOTP(ctx context.Context, host netip.Addr, port uint16, key []byte, source netip.Addr, now time.Time) error {
	if !source.IsValid() {
		var err error
		if source, err = SourceTowards(ctx, host); err != nil {
			return err
		}
	}
	if err := sendFrom(ctx, source.Unmap(), netip.AddrPortFrom(host, port), otp.Datagram(key, source, now)); err != nil {
		return fmt.Errorf("sending a one-time password to %d/udp of %s: %w", port, host, err)
	}
	return nil
}

// SourceTowards returns the address that this machine uses towards a host.
func SourceTowards(ctx context.Context, host netip.Addr) (netip.Addr, error) {
	// To connect a UDP socket is to ask for the route: nothing is sent.
	const anyPort = 9
	conn, err := dialUDP(ctx, netip.AddrPort{}, netip.AddrPortFrom(host, anyPort))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("finding this machine's address towards %s: %w", host, err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// sendFrom sends one datagram from an address, if that is one of this machine's, and
// from where routing says if not.
func sendFrom(ctx context.Context, source netip.Addr, to netip.AddrPort, datagram []byte) error {
	var from netip.AddrPort
	if source.Is4() == to.Addr().Is4() { // behind NAT64, a host with an IPv6 address sees an IPv4 one
		// Link-local addresses are of a link, which is the one that the host is on.
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
