//go:build linux && !client

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/packet"
)

func eventsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happens at the doors",
		Long: `events shows the audit trail, one line for each event: the last 1,000 refusals
since the daemon started, the last 1,000 knocks, and the last 1,000 other
events. With --follow it also shows new events, until Ctrl-C. --lines, --door
and --source select some of them; --source takes an address, a prefix or the
name of a host. One event sums up several refusals of a source at a door, or
several knocks of one step. "code" is a fixed word that says what exactly
happened. "failed=true" means that something could not be done. Scripts should
compare the code: "reason" is prose, and may change.

With --json each line is a line of GET /v1/events on the control socket.`,
		Example: `  sudo knockwall events
  sudo knockwall events -f -n 10 --door ssh
  sudo knockwall events --source 198.51.100.7
  sudo knockwall events --json | jq -r 'select(.event == "refused") | .source'`,
		Args: noArguments,
	}
	path := controlFlag(c)
	follow := c.Flags().BoolP("follow", "f", false, "also show new events, until Ctrl-C")
	lines := c.Flags().UintP("lines", "n", 0, "show only the last `N` of the events before now")
	door := c.Flags().String("door", "", "show only events at the door `NAME`")
	source := c.Flags().String("source", "", "show only events of the source `ADDRESS`")
	_ = c.RegisterFlagCompletionFunc("door", completeFromStatus(path, doorsOf))
	_ = c.RegisterFlagCompletionFunc("source", completeFromStatus(path, guestsOf))
	asJSON := c.Flags().Bool("json", false, "write each event as a line of JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		wanted := control.Selection{Follow: *follow, Door: *door}
		if c.Flags().Changed("lines") {
			last := int(*lines)
			wanted.Last = &last
		}
		if c.Flags().Changed("source") {
			var err error
			if wanted.Sources, err = selectedSources(c.Context(), *source); err != nil {
				return err
			}
		}
		out := c.OutOrStdout()
		encoder := json.NewEncoder(out)
		return control.NewClient(*path).Events(c.Context(), wanted, func(e audit.Event) error {
			if *asJSON {
				return encoder.Encode(e)
			}
			_, err := fmt.Fprintln(out, e)
			return err
		})
	}
	return c
}

// selectedSources returns the sources that the flag --source names.
func selectedSources(ctx context.Context, text string) (sources []packet.Source, err error) {
	addresses, err := addressesOf(ctx, text)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		s, err := packet.ParseSource(a)
		if err != nil {
			return nil, usage("--source takes an address, a prefix or the name of a host, and not %q", text)
		}
		sources = append(sources, s)
	}
	return sources, nil
}
