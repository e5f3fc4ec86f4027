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

// SendOTP sends a one-time password (package otp) to a UDP port of a host. It makes the
// password from key for the minute of now. source is the address that the host sees:
// behind NAT an address outside this machine, else the one that sends the datagram. If
// source is not valid, SendOTP uses the result of [SourceTowards]. It does not wait for
// an answer. It returns an error if it cannot send the password.
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

// SourceTowards returns the address from which this machine sends to a host.
func SourceTowards(ctx context.Context, host netip.Addr) (netip.Addr, error) {
	// Connecting a UDP socket looks up the route and sends nothing.
	const anyPort = 9
	conn, err := dialUDP(ctx, netip.AddrPort{}, netip.AddrPortFrom(host, anyPort))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("finding this machine's address towards %s: %w", host, err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// sendFrom sends one datagram from an address. If this machine does not have the address,
// it uses the one that routing chooses.
func sendFrom(ctx context.Context, source netip.Addr, to netip.AddrPort, datagram []byte) error {
	var from netip.AddrPort
	if source.Is4() == to.Addr().Is4() { // behind NAT64, a host with an IPv6 address sees an IPv4 source
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
