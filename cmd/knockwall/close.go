//go:build linux

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/printable"
)

func closeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "close DOOR ADDRESS",
		Short: "Close a door for an address before its time is up",
		Long: `close closes the window of an address at a door. The door then admits no new
connections from this address. Established connections go on. With --sessions
they end too, whether a window is open or not.`,
		Example: `  sudo knockwall close ssh 198.51.100.7
  sudo knockwall close ssh 198.51.100.7 --sessions`,
		Args: takes("the name of a door and an address", 2, 2),
	}
	path := controlFlag(c)
	sessions := c.Flags().Bool("sessions", false, "also end the connections of the address through the door")
	c.RunE = func(c *cobra.Command, arguments []string) error {
		closed, err := control.NewClient(*path).Close(c.Context(), arguments[0], arguments[1], *sessions)
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if closed.Closed {
			_, err = fmt.Fprintf(out, "%s is closed for %s\n", closed.Door, closed.Source)
		} else {
			_, err = fmt.Fprintf(out, "%s was not open for %s\n", closed.Door, closed.Source)
		}
		if *sessions {
			_, err = fmt.Fprintf(out, "%s ended\n", printable.Count(closed.Ended, "connection"))
		}
		return err
	}
	return c
}
