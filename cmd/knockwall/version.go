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
			_, err := fmt.Fprintf(c.OutOrStdout(), "knockwall %s (%s, %s/%s)\n",
				build.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
