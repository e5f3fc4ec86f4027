//go:build linux && !client

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// shareProgram is the program that `knockwall share` runs. It is beside this one where it is
// not packaged. It is a program of its own because NATS would make the daemon, which has
// rights, larger by a third, and bring code for networks into it.
const shareProgram = "knockwall-share"

func shareCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "share",
		Short: "Share open windows with other hosts",
		Long: `share is a companion of the daemon. It tells the other hosts of its group which
windows open and close here, and tells the daemon which open and close there. So
whoever has knocked at one host is let in at all of them. The share block in the
rule files says who belongs to the group, and where its NATS servers are.

It needs no root: only the group of the control socket, and its credentials. It
runs until SIGTERM or SIGINT (Ctrl-C) stops it. Without it, and without the
servers, the doors of this host work as before.`,
		Example: `  knockwall share    # with the share block in /etc/knockwall.d`,
		Args:    noArguments,
	}
	config := configFlag(c)
	path := controlFlag(c)
	c.RunE = func(*cobra.Command, []string) error {
		own, err := os.Executable()
		if err != nil {
			return err
		}
		for _, folder := range []string{filepath.Dir(own), "/usr/libexec/knockwall"} {
			program := filepath.Join(folder, shareProgram)
			err := syscall.Exec(program, []string{program, "--config", *config, "--control", *path}, os.Environ())
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return errors.New(shareProgram + " is not installed: it belongs into /usr/libexec/knockwall")
	}
	return c
}
