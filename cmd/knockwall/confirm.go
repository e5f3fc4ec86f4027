//go:build linux && !client

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
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
		if err := control.NewClient(*path).Confirm(c.Context()); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.OutOrStdout(), "The rules stay in force.")
		return err
	}
	return c
}
