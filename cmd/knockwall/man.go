//go:build man

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// packagerCommands returns the commands for package builds. Cobra makes manual pages from
// Markdown. A build tag keeps the Markdown parsers out of the daemon.
func packagerCommands() []*cobra.Command { return []*cobra.Command{manCommand()} }

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the manual pages",
		Long: `man writes the manual pages, one for each command, to a folder. Their date comes
from SOURCE_DATE_EPOCH. If it is not set, the date is today.`,
		Example: `  knockwall man . && man -l knockwall.8`,
		Args:    takes("one argument: a folder", 1, 1),
		Hidden:  true,
		RunE: func(c *cobra.Command, arguments []string) error {
			root := c.Root()
			root.DisableAutoGenTag = true
			for _, about := range append(root.Commands(), root) {
				if about != root && !about.IsAvailableCommand() {
					continue
				}
				page, err := manPage(about)
				if err != nil {
					return err
				}
				name := strings.ReplaceAll(about.CommandPath(), " ", "-") + ".8"
				if err := os.WriteFile(filepath.Join(arguments[0], name), page, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func manPage(c *cobra.Command) ([]byte, error) {
	c.Long = asMarkdown.Replace(c.Long)
	c.InitDefaultHelpFlag()
	c.Flags().Lookup("help").Hidden = true // readers of a manual page do not need it
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "8", Source: "knockwall " + version(), Manual: "knockwall"}
	if err := doc.GenMan(c, header, &page); err != nil {
		return nil, err
	}
	return manFlag.ReplaceAll(page.Bytes(), []byte(".TP\n$1\n")), nil
}

// asMarkdown escapes plain text for cobra, which reads it as Markdown.
var asMarkdown = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`)

// manFlag matches a flag as cobra writes it: in one paragraph with its description, and
// with a default even if that is false.
var manFlag = regexp.MustCompile(`(?:\.PP\n)?(\\fB-.*?)(?:\[=false\])?\n\t`)
