package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
)

// password are the flags of a one-time password.
type password struct {
	isWanted bool
	file     string     // with its secret
	source   netip.Addr // whose password it is; not valid where it is that of this machine
}

func (p *password) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&p.file, "otp-file", "", "send one one-time password, made of the secret in this `FILE`")
	c.Flags().TextVar(&p.source, "otp-source", netip.Addr{}, "the `ADDRESS` that it is for: the one that the host sees")
}

// check completes the flags, once they are set, and says what is wrong with them.
func (p *password) check(c *cobra.Command) error {
	p.isWanted = c.Flags().Changed("otp-file")
	p.source = p.source.Unmap()
	source := c.Flags().Lookup("otp-source")
	switch {
	case !source.Changed:
	case !p.isWanted:
		return usage("--otp-source is for a one-time password: name the file with its secret by --otp-file, too")
	case !p.source.IsValid() || p.source.IsUnspecified() || p.source.IsMulticast():
		return usage("--otp-source takes the ADDRESS that the host sees, and not %q", source.Value)
	}
	return nil
}

// sender returns what sends a password to an address, at the one port of arguments,
// and writes to said that it does.
func (p *password) sender(ctx context.Context, arguments []string, said io.Writer) (func(netip.Addr) error, error) {
	if len(arguments) != 1 {
		return nil, usage("a one-time password is sent to one port, and there are %d", len(arguments))
	}
	port, err := packet.ParsePort(arguments[0])
	if err != nil {
		return nil, usage("%w", err)
	}
	if saysNoProtocol(arguments[0]) {
		port.Protocol = packet.UDP
	}
	if port.Protocol != packet.UDP {
		return nil, usage("a one-time password is sent by UDP: write %d or %[1]d/udp, and not %s", port.Number, arguments[0])
	}
	key, err := secret.ReadFile(p.file)
	if err != nil {
		return nil, usage("%w", err)
	}
	if len(key.Key()) > otp.MaxSecret {
		return nil, usage("the secret in %s has more than %d bytes, the most that one-time passwords are made of: choose a shorter one, there and at the host",
			p.file, otp.MaxSecret)
	}
	return func(addr netip.Addr) error {
		source := p.source
		if !source.IsValid() {
			var err error
			if source, err = client.SourceTowards(ctx, addr); err != nil {
				return err
			}
		}
		fmt.Fprintf(said, "sending a one-time password to %s of %s, for source %s\n", port, addr, source)
		return client.SendOTP(ctx, addr, port.Number, key.Key(), source, time.Now())
	}, nil
}
