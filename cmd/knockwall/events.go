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
		Long: `events shows the audit trail, one line for each event: the last 1,000 refusals
since the daemon started, the last 1,000 knocks, and the last 1,000 other
events. With --follow it also shows new events, until Ctrl-C. One event sums up
several knocks or refusals of a source at a door. "code" is a fixed word that
says what exactly happened. "failed=true" means that something could not be
done. Scripts should compare the code: "reason" is prose, and may change.

With --json each line is a line of GET /v1/events on the control socket.`,
		Example: `  sudo knockwall events
  sudo knockwall events --follow
  sudo knockwall events --json | jq -r 'select(.event == "refused") | .source'`,
		Args: noArguments,
	}
	path := controlFlag(c)
	follow := c.Flags().Bool("follow", false, "also show new events, until Ctrl-C")
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
