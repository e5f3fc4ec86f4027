package main

import (
	"errors"
	"math"
	"net/netip"

	"github.com/spf13/cobra"
)

func knockCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "knock [flags] HOST [PORT[:PROTO|/PROTO]...]",
		Short: "Knock at a host: send its sequence",
		Long: `knock sends one knock after the other, each a SYN to a TCP port or a datagram to
a UDP port. It waits for no answer. Its exit code is 0 if all knocks were sent
to an address. To see whether a door has opened, connect.

If the host's name has addresses of IPv6 and of IPv4, knock knocks at those of
one version: the one that ssh would try first (RFC 6724), or with -4 or -6 the
one that you name. So a wrong knock is not held against your address of the
other version. knock takes the other only if it can send nothing to the first.
If the first leads nowhere, use connect, which tries both.

A PORT is TCP unless it says otherwise: 27911/udp, or 27911:udp as in knockd's
client. The other flags are those of knockd's client too.

Without a PORT, knock does as the hosts file says, ~/.config/knockwall/hosts.hcl
or /etc/knockwall/hosts.hcl:

  host "server.example.org" "*.lab" {   # as Host in ssh_config; the first fits
    identity = "kw1:..."                # of the host: a knock signed by ssh key
    door     = "ssh"
    key      = "~/.ssh/id_ed25519.pub"  # default: the keys of the ssh-agent,
                                        # else the first key file
    source   = "auto"                   # own address if public, else "seen"; or
                                        # an address, or "stun:HOST"
    address  = "203.0.113.7"            # default: the name of the host
    port     = "62201/udp"              # the default
  }
  host "old.example.org" { knock = [4113, "27911/udp", 1840] }
  host "spa.example.org" {              # a host with fwknopd, or with fwknop
    fwknop {                            # blocks in its rule files
      key      = file("/home/alice/.fwknop.key")   # KEY_BASE64
      hmac_key = file("/home/alice/.fwknop.hmac")  # HMAC_KEY_BASE64
      access   = [22]                   # more: hmac, user, port, timeout
    }
  }

Instead of knock, a block can have rolling, otp or one_time_sequences, as a door
of a rule file has them. "knockwall join" writes a block from an invitation.

With --otp-file, knock sends one datagram to the one PORT, by UDP: a one-time
password as xt_pknock takes it. The password is computed from the secret in that
file, the client's address and the time. It is good once, and within its minute
by the clocks of both hosts. Behind NAT, give the public address, which the host
sees, with --otp-source.`,
		Example: `  knockwall knock server.example.org && ssh server.example.org
  knockwall knock example.org 4113 27911:udp 1840 && ssh example.org
  knockwall knock -6 -v -d 50 example.org 4113 27911/udp 1840
  knockwall knock -u 192.0.2.1 4113 27911 1840
  knockwall knock --otp-file otp.key example.org 2000
  knockwall knock --otp-file otp.key --otp-source 198.51.100.7 example.org 2000`,
		Args:              takes("a HOST, and its knocks unless the hosts file has them", 1, math.MaxInt),
		ValidArgsFunction: completeHosts,
	}
	r := reachFlags(c)
	c.Flags().BoolVarP(&r.verbose, "verbose", "v", false, "print each knock when it is sent")
	c.Flags().BoolVar(&r.close, "close", false, "ask the host to close the door again, where it takes signed knocks or passwords")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		t := r.tell(c.OutOrStdout())
		w, err := r.way(c, arguments[0], arguments[1:], t)
		if err != nil {
			return err
		}
		defer w.release()
		addrs, err := w.resolve(c.Context(), r, t)
		if err != nil {
			return err
		}
		if err := knockVersion(addrs, func(addr netip.Addr) error {
			err := w.knock(c.Context(), addr)
			if err != nil {
				t.say("%v", err)
			}
			return err
		}); err != nil {
			return err
		}
		return w.used()
	}
	return c
}

// knockVersion knocks at all addresses of the version of IP that the first one has, as programs
// connect to these first (RFC 6724). A host that hears a wrong knock traps its source, and a
// client has another source for each version: so the other version is knocked at only if no
// knock could be sent to the first.
func knockVersion(addrs []netip.Addr, knock func(netip.Addr) error) error {
	var failures []error
	for _, isFirst := range []bool{true, false} {
		sent := false
		for _, addr := range addrs {
			if (addr.Is4() == addrs[0].Is4()) != isFirst {
				continue
			}
			if err := knock(addr); err != nil {
				failures = append(failures, err)
			} else {
				sent = true
			}
		}
		if sent {
			return nil
		}
	}
	return errors.Join(failures...)
}
