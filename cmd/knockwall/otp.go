package main

import (
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
)

// password has the flags for a one-time password.
type password struct {
	isWanted bool
	file     string     // with the secret
	source   netip.Addr // the address that it is for; not valid: this machine's own
}

func (p *password) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&p.file, "otp-file", "", "send a one-time password, computed from the secret in `FILE`")
	c.Flags().TextVar(&p.source, "otp-source", netip.Addr{}, "the client's `ADDRESS` as the host sees it")
}

// check completes the flags after they are parsed, and returns an error if they are wrong.
func (p *password) check(c *cobra.Command) error {
	p.isWanted = c.Flags().Changed("otp-file")
	p.source = p.source.Unmap()
	source := c.Flags().Lookup("otp-source")
	switch {
	case !source.Changed:
	case !p.isWanted:
		return usage("--otp-source is for one-time passwords: name the file with the secret by --otp-file")
	case !p.source.IsValid() || p.source.IsUnspecified() || p.source.IsMulticast():
		return usage("--otp-source takes the ADDRESS that the host sees, and not %q", source.Value)
	}
	return nil
}

// port parses the port that receives the password.
func (p *password) port(arguments []string) (packet.Port, error) {
	if len(arguments) != 1 {
		return packet.Port{}, usage("a one-time password is sent to one port, not to %d", len(arguments))
	}
	port, err := packet.ParsePort(arguments[0])
	if err != nil {
		return packet.Port{}, usage("%w", err)
	}
	if saysNoProtocol(arguments[0]) {
		port.Protocol = packet.UDP
	}
	if port.Protocol != packet.UDP {
		return packet.Port{}, usage("a one-time password is sent by UDP: write %d or %[1]d/udp, and not %s", port.Number, arguments[0])
	}
	return port, nil
}

// key reads the secret.
func (p *password) key() (secret.Secret, error) {
	key, err := secret.ReadFile(p.file)
	if err != nil {
		return key, usage("%w", err)
	}
	if len(key.Key()) > otp.MaxSecret {
		return key, usage("the secret in %s has more than %d bytes, the maximum for one-time passwords: choose a shorter one here and on the host",
			p.file, otp.MaxSecret)
	}
	return key, nil
}
