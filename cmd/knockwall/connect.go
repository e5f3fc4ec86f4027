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
connection with stdin and stdout, as ssh expects of a ProxyCommand. Each KNOCK
is a port as in "knockwall knock". If the host's name has several addresses,
connect tries them in turn: it knocks, then connects. With --otp-file give one
KNOCK, the UDP port that receives the one-time password: see "knockwall knock
--help".`,
		Example: `  ssh -o ProxyCommand='knockwall connect %h %p 4113 27911/udp 1840' example.org

  # permanently, in ~/.ssh/config:
  Host example.org
      ProxyCommand knockwall connect %h %p 4113 27911/udp 1840

  # with a one-time password:
      ProxyCommand knockwall connect --otp-file ~/.ssh/otp.key %h %p 2000`,
		Args: takes("a HOST, its PORT and at least one KNOCK", 3, math.MaxInt),
	}
	r := reachFlags(c)
	timeout := c.Flags().Duration("timeout", 10*time.Second, "give up on an address after `DURATION`, such as 500ms or 1m")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		to, err := packet.ParsePort(arguments[1])
		if err != nil {
			return usage("%w", err)
		}
		if to.Protocol != packet.TCP {
			return usage("connect is for TCP, and %s is not. Use knock, then the client program of the service", to)
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
