//go:build linux && !client

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/terminal"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain ADDRESS|HOST|PERSON",
		Short: "Say why a client is let in, or is not",
		Long: `explain says in a sentence for each door why a client is let in there, or is
not. For example, the client has never knocked, or it knocked in the wrong order
or too slowly, or its window is over. The sentence says when that was. If a door
guards nothing on this host, explain says why. The daemon remembers the last
1,000 knocks of all sources since it started. Older events are in the journal:

  journalctl -u knockwall KNOCKWALL_SOURCE=192.0.2.7

With --json it prints the answer of GET /v1/explain/192.0.2.7 on the control
socket. For the name of a HOST, explain says it for each of its addresses.

PERSON is somebody who has knocked with a key or an fwknop client: the comment
of the line in the people file, the key id of the certificate, or the name of
the fwknop block. explain then says it for each address that the person came
from.`,
		Example: `  sudo knockwall explain 192.0.2.7
  sudo knockwall explain 2001:db8::7 --json
  sudo knockwall explain alice@laptop`,
		Args: takes("one argument, the client's address or name, or a person", 1, 1),
	}
	path := controlFlag(c)
	asJSON := c.Flags().Bool("json", false, "write the answer as JSON")
	c.ValidArgsFunction = completeFromStatus(path, first(guestsOf))
	c.RunE = func(c *cobra.Command, arguments []string) error {
		doors, err := explainAll(c.Context(), control.NewClient(*path), arguments[0])
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
		_, isTerminal := terminal.Width(out)
		for _, d := range doors {
			if line := d.Door + ": " + d.Sentence; isTerminal {
				terminal.WriteWrapped(out, line)
			} else {
				fmt.Fprintln(out, line) // for grep
			}
		}
		return nil
	}
	return c
}
