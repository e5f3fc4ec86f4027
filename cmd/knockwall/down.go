//go:build linux && !client

package main

import (
	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/takedown"
)

func downCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "down",
		Short: "Take the wall down, whether a daemon runs or not",
		Long: `down takes the wall down: every port answers again as it would without
knockwall. A daemon that listens at --control removes its wall itself, and ends.
If no daemon runs, down removes the tables that daemons have left. This needs
root, or the capability CAP_NET_ADMIN. down needs no rule files.

If systemd listens at the control socket, it would start the daemon, and so put
the wall up again, when the next client connects there. So down, as root, also
stops the socket unit. The wall returns with systemctl start knockwall, and at
the next boot.`,
		Example: `  sudo knockwall down`,
		Args:    noArguments,
	}
	path := controlFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return takedown.Run(c.Context(), c.OutOrStdout(), *path) }
	return c
}
