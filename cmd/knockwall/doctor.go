//go:build linux && !client

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/internal/wall"
)

func doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find what defeats, weakens or breaks the wall on this host",
		Long: `doctor reads the rule files and examines this host: its interfaces, firewall,
listening programs, files and clock. It reports each problem that makes a door
not what it seems, and the cure. It changes nothing. Without root it reports
which checks it could not make. Whether windows are shared with other hosts, it
asks the daemon, if the rule files have a share block.

Its exit code is 1 if a door is not what it seems: it guards nothing, or stays
shut to clients that knock right.`,
		Example: `  sudo knockwall doctor
  sudo knockwall doctor --json | jq -r '.findings[].cure'`,
		Args: noArguments,
	}
	config := configFlag(c)
	path := controlFlag(c)
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
			if err := terminal.WriteDiagnostics(c.ErrOrStderr(), loaded.Errors()); err != nil {
				return err
			}
			return &usageError{errSaid}
		}
		report := doctor.Examine(&doctor.Host{Config: loaded.Config}, doctor.Asked)
		if loaded.Config.Share != nil {
			addSharing(c.Context(), &report, *path)
		}
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

// addSharing adds what the daemon finds about other hosts: only it hears of them.
func addSharing(ctx context.Context, r *doctor.Report, path string) {
	s, err := control.NewClient(path).Status(ctx, wall.WindowQuery{Limit: 1})
	switch {
	case err != nil:
		r.Unmade = append(r.Unmade, doctor.Unmade{Check: wall.SharingCheck, Why: err.Error()})
	case s.Sharing == nil:
		r.Unmade = append(r.Unmade, doctor.Unmade{Check: wall.SharingCheck, Why: "the rules in force have no share block yet"})
	}
	for _, f := range s.Findings {
		if f.Check == wall.SharingCheck {
			r.Findings = append(r.Findings, f)
		}
	}
}

// writeReport writes the findings, each with its cure below.
func writeReport(w io.Writer, r doctor.Report) {
	for _, f := range r.Findings {
		writeFinding(w, string(f.Severity), f)
	}
	var withRoot []string // the checks that root can make
	for _, u := range r.Unmade {
		if strings.HasSuffix(u.Why, doctor.TakesRoot) {
			withRoot = append(withRoot, u.Check)
			continue
		}
		terminal.WriteWrapped(w, "not checked: "+u.Check+": "+u.Why)
	}
	if len(withRoot) > 0 {
		terminal.WriteWrapped(w, "not checked, as that "+doctor.TakesRoot+": "+strings.Join(withRoot, ", ")+"\nType `sudo knockwall doctor`.")
	}
	if len(r.Findings) == 0 && len(r.Unmade) == 0 {
		fmt.Fprintln(w, "Nothing found.")
	}
}

// writeFinding writes a finding after word, which is its severity.
func writeFinding(w io.Writer, word string, f doctor.Finding) {
	if f.Door != "" {
		word += ": door " + f.Door
	}
	terminal.WriteWrapped(w, word+": "+f.Problem+"\n"+f.Cure)
}
