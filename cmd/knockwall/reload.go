//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/systemd"
)

func reloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Put new rule files in force",
		Long: `reload makes the daemon read its rule files again, those that run was started
with, and puts them in force at once. No packet is lost, windows stay open, and
attempts go on. If there is an error in the files, reload reports it, changes
nothing, and ends with exit code 2. It gives the same warnings as check.

With --confirm the new rules are on trial. Type knockwall confirm within the
time, in a connection that you made under the new rules. Otherwise the former
rules return, and a daemon that restarts during the trial or later uses the
former rules. The files do not change: the next reload or boot puts them in
force.`,
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
		_, err = fmt.Fprintf(c.OutOrStdout(), "The new rules are in force: %s.\n", printable.Count(reloaded.Doors, "door"))
		if trial != "" {
			_, err = fmt.Fprintf(c.OutOrStdout(), "The former rules return at %s, unless you type `knockwall confirm` first.\n"+
				"The files do not change: the next reload or boot puts them in force.\n",
				time.Now().Add(*confirm).Format(time.TimeOnly))
		}
		return err
	}
	return c
}

// confirmFlag adds the flag --confirm, which every command has that can start a trial.
func confirmFlag(c *cobra.Command) *time.Duration {
	return c.Flags().Duration("confirm", 0, "go back after `TIME`, such as 2m, unless you type knockwall confirm")
}
