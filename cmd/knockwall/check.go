package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check [PATH]",
		Short: "Check the rule files and report all errors",
		Long: `check reads the rule files as run would, and reports everything that is wrong or
unwise in them, with file and line. Then it examines this host, and warns if a
door here is not what the files say, for example if its interface does not
exist. If the files are for another host, ignore these warnings. check changes
nothing and needs no privilege. Its exit code is 2 if the files have an error,
and 0 if they only have warnings.

If root checks the rule files of the service, in /etc/knockwall.d, check first
reads them as the daemon's user knockwall. A file that this user cannot read is
an error. For root and for that user a missing list is an error too, as the
daemon would refuse it. For others it is a warning. Only the service can read
its credentials.`,
		Example: `  knockwall check
  knockwall check ssh.hcl
  knockwall check --json | jq '.diagnostics[].summary'`,
		Args:              takes("at most one argument, a rule file or a folder of them", 0, 1),
		ValidArgsFunction: completeFiles,
	}
	config := configFlag(c)
	asJSON := c.Flags().Bool("json", false, "write the result as JSON")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		if len(arguments) > 0 {
			if c.Flags().Changed("config") {
				return usage("name the rule files once: as PATH or by --config")
			}
			*config = arguments[0]
		}
		return check(c, *config, *asJSON)
	}
	return c
}

// check checks the rule files at path, and writes what is wrong with them.
func check(c *cobra.Command, path string, asJSON bool) error {
	var flags []string
	if asJSON {
		flags = append(flags, "--json")
	}
	refused, err := refusesDaemon(c, path, flags...)
	if err != nil {
		return err
	}
	if refused {
		return &usageError{errSaid}
	}
	loaded := review(path)
	report := noReport()
	here := &ruleset.Loaded{}
	if loaded.Config != nil {
		report, here = onReading(loaded.Config)
	}
	if asJSON {
		if err := writeResult(c.OutOrStdout(), loaded, report); err != nil {
			return err
		}
	} else {
		for _, l := range []*ruleset.Loaded{loaded, here} {
			if err := terminal.WriteDiagnostics(c.ErrOrStderr(), l); err != nil {
				return err
			}
		}
	}
	if loaded.Config == nil {
		return &usageError{errSaid}
	}
	if !asJSON {
		fmt.Fprintf(c.OutOrStdout(), "%s: %s, no errors, %s%s\n", path, printable.Count(len(loaded.Config.Doors), "door"),
			printable.Count(len(loaded.Diagnostics)+len(here.Diagnostics), "warning"), notLookedAt(report.Unmade))
	}
	return nil
}

// result is the output of check --json.
type result struct {
	Valid       bool         `json:"valid"`
	Diagnostics []diagnostic `json:"diagnostics"`
	hostReport
}

type diagnostic struct {
	Severity string `json:"severity"` // error or warning
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	EndLine  int    `json:"end_line,omitempty"`
	EndCol   int    `json:"end_column,omitempty"`
}

func writeResult(w io.Writer, loaded *ruleset.Loaded, here hostReport) error {
	r := result{Valid: loaded.Config != nil, Diagnostics: []diagnostic{}, hostReport: here}
	for _, d := range loaded.Diagnostics {
		out := diagnostic{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			out.Severity = "warning"
		}
		if at := d.Subject; at != nil {
			out.File = at.Filename
			out.Line, out.Column = at.Start.Line, at.Start.Column
			out.EndLine, out.EndCol = at.End.Line, at.End.Column
		}
		r.Diagnostics = append(r.Diagnostics, out)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}
