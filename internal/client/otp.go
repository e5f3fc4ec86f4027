package client

import (
	"context"
	"fmt"
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
		return fmt.Errorf("sending a one-time password to %d/udp of %s: %w", port, host, reason(err))
	}
	return nil
}
