package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
)

func downCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "down",
		Short: "Take the wall down, daemon or no daemon",
		Long: `down takes the wall down: every port answers again as it would without
knockwall. A daemon that listens at --control does it itself, and ends. Where
none does, down removes the tables that daemons have left standing, for which it
needs root, or the capability CAP_NET_ADMIN. It needs no rule files.`,
		Example: `  sudo knockwall down`,
		Args:    noArguments,
	}
	path := controlFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		err := control.NewClient(*path).Down(c.Context())
		if err == nil {
			fmt.Fprintln(c.OutOrStdout(), "The wall is down, and the daemon has ended.")
			return nil
		}
		if !errors.Is(err, control.ErrNoDaemon) {
			return err
		}
		return removeTables(c, *path)
	}
	return c
}

// removeTables removes the tables of walls that no daemon minds.
func removeTables(c *cobra.Command, path string) error {
	kernel, err := ruleset.OpenKernel()
	if err != nil {
		return err
	}
	defer kernel.Close()
	walls, err := kernel.Others("")
	if err != nil {
		return err
	}
	if len(walls) == 0 {
		fmt.Fprintln(c.OutOrStdout(), "No wall stands.")
	}
	for _, w := range walls {
		for _, queue := range w.Queues {
			minded, err := nfqueue.InUse(queue)
			if err != nil {
				return err
			}
			if minded {
				return fmt.Errorf("a daemon minds the table inet %s, and does not listen at %s: name its socket with --control, or end it", w.Table, path)
			}
		}
	}
	for _, w := range walls {
		if _, err := kernel.Remove(w.Table); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "The table inet %s is removed; no daemon minded it.\n", w.Table)
	}
	return nil
}
