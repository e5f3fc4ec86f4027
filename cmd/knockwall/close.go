//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/wall"
)

func closeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "close DOOR ADDRESS|HOST|PERSON",
		Short: "Close a door for an address before its time is up",
		Long: `close closes the window of an address at a door. The door then admits no new
connections from this address. Established connections go on. With --sessions
they end too, whether a window is open or not. For the name of a HOST, close
does so for each of its addresses.

PERSON is somebody who has knocked with a key or an fwknop client, as status and
events name the person. close then closes each open window of the person. With
--sessions it also ends the connections from all addresses of the person that
the daemon remembers: those of open windows and of the latest events. To lock
the person out for good, delete the line in the people file, and reload. close
says so before it ends the ssh session in which you type it.`,
		Example: `  sudo knockwall close ssh 198.51.100.7
  sudo knockwall close ssh 198.51.100.7 --sessions
  sudo knockwall close ssh alice@laptop --sessions`,
		Args: takes("the name of a door, and an address, the name of a host or a person", 2, 2),
	}
	path := controlFlag(c)
	sessions := c.Flags().Bool("sessions", false, "also end the connections of the address through the door")
	c.ValidArgsFunction = completeFromStatus(path, doorThenGuest)
	c.RunE = func(c *cobra.Command, arguments []string) error {
		client := control.NewClient(*path)
		door := arguments[0]
		sources, err := sourcesOf(c.Context(), client, door, arguments[1], *sessions)
		if err != nil {
			return err
		}
		if *sessions && endsOwn(c.Context(), client, door, sources) {
			fmt.Fprintln(c.ErrOrStderr(), "knockwall: this ends your own ssh session, too")
		}
		var failures []error
		for _, source := range sources {
			failures = append(failures, closeOne(c, client, door, source, *sessions))
		}
		return errors.Join(failures...)
	}
	return c
}

// sourcesOf returns the address, or the addresses of a host, or those from which a person has
// knocked at a door: all of them, or those with an open window.
func sourcesOf(ctx context.Context, client *control.Client, door, who string, all bool) (sources []string, err error) {
	if _, err := netip.ParseAddr(who); err == nil {
		return []string{who}, nil
	}
	if _, err := netip.ParsePrefix(who); err == nil {
		return []string{who}, nil
	}
	known, err := explainAll(ctx, client, who)
	if err != nil {
		return nil, err
	}
	for _, e := range known {
		if e.Door == door && (all || e.Reason == wall.WindowOpen || e.Reason == wall.NotAnswered || e.Reason == wall.Bare) {
			sources = append(sources, e.Source.String())
		}
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("no window of %s is open at the door %s", who, door)
	}
	return sources, nil
}

// endsOwn reports whether the end of all connections of these sources through a door ends the
// caller's own ssh session.
func endsOwn(ctx context.Context, client *control.Client, door string, sources []string) bool {
	_, through := ownSession(ctx, client)
	return slices.ContainsFunc(through, func(own wall.Explanation) bool {
		return own.Door == door && slices.ContainsFunc(sources, func(source string) bool {
			at, err := packet.ParseSource(source)
			return err == nil && own.Source.Contains(at.Addr().Unmap())
		})
	})
}

func closeOne(c *cobra.Command, client *control.Client, door, source string, sessions bool) error {
	closed, err := client.Close(c.Context(), door, source, sessions)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	if closed.Closed {
		_, err = fmt.Fprintf(out, "%s is closed for %s\n", closed.Door, closed.Source)
	} else {
		_, err = fmt.Fprintf(out, "%s was not open for %s\n", closed.Door, closed.Source)
	}
	if sessions {
		_, err = fmt.Fprintf(out, "%s ended\n", printable.Count(closed.Ended, "connection"))
	}
	return err
}
