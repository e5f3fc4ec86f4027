//go:build linux && !client

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
)

func revertCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "revert",
		Short: "End the trial, and put the former rules back",
		Long: `revert ends the trial that run --confirm or reload --confirm has begun, before
its time is up. The rules that were in force before the trial return. If there
was no wall before, the wall goes down, and the daemon ends. The files do not
change.`,
		Example: `  sudo knockwall revert`,
		Args:    noArguments,
	}
	path := controlFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		reverted, err := control.NewClient(*path).Revert(c.Context())
		if err != nil {
			return err
		}
		text := "The former rules are in force again."
		if reverted.Down {
			text = "There was no wall before the trial: it is down, and the daemon has ended."
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), text)
		return err
	}
	return c
}
