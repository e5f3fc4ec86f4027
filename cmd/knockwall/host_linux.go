package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/systemd"
)

// hostExample has the examples that need a host with doors.
const hostExample = `  knockwall demo                              see it at work; needs no root
  knockwall check --config ssh.hcl            is this rule file right?
  sudo knockwall run --config ssh.hcl         put up the wall
`

// hostCommands returns the commands that need a host with doors.
func hostCommands() []*cobra.Command {
	return []*cobra.Command{
		runCommand(),
		rulesetCommand(),
		statusCommand(),
		eventsCommand(),
		explainCommand(),
		openCommand(),
		closeCommand(),
		reloadCommand(),
		confirmCommand(),
		downCommand(),
		doctorCommand(),
		demoCommand(),
	}
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

// controlFlag adds the flag --control, which every command has that talks to the daemon.
func controlFlag(c *cobra.Command) *string {
	return c.Flags().String("control", control.DefaultPath, "`PATH` of the daemon's control socket")
}
