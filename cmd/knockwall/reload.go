//go:build linux && !client

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

func reloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Put new rule files in force",
		Long: `reload makes the daemon read its rule files again, those that run was started
with, and puts them in force at once. No packet is lost, windows stay open, and
attempts go on. reload says for each door what has changed. If there is an error
in the files, reload reports it, changes nothing, and ends with exit code 2. It
gives the same warnings as check. At a terminal it also warns if you are here by
ssh through a port that is now hidden from you.

With --confirm the new rules are on trial. Type knockwall confirm within the
time, in a connection that you made under the new rules. Otherwise the former
rules return, and a daemon that restarts during the trial or later uses the
former rules. The files do not change: the next reload puts them in force, and
so does a boot that starts the service. At a terminal reload waits for the end
of the trial, and counts down. knockwall revert ends the trial early.`,
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
			watched = newTrial(c, client, *path)
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
		out := c.OutOrStdout()
		fmt.Fprintf(out, "The new rules are in force: %s.\n", printable.Count(reloaded.Doors, "door"))
		writeChanges(out, reloaded)
		if doors := changedAmong(reloaded.Shut, reloaded.Changes); len(doors) > 0 {
			terminal.WriteParagraph(c.ErrOrStderr(), doctor.Lockout(session, doors, "is closed to strangers"))
		}
		if period != "" {
			next := ""
			if reloaded.Next != nil {
				next = unconfirmed[reloaded.Next.Boot]
			}
			terminal.WriteParagraph(out, fmt.Sprintf("Without `%s` the former rules return at %s.%s",
				control.Command(*path, "confirm"), until.Format(time.TimeOnly), next))
		}
		if watched != nil {
			return watched.watch(c.Context(), until)
		}
		return nil
	}
	return c
}

// writeChanges writes what a reload has changed, door by door.
func writeChanges(out io.Writer, r control.Reloaded) {
	if r.Doors == 0 {
		fmt.Fprintln(out, "The rule files have no door, so no port is hidden any more.")
	}
	if len(r.Changes) == 0 {
		fmt.Fprintln(out, "They are the same as before.")
	}
	for _, change := range r.Changes {
		of := "wall"
		if change.Door != "" {
			of = "door " + change.Door
		}
		if change.Kind != ruleset.Changed {
			of += ", " + string(change.Kind)
		}
		of += ":"
		for _, what := range change.What {
			fmt.Fprintf(out, "  %s %s\n", of, what)
			of = strings.Repeat(" ", len(of)) // said once
		}
	}
}

// changedAmong returns those of the doors that a reload has changed, or all of them if it has
// changed what holds for all.
func changedAmong(doors []string, changes []ruleset.Change) (changed []string) {
	for _, door := range doors {
		if slices.ContainsFunc(changes, func(c ruleset.Change) bool { return c.Door == door || c.Door == "" }) {
			changed = append(changed, door)
		}
	}
	return changed
}

// unconfirmed says, after a blank, what comes after a trial that is not confirmed, by what a boot brings.
var unconfirmed = map[control.Rules]string{
	control.Files:  " The files stay as they are: the next reload or boot uses them, a restart of the daemon does not.",
	control.Former: " The files stay as they are: the next reload uses them, a restart of the daemon or a boot does not.",
	control.None: " The files stay as they are: the next reload uses them, a restart of the daemon does not. " +
		"A boot removes the wall until you start the daemon.",
}

// confirmFlag adds the flag --confirm, which every command has that can start a trial.
func confirmFlag(c *cobra.Command) *time.Duration {
	return c.Flags().Duration("confirm", 0, "go back after `TIME`, such as 2m, unless you type knockwall confirm")
}
