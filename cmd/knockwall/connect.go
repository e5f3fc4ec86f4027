package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
)

func connectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "connect [flags] HOST PORT [KNOCK...]",
		Short: "Knock and connect: an ssh ProxyCommand",
		Long: `connect knocks at a host, connects to its TCP port PORT, and joins the
connection with stdin and stdout, as ssh expects of a ProxyCommand. Each KNOCK
is a port as in "knockwall knock". Without a KNOCK, connect does as the hosts
file says, and HOST is the name there: see "knockwall knock --help". ssh writes
the name that you have typed for %n (from OpenSSH 8.1 on), and for %h the one
that HostName in its configuration gives instead.

If the host's name has several addresses, connect tries IPv6 and IPv4 in turn,
and the next one as soon as one has not answered for a quarter of a second (RFC
8305). It knocks at each address before it connects to it, and once more if the
first try fails. A host does not answer wrong knocks, so they are tried at both
versions, and the host may trap both of your addresses. -4 or -6 knocks at one.

With --otp-file give one KNOCK, the UDP port that receives the one-time
password.`,
		Example: `  ssh -o ProxyCommand='knockwall connect %n %p' server.example.org
  ssh -o ProxyCommand='knockwall connect %h %p 4113 27911/udp 1840' example.org

  # permanently, in ~/.ssh/config:
  Host example.org
      ProxyCommand knockwall connect %n %p

  # with a one-time password:
      ProxyCommand knockwall connect --otp-file ~/.ssh/otp.key %h %p 2000`,
		Args:              takes("a HOST, its PORT, and the knocks unless the hosts file has them", 2, math.MaxInt),
		ValidArgsFunction: completeHosts,
	}
	r := reachFlags(c)
	timeout := c.Flags().Duration("timeout", 10*time.Second, "give up on an address after `DURATION`, such as 500ms or 1m")
	c.Flags().BoolVarP(&r.verbose, "verbose", "v", false, "print each step to stderr")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		to, err := packet.ParsePort(arguments[1])
		if err != nil {
			return usage("%w", err)
		}
		if to.Protocol != packet.TCP {
			return usage("connect is for TCP, and %s is not. Use knock, then the client program of the service", to)
		}
		t := r.tell(c.ErrOrStderr())
		w, err := r.way(c, arguments[0], arguments[2:], t)
		if err != nil {
			return err
		}
		addrs, err := w.resolve(c.Context(), r, t)
		if err != nil {
			w.release()
			return err
		}
		d := client.Dialer{Port: to.Number, Timeout: *timeout, Knock: w.knock, Said: func(step string) { t.say("%s", step) }}
		conn, err := d.Connect(c.Context(), addrs)
		w.release()
		if failed, ok := errors.AsType[*client.ConnectError](err); ok {
			return fmt.Errorf("%w%s", err, w.advice(c.Context(), failed, to))
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := w.used(); err != nil { // the connection is good, but the next knock may not be
			fmt.Fprintf(c.ErrOrStderr(), "knockwall: %v\n", err)
		}
		return client.Join(conn, c.InOrStdin(), c.OutOrStdout())
	}
	return c
}

// advice says what may be wrong if no address could be connected to after knocks, and what
// to type on the host. It is empty if no knock was sent.
func (w *way) advice(ctx context.Context, failed *client.ConnectError, to packet.Port) string {
	var own []string // what to type for the own addresses
	refused := true
	for _, f := range failed.Failures {
		if !f.Knocked {
			continue
		}
		refused = refused && f.IsRefused()
		if from := w.ownTowards(ctx, f.Addr); !slices.Contains(own, from) {
			own = append(own, from)
		}
	}
	if own == nil {
		return ""
	}
	mistakes := slices.Clone(w.mistakes)
	said := "The knocks were sent, and nothing says whether the host heard them. Perhaps"
	if refused {
		said = fmt.Sprintf("Something refused the connection. If the door drops strangers (the default), the knocks were right: nothing listens at %s there, "+
			"or another firewall refuses it, and knockwall opens no other firewall. If the door rejects strangers (closed = \"reject\"), perhaps", to)
	} else {
		mistakes = append(mistakes, fmt.Sprintf("a firewall drops %s: knockwall opens no other firewall", to), "nothing listens there, or the host is down")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n\n%s\n", strings.Join(printable.Wrap(said, terminal.DefaultWidth), "\n"))
	for _, m := range mistakes {
		fmt.Fprintf(&b, "  - %s\n", strings.Join(printable.Wrap(m, 72), "\n    "))
	}
	b.WriteString("The host knows. Where it runs knockwall, type there:")
	for _, from := range own {
		b.WriteString("\n  sudo knockwall explain " + from)
	}
	return b.String()
}

// ownTowards returns the client's address as a host sees it, or what is known of it.
func (w *way) ownTowards(ctx context.Context, host netip.Addr) string {
	own, err := client.SourceTowards(ctx, host)
	switch {
	case w.source.IsValid():
		return w.source.String()
	case err != nil:
		return "YOUR-ADDRESS"
	case client.IsPublic(host) && !client.IsPublic(own):
		return fmt.Sprintf("YOUR-PUBLIC-ADDRESS     (here it is %s)", own)
	case own.Zone() != "":
		return own.WithZone("").String() + "%INTERFACE     (the host's own, on this link)"
	default:
		return own.String()
	}
}
