//go:build linux && !client

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
)

func openCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "open DOOR ADDRESS|HOST",
		Short: "Open a door by hand for an address that has not knocked",
		Long: `open opens a window at a door for an address, as if that address had knocked. A
window that is already open gets its full time again. The kernel ends the window
when its time is up, whatever happens to the daemon. For the name of a HOST,
open opens the door for each of its addresses.`,
		Example: `  sudo knockwall open ssh 198.51.100.7
  sudo knockwall open vpn 2001:db8::7 --window 10m`,
		Args: takes("the name of a door, and an address or the name of a host", 2, 2),
	}
	path := controlFlag(c)
	window := c.Flags().Duration("window", 0, "open the door for `TIME`, such as 90s or 10m; default: the window of the door")
	c.ValidArgsFunction = completeFromStatus(path, first(doorsOf))
	c.RunE = func(c *cobra.Command, arguments []string) error {
		length := ""
		if c.Flags().Changed("window") {
			length = window.String()
		}
		addresses, err := addressesOf(c.Context(), arguments[1])
		if err != nil {
			return err
		}
		client := control.NewClient(*path)
		var failures []error
		for _, address := range addresses {
			w, err := client.Open(c.Context(), arguments[0], address, length)
			if err != nil {
				failures = append(failures, err)
				continue
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is open for %s, for %s\n", w.Door, w.Source, inSeconds(w.LeftSeconds))
		}
		return errors.Join(failures...)
	}
	return c
}
