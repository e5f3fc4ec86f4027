//go:build linux

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
)

func eventsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happens at the doors",
		Long: `events shows the audit trail, a line for each event: the last 1,000 refusals
since the daemon started, as many knocks, and as many others; with --follow
those that come, too, until Ctrl-C. Knocks and refusals are summed up by source
and door. "code" says in a fixed word which of the things that an event stands
for has happened, and "failed=true" that it could not be done. Scripts compare
the code: "reason" is prose, and may change.

With --json each line is what GET /v1/events on the control socket answers.`,
		Example: `  sudo knockwall events
  sudo knockwall events --follow
  sudo knockwall events --json | jq -r 'select(.event == "refused") | .source'`,
		Args: noArguments,
	}
	path := controlFlag(c)
	follow := c.Flags().Bool("follow", false, "go on with what happens from now on")
	asJSON := c.Flags().Bool("json", false, "write each event as a line of JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		out := c.OutOrStdout()
		encoder := json.NewEncoder(out)
		return control.NewClient(*path).Events(c.Context(), *follow, func(e audit.Event) error {
			if *asJSON {
				return encoder.Encode(e)
			}
			_, err := fmt.Fprintln(out, e)
			return err
		})
	}
	return c
}
