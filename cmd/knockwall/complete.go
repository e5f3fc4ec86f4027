package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/hosts"
	"github.com/knockwall/knockwall/ruleset"
)

// What a shell completes. Where something cannot be read, nothing is completed.

// completeFiles leaves the arguments to the shell, which completes files.
func completeFiles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// completeHosts completes the first argument: the hosts of the hosts files.
func completeHosts(_ *cobra.Command, arguments []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(arguments) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return beginning(hosts.Names(hosts.Paths()), begun), cobra.ShellCompDirectiveNoFileComp
}

// completeRuleDoors completes the first argument: the doors of the rule files in config.
func completeRuleDoors(config *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, arguments []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		loaded := ruleset.Review(*config)
		if len(arguments) > 0 || loaded.Config == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, d := range loaded.Config.Doors {
			names = append(names, d.Name)
		}
		return beginning(names, begun), cobra.ShellCompDirectiveNoFileComp
	}
}

// beginning returns the words that begin with what the user has typed.
func beginning(words []string, begun string) (all []cobra.Completion) {
	for _, w := range words {
		if strings.HasPrefix(w, begun) {
			all = append(all, w)
		}
	}
	return all
}
