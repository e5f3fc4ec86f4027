//go:build linux && !client

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/systemd"
)

func confirmCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "confirm",
		Short: "Keep the rules that are on trial",
		Long: `confirm ends the trial that run --confirm or reload --confirm has begun. The
rules in force stay. Type it in a connection that you made after the trial
began: then you know that you can get in.`,
		Example: `  sudo knockwall confirm`,
		Args:    noArguments,
	}
	path := controlFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		confirmed, err := control.NewClient(*path).Confirm(c.Context())
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		fmt.Fprintln(out, "The rules stay in force.")
		next := "The next restart of the daemon reads the rule files, and so does a boot that starts it."
		if confirmed.Next.Boot == control.None {
			next = "The next restart of the daemon reads the rule files. A boot removes the wall until\n" +
				"the daemon is started again."
			if systemd.HasUnit("knockwall.service") {
				next += " `systemctl enable knockwall` lets the service do that."
			}
		}
		fmt.Fprintln(out, next)
		if confirmed.FilesDiffer {
			fmt.Fprintln(out, "The files have changed since the reload, and were not on trial as they are now.")
		}
		return nil
	}
	return c
}
