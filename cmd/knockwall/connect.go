package main

import (
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/packet"
)

func connectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "connect [flags] HOST PORT KNOCK...",
		Short: "Knock and connect: an ssh ProxyCommand",
		Long: `connect knocks at a host, connects to its TCP port PORT, and joins the
connection with stdin and stdout: what ssh wants of a ProxyCommand. Each KNOCK
is a port as in "knockwall knock". If the host's name has several addresses,
they are tried in turn: knocked at, then connected to. With --otp-file, the one
KNOCK is the UDP port that a one-time password is sent to: see "knockwall knock
--help".`,
		Example: `  ssh -o ProxyCommand='knockwall connect %h %p 4113 27911/udp 1840' example.org

  # in ~/.ssh/config, for good:
  Host example.org
      ProxyCommand knockwall connect %h %p 4113 27911/udp 1840

  # with a one-time password:
      ProxyCommand knockwall connect --otp-file ~/.ssh/otp.key %h %p 2000`,
		Args: takes("a HOST, its PORT and at least one KNOCK", 3, math.MaxInt),
	}
	r := reachFlags(c)
	timeout := c.Flags().Duration("timeout", 10*time.Second, "give up on an address after `DURATION`, as 500ms or 1m")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		to, err := packet.ParsePort(arguments[1])
		if err != nil {
			return usage("%w", err)
		}
		if to.Protocol != packet.TCP {
			return usage("connect is for TCP, and %s is not. Use knock, and what the service is used with", to)
		}
		knock, err := r.knocker(c.Context(), arguments[2:], io.Discard)
		if err != nil {
			return err
		}
		addrs, err := client.Resolve(c.Context(), r.network(), arguments[0])
		if err != nil {
			return err
		}
		conn, err := client.Connect(c.Context(), addrs, to.Number, knock, *timeout)
		if err != nil {
			return err
		}
		defer conn.Close()
		return client.Join(conn, c.InOrStdin(), c.OutOrStdout())
	}
	return c
}
