//go:build linux && !client

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
)

func rulesetCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ruleset",
		Short: "Print the nftables table that run would install, as an nft script",
		Long: `ruleset prints, as an nft script, the table that run would install. It changes
nothing and needs no privilege. Use it to read the table and to review a change.
nft -f would replace the existing table in one transaction, and close all
windows. Sequences and traps are those of this moment: rolling sequences change,
and a port on which a program listens is no trap.

On a kernel whose nftables have no queue expression, run uses x_tables' NFQUEUE
instead of "queue". The script still says "queue", which nft -f rejects there.`,
		Example: `  knockwall ruleset --config ssh.hcl
  knockwall ruleset | less`,
		Args: noArguments,
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		here, err := host.Look()
		if err != nil {
			return err
		}
		now, err := effective.Resolve(config, time.Now(), here)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(c.OutOrStdout(), nft.NewTable(now, nft.NumbersOf(now.Wall, 0)).Script())
		return err
	}
	return c
}

// loadConfig reads rule files and prints errors and warnings. With an error in the files it
// returns a usage error.
func loadConfig(c *cobra.Command, path string) (*ruleset.Config, error) {
	loaded := ruleset.Review(path)
	if err := terminal.WriteDiagnostics(c.ErrOrStderr(), loaded); err != nil {
		return nil, err
	}
	if loaded.Config == nil {
		return nil, &usageError{errSaid}
	}
	return loaded.Config, nil
}
