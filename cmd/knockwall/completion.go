package main

import (
	"github.com/spf13/cobra"
)

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a completion script for a shell",
		Long: `completion prints a script with which a shell completes knockwall's commands and
flags. The script for bash needs the package bash-completion.`,
		Example: `  source <(knockwall completion bash)     # this shell only
  knockwall completion bash | sudo tee /etc/bash_completion.d/knockwall
  knockwall completion zsh > "${fpath[1]}/_knockwall"
  knockwall completion fish > ~/.config/fish/completions/knockwall.fish`,
		Args:      takes("one argument: bash, zsh or fish", 1, 1),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, arguments []string) error {
			root, out := c.Root(), c.OutOrStdout()
			switch arguments[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return usage("completion takes bash, zsh or fish, and %q is none of them", arguments[0])
		},
	}
}
