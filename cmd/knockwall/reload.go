//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/systemd"
)

func reloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Put new rule files in force",
		Long: `reload has the daemon read its rule files again, those that run was started
with, and puts them in force at once: no packet is lost, windows stay open,
attempts under way go on. If anything is wrong with the files, it says what,
changes nothing, and ends with exit code 2. It warns of what check warns of.

With --confirm the new rules are on trial: unless you type knockwall confirm
within the time, from a connection that you made under them, the former ones
return; a daemon that is started again meanwhile, or later, begins with these.
The files stay as they are: the next reload puts them in force, and so does the
next start of the machine.`,
		Example: `  sudo knockwall reload
  sudo knockwall reload --confirm 2m    # and then, from a new connection:
  sudo knockwall confirm`,
		Args: noArguments,
	}
	path := controlFlag(c)
	confirm := confirmFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		trial := ""
		if c.Flags().Changed("confirm") {
			if err := control.CheckTrial(*confirm); err != nil {
				return usage("--confirm: %w", err)
			}
			trial = confirm.String()
		}
		reloaded, err := control.NewClient(*path).Reload(c.Context(), trial)
		var wrong *control.RulesError
		if errors.As(err, &wrong) {
			fmt.Fprint(systemd.At(c.ErrOrStderr(), systemd.Error), wrong.Diagnostics)
			return &usageError{wrong}
		}
		if err != nil {
			return err
		}
		fmt.Fprint(systemd.At(c.ErrOrStderr(), systemd.Warning), reloaded.Warnings)
		_, err = fmt.Fprintf(c.OutOrStdout(), "The new rules are in force: %s.\n", count(reloaded.Doors, "door"))
		if trial != "" {
			_, err = fmt.Fprintf(c.OutOrStdout(), "The former ones return at %s, unless `knockwall confirm` comes first. The files\n"+
				"stay as they are: the next reload puts them in force, and so does the next start of\n"+
				"the machine.\n",
				time.Now().Add(*confirm).Format(time.TimeOnly))
		}
		return err
	}
	return c
}

// confirmFlag adds the flag of commands whose effect can be tried.
func confirmFlag(c *cobra.Command) *time.Duration {
	return c.Flags().Duration("confirm", 0, "go back after `TIME`, such as 2m, unless knockwall confirm comes")
}
