package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/packet"
)

// reach has the flags of every command that knocks.
type reach struct {
	ipv4, ipv6, udp bool
	pause           time.Duration
	password        password // sent instead of knocks, if wanted
}

func reachFlags(c *cobra.Command) *reach {
	r := &reach{}
	c.Flags().BoolVarP(&r.ipv4, "ipv4", "4", false, "use the host's IPv4 addresses only")
	c.Flags().BoolVarP(&r.ipv6, "ipv6", "6", false, "use the host's IPv6 addresses only")
	c.Flags().BoolVarP(&r.udp, "udp", "u", false, "knock by UDP at ports without a protocol")
	// 32 bits, as more milliseconds could overflow a time.Duration.
	milliseconds := c.Flags().Uint32P("delay", "d", 0, "`MILLISECONDS` between two knocks")
	r.password.addFlags(c)
	c.PreRunE = func(*cobra.Command, []string) error {
		if r.ipv4 && r.ipv6 {
			return usage("-4 and -6 exclude each other: leave both out to use what the host has")
		}
		r.pause = time.Duration(*milliseconds) * time.Millisecond
		return r.password.check(c)
	}
	return r
}

func (r *reach) network() string {
	switch {
	case r.ipv4:
		return "ip4"
	case r.ipv6:
		return "ip6"
	case r.password.source.IsValid():
		// The password goes over the protocol of its source address. Behind NAT64 that is
		// wrong, and the user needs -6.
		if r.password.source.Is4() {
			return "ip4"
		}
		return "ip6"
	}
	return "ip"
}

// knocker returns a function that knocks at an address. The arguments are ports as knock
// takes them. It writes each knock to said.
func (r *reach) knocker(ctx context.Context, arguments []string, said io.Writer) (func(netip.Addr) error, error) {
	if r.password.isWanted {
		return r.password.sender(ctx, arguments, said)
	}
	ports, err := r.ports(arguments)
	if err != nil {
		return nil, err
	}
	return func(addr netip.Addr) error {
		return client.Knock(ctx, addr, ports, r.pause, func(p packet.Port) {
			fmt.Fprintf(said, "knocking at %s of %s\n", p, addr)
		})
	}, nil
}

// ports parses knocks as knockd's client knock has them, 7000 or 7000:udp, and as rule
// files have them, 7000/udp.
func (r *reach) ports(arguments []string) ([]packet.Port, error) {
	var ports []packet.Port
	for _, a := range arguments {
		p, err := packet.ParsePort(a)
		if err != nil {
			return nil, usage("%w", err)
		}
		if r.udp && saysNoProtocol(a) {
			p.Protocol = packet.UDP
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func saysNoProtocol(port string) bool { return !strings.ContainsAny(port, ":/") }

func knockCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "knock [flags] HOST PORT[:PROTO|/PROTO]...",
		Short: "Knock at a host: send its sequence",
		Long: `knock sends one knock after the other, each a SYN to a TCP port or a datagram to
a UDP port, and waits for no answer. Its exit code is 0 if all knocks were sent.
To see whether a door has opened, connect. If the host's name has several
addresses, knock uses the first one.

A PORT is TCP unless it says otherwise: 27911/udp, or 27911:udp as in knockd's
client. The other flags are those of knockd's client too.

With --otp-file, knock sends one datagram to the one PORT, by UDP: a one-time
password as xt_pknock takes it. The password is computed from the secret in that
file, the client's address and the time. It is good once, and within its minute
by the clocks of both hosts. Behind NAT, give the public address, which the host
sees, with --otp-source.`,
		Example: `  knockwall knock example.org 4113 27911:udp 1840 && ssh example.org
  knockwall knock -6 -v -d 50 example.org 4113 27911/udp 1840
  knockwall knock -u 192.0.2.1 4113 27911 1840
  knockwall knock --otp-file otp.key example.org 2000
  knockwall knock --otp-file otp.key --otp-source 198.51.100.7 example.org 2000`,
		Args: takes("a HOST and at least one PORT", 2, math.MaxInt),
	}
	r := reachFlags(c)
	verbose := c.Flags().BoolP("verbose", "v", false, "print each knock when it is sent")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		said := io.Discard
		if *verbose {
			said = c.OutOrStdout()
		}
		knock, err := r.knocker(c.Context(), arguments[1:], said)
		if err != nil {
			return err
		}
		addrs, err := client.Resolve(c.Context(), r.network(), arguments[0])
		if err != nil {
			return err
		}
		return knock(addrs[0])
	}
	return c
}
