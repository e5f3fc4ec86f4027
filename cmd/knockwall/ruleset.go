package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/ruleset"
)

func rulesetCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ruleset",
		Short: "Print the nftables table that run would install, as an nft script",
		Long: `ruleset prints, as an nft script, the table that run would install. It changes
nothing and needs no privilege. The script replaces the table of that name in one
transaction, however often it is run, and closes all windows: it is for reading,
and for reviewing a change.

On a kernel without nftables' own queue expression, run uses NFQUEUE of x_tables
in its place; the script shows queue all the same.`,
		Example: `  knockwall ruleset --config ssh.hcl
  knockwall ruleset | diff - <(sudo nft list table inet knockwall)`,
		Args: cobra.NoArgs,
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := loadConfig(c, *path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(c.OutOrStdout(), ruleset.NewTable(config, config.Wall.Numbers(0)).Script())
		return err
	}
	return c
}
