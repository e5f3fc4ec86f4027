//go:build linux && !client

package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/daemon"
)

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Install the wall and run the daemon",
		Long: `run is the daemon. It installs the wall that the rule files describe, and
opens and closes its doors until SIGTERM or SIGINT (Ctrl-C) stops it; a second
signal ends it at once. It needs root, or the capability CAP_NET_ADMIN.
Established connections go on, whatever happens to the wall. Each event at the
doors is a line on stderr.

The package runs it as a service. With the package, put up the wall by systemctl
start knockwall.

When run ends, the wall stays: open windows admit until they expire, and all
other sources are refused. With on_stop = "remove" in the rule files, run
removes the wall when it ends. To remove the wall yourself: knockwall down.

With --confirm the wall is on trial: run removes it again unless you type
knockwall confirm within the time, from a connection that you made through the
wall. Always install the first wall on a remote machine this way. If a wall is
already installed, start without --confirm, and try new rules with reload
--confirm.`,
		Example: `  sudo knockwall run --config ssh.hcl --confirm 2m
  sudo knockwall run    # every *.hcl in /etc/knockwall.d`,
		Args: noArguments,
	}
	config := configFlag(c)
	path := controlFlag(c)
	confirm := confirmFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().Changed("confirm") {
			if err := control.CheckTrial(*confirm); err != nil {
				return usage("--confirm: %w", err)
			}
		}
		err := daemon.Run(c.Context(), daemon.Options{Config: *config, Control: *path, Confirm: *confirm, Stderr: c.ErrOrStderr()})
		if _, ok := errors.AsType[*daemon.RulesError](err); ok {
			return &usageError{errSaid}
		}
		if err != nil {
			return errSaid
		}
		return nil
	}
	return c
}
