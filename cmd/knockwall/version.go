package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/build"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  knockwall version",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), versionLine())
			return err
		},
	}
}

// versionLine says what program this is.
func versionLine() string {
	return fmt.Sprintf("knockwall %s (%s, %s/%s)", build.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
