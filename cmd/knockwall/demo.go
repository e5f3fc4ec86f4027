//go:build linux && !client

package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/demo"
	"github.com/knockwall/knockwall/internal/netlab"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show knockwall at work with two hosts in a private network",
		Long: `demo creates two hosts as network namespaces, puts up a wall on one of them, and
knocks at it from the other, on this machine's real kernel. It needs no root. It
changes nothing outside of the network that it creates and removes.`,
		Example: "  knockwall demo",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if !netlab.Inside() {
				return demoInNamespaces(c)
			}
			return demo.Run(c.Context(), c.OutOrStdout())
		},
	}
}

func demoInNamespaces(c *cobra.Command) error {
	runtime.LockOSThread() // the child dies with the thread that started it
	child, err := netlab.Command("demo")
	if err != nil {
		return err
	}
	child.Stdout, child.Stderr = c.OutOrStdout(), c.ErrOrStderr()
	if err := child.Run(); err != nil {
		return errSaid
	}
	return nil
}
