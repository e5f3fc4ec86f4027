//go:build linux && !client

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/systemd"
)

func reloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Put new rule files in force",
		Long: `reload makes the daemon read its rule files again, those that run was started
with, and puts them in force at once. No packet is lost, windows stay open, and
attempts go on. If there is an error in the files, reload reports it, changes
nothing, and ends with exit code 2. It gives the same warnings as check. At a
terminal it also warns if you are here by ssh through a port that is now hidden
from you.

With --confirm the new rules are on trial. Type knockwall confirm within the
time, in a connection that you made under the new rules. Otherwise the former
rules return, and a daemon that restarts during the trial or later uses the
former rules. The files do not change: the next reload or boot puts them in
force. At a terminal reload waits for the end of the trial, and counts down.
knockwall revert ends the trial early.`,
		Example: `  sudo knockwall reload
  sudo knockwall reload --confirm 2m    # and then, from a new connection:
  sudo knockwall confirm`,
		Args: noArguments,
	}
	path := controlFlag(c)
	confirm := confirmFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		period := ""
		if c.Flags().Changed("confirm") {
			if err := control.CheckTrial(*confirm); err != nil {
				return usage("--confirm: %w", err)
			}
			period = confirm.String()
		}
		client := control.NewClient(*path)
		session, _ := host.Session()
		if _, is := terminal.Width(c.ErrOrStderr()); is {
			client.Session = session
		}
		var watched *trial
		if period != "" {
			watched = newTrial(c, client)
		}
		reloaded, err := client.Reload(c.Context(), period)
		var wrong *control.RulesError
		if errors.As(err, &wrong) {
			fmt.Fprint(systemd.At(c.ErrOrStderr(), systemd.Error), wrong.Diagnostics)
			return &usageError{wrong}
		}
		if err != nil {
			return err
		}
		until := time.Now().Add(*confirm)
		fmt.Fprint(systemd.At(c.ErrOrStderr(), systemd.Warning), reloaded.Warnings)
		_, err = fmt.Fprintf(c.OutOrStdout(), "The new rules are in force: %s.\n", printable.Count(reloaded.Doors, "door"))
		if len(reloaded.Shut) > 0 {
			text := doctor.Lockout(session, reloaded.Shut, "is closed now")
			columns, _ := terminal.Width(c.ErrOrStderr())
			fmt.Fprintln(c.ErrOrStderr(), strings.Join(printable.Wrap(text, int(columns)), "\n"))
		}
		if period != "" {
			_, err = fmt.Fprintf(c.OutOrStdout(), "The former rules return at %s, unless you type `knockwall confirm` first.\n"+
				"The files do not change: the next reload or boot puts them in force.\n",
				until.Format(time.TimeOnly))
		}
		if watched != nil {
			return watched.watch(c.Context(), until)
		}
		return err
	}
	return c
}

// confirmFlag adds the flag --confirm, which every command has that can start a trial.
func confirmFlag(c *cobra.Command) *time.Duration {
	return c.Flags().Duration("confirm", 0, "go back after `TIME`, such as 2m, unless you type knockwall confirm")
}
