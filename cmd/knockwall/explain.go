//go:build linux

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "Say why a client is let in, or is not",
		Long: `explain says in a sentence for each door why a client is let in there, or is
not: it has never knocked, or in the wrong order, or too slowly; its window is
over; and when that was. Of a door that stands before nothing on this host it
says that, and why. The daemon remembers the last 1,000 knocks of all sources
since it started; of what was before, the journal knows:

  journalctl -u knockwall KNOCKWALL_SOURCE=192.0.2.7

With --json it writes what GET /v1/explain/192.0.2.7 on the control socket
answers.`,
		Example: `  sudo knockwall explain 192.0.2.7
  sudo knockwall explain 2001:db8::7 --json`,
		Args: takes("one argument, the client's address", 1, 1),
	}
	path := controlFlag(c)
	asJSON := c.Flags().Bool("json", false, "write it as JSON")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		doors, err := control.NewClient(*path).Explain(c.Context(), arguments[0])
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if *asJSON {
			encoder := json.NewEncoder(out)
			encoder.SetIndent("", "  ")
			return encoder.Encode(doors)
		}
		if len(doors) == 0 {
			fmt.Fprintln(out, "The wall guards no door: everybody is let in.")
		}
		for _, d := range doors {
			fmt.Fprintf(out, "%s: %s\n", d.Door, d.Sentence)
		}
		return nil
	}
	return c
}
