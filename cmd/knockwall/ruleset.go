//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/ruleset"
)

func rulesetCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ruleset",
		Short: "Print the nftables table that run would install, as an nft script",
		Long: `ruleset prints, as an nft script, the table that run would install. It changes
nothing and needs no privilege. It is for reading, and for reviewing a change:
nft -f would put the table in place of the one there is, in one transaction, and
close all windows. Sequences and traps are those of this moment: rolling
sequences change, and no trap is where a program listens.

On a kernel whose nftables cannot queue by themselves, run uses x_tables'
NFQUEUE in place of "queue". The script says "queue" all the same, which nft -f
does not take there.`,
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

// loadConfig reads rule files, tells of what is wrong or unwise, and returns
// nothing if anything is wrong.
func loadConfig(c *cobra.Command, path string) (*ruleset.Config, error) {
	loaded := ruleset.Review(path)
	if err := writeDiagnostics(c.ErrOrStderr(), loaded); err != nil {
		return nil, err
	}
	if loaded.Config == nil {
		return nil, &usageError{errSaid}
	}
	return loaded.Config, nil
}
