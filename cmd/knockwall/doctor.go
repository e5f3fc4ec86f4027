//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/printable"
)

func doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what on this host defeats, weakens or breaks the wall",
		Long: `doctor reads the rule files and looks at this host: its interfaces, firewall,
programs that listen, files and clock. It says what makes a door something else
than it seems, and how to cure it. It changes nothing. Where it is not root, it
says which checks it could not make.

Its exit code is 1 if a door is not what it seems: bare, or shut to those who
knock right.`,
		Example: `  sudo knockwall doctor
  sudo knockwall doctor --json | jq -r '.findings[].cure'`,
		Args: noArguments,
	}
	config := configFlag(c)
	asJSON := c.Flags().Bool("json", false, "write the findings as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		refused, err := refusesDaemon(c, *config)
		if err != nil {
			return err
		}
		if refused {
			return &usageError{errSaid}
		}
		loaded := review(*config)
		if loaded.Config == nil {
			if err := writeDiagnostics(c.ErrOrStderr(), loaded.Errors()); err != nil {
				return err
			}
			return &usageError{errSaid}
		}
		report := doctor.Examine(&doctor.Host{Config: loaded.Config}, doctor.Asked)
		if *asJSON {
			encoder := json.NewEncoder(c.OutOrStdout())
			encoder.SetIndent("", "  ")
			if err := encoder.Encode(report); err != nil {
				return err
			}
		} else {
			writeReport(c.OutOrStdout(), report)
		}
		if report.HasErrors() {
			return errSaid
		}
		return nil
	}
	return c
}

// writeReport writes what was found, the cure beneath each.
func writeReport(w io.Writer, r doctor.Report) {
	for _, f := range r.Findings {
		writeFinding(w, string(f.Severity), f)
	}
	for _, u := range r.Unmade {
		fmt.Fprintf(w, "not checked: %s: %s\n", u.Check, u.Why)
	}
	if len(r.Findings) == 0 && len(r.Unmade) == 0 {
		fmt.Fprintln(w, "Nothing found.")
	}
}

// writeFinding writes a finding after a word that says how bad it is.
func writeFinding(w io.Writer, word string, f doctor.Finding) {
	if f.Door != "" {
		word += ": door " + f.Door
	}
	const indent = "  "
	columns, _ := terminalWidth(w)
	lines := printable.Wrap(word+": "+f.Problem+"\n"+f.Cure, int(columns)-len(indent))
	fmt.Fprintln(w, strings.Join(lines, "\n"+indent))
}
