//go:build !client

package main

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// hostExample has the examples that need a host with doors.
const hostExample = `  knockwall demo                              see it at work; needs no root
  knockwall check --config ssh.hcl            is this rule file right?
  sudo systemctl start knockwall              put up the wall, with the package
  sudo knockwall run --config ssh.hcl         the same, without it
`

// hostCommands returns the commands that need a host with doors.
func hostCommands() []*cobra.Command {
	return []*cobra.Command{
		initCommand(),
		identityCommand(),
		inviteCommand(),
		runCommand(),
		rulesetCommand(),
		statusCommand(),
		eventsCommand(),
		reportCommand(),
		explainCommand(),
		openCommand(),
		closeCommand(),
		reloadCommand(),
		confirmCommand(),
		revertCommand(),
		downCommand(),
		doctorCommand(),
		shareCommand(),
		demoCommand(),
	}
}

// instead says what to type instead of a command that knockwall leaves to others, or returns "".
func instead(command string) string {
	switch command {
	case "start":
		return "there is no command \"start\": type `sudo systemctl start knockwall`, or without the package `sudo knockwall run`"
	case "stop":
		return "there is no command \"stop\": `sudo systemctl stop knockwall` ends the daemon and leaves the wall; `sudo knockwall down` takes the wall down, too"
	case "restart":
		return "there is no command \"restart\": type `sudo systemctl restart knockwall`. Changed rule files need only `sudo knockwall reload`"
	case "uninstall":
		return "there is no command \"uninstall\": remove the package, which takes the wall down: `sudo apt remove knockwall`. Without the package type `sudo knockwall down`"
	}
	return ""
}

// isRefusedRequest reports whether the daemon has rejected a request as wrong.
func isRefusedRequest(err error) bool {
	var request *control.RequestError
	return errors.As(err, &request)
}

// asError returns a writer to stderr that marks lines as errors for the journal.
func asError(stderr io.Writer) io.Writer { return systemd.At(stderr, systemd.Error) }

// hostReport is the report of check about this host.
type hostReport = doctor.Report

// noReport returns an empty report, for rule files that cannot be read.
func noReport() hostReport {
	return hostReport{Findings: []doctor.Finding{}, Unmade: []doctor.Unmade{}}
}

// onReading examines whether doors on this host are what the rule files say, and returns
// the findings as warnings, too.
func onReading(config *ruleset.Config) (hostReport, *ruleset.Loaded) {
	r := doctor.Examine(&doctor.Host{Config: config}, doctor.Reading)
	return r, r.Warnings()
}

// notLookedAt names the checks of the host that could not be made, if any.
func notLookedAt(unmade []doctor.Unmade) string {
	var names []string
	for _, u := range unmade {
		names = append(names, u.Check)
	}
	if len(names) == 0 {
		return ""
	}
	return "; not checked: " + strings.Join(names, ", ")
}

// controlFlag adds the flag --control, which every command has that talks to the daemon.
func controlFlag(c *cobra.Command) *string {
	return c.Flags().String("control", control.DefaultPath, "`PATH` of the daemon's control socket")
}
