//go:build linux

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
)

func openCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "open DOOR ADDRESS",
		Short: "Open a door by hand for an address that has not knocked",
		Long: `open opens a window at a door for an address, as if it had knocked. One that is
open already gets its full length again. The kernel ends it when its time is up,
whatever becomes of the daemon.`,
		Example: `  sudo knockwall open ssh 198.51.100.7
  sudo knockwall open vpn 2001:db8::7 --window 10m`,
		Args: takes("the name of a door and an address", 2, 2),
	}
	path := controlFlag(c)
	window := c.Flags().Duration("window", 0, "how long it is open, such as 90s or 10m; the door's own `TIME` if left out")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		length := ""
		if c.Flags().Changed("window") {
			length = window.String()
		}
		w, err := control.NewClient(*path).Open(c.Context(), arguments[0], arguments[1], length)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s is open for %s, for %s\n", w.Door, w.Source, inSeconds(w.LeftSeconds))
		return err
	}
	return c
}
