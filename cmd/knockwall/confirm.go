//go:build linux && !client

package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/systemd"
)

func confirmCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "confirm",
		Short: "Keep the rules that are on trial",
		Long: `confirm ends the trial that run --confirm or reload --confirm has begun. The
rules in force stay. Type it in a connection that you made after the trial
began: then you know that you can get in. If you come by ssh from a trusted
address, confirm says that this does not show that the knocks work.`,
		Example: `  sudo knockwall confirm`,
		Args:    noArguments,
	}
	path := controlFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client := control.NewClient(*path)
		confirmed, err := client.Confirm(c.Context())
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		fmt.Fprintln(out, "The rules stay in force.")
		next := "A restart of the daemon, or a boot that starts it, reads the rule files anew."
		if confirmed.Next.Boot == control.None {
			next = "A restart of the daemon reads the rule files anew. A boot removes the wall until " +
				"the daemon is started again."
			if systemd.HasUnit("knockwall.service") {
				next += " `systemctl enable knockwall` lets the service do that."
			}
		}
		terminal.WriteParagraph(out, next)
		if confirmed.FilesDiffer {
			fmt.Fprintln(out, "The files have changed since the reload, and were not on trial as they are now.")
		}
		from, through := ownSession(c.Context(), client)
		if slices.ContainsFunc(through, func(e wall.Explanation) bool { return e.Reason == wall.Trusted }) {
			fmt.Fprintf(out, "You come from %s, which is trusted: this does not show that the knocks work.\n", from)
		}
		return nil
	}
	return c
}

// ownSession returns the address that the caller's ssh session comes from, and what the daemon
// says of it at each door that the session came through. There is nothing without a session from
// another host, or if the daemon does not answer: this is only for hints.
func ownSession(ctx context.Context, client *control.Client) (from netip.Addr, through []wall.Explanation) {
	session, ok := host.Session()
	from = session.Client.Addr()
	if !ok || from.IsLoopback() {
		return from, nil
	}
	port := packet.Port{Number: session.Server.Port(), Protocol: packet.TCP}
	status, _ := client.Status(ctx, wall.WindowQuery{Limit: 1})
	all, _ := client.Explain(ctx, from.String())
	for _, d := range status.Doors {
		for _, e := range all {
			if e.Door == d.Name && packet.InRanges(port, d.Ports) {
				through = append(through, e)
			}
		}
	}
	return from, through
}
