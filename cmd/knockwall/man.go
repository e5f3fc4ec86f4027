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

// packagerCommands are for those who make packages. Cobra writes manual pages by way of
// Markdown: its parsers need not be in the daemon, so that these are built on demand.
func packagerCommands() []*cobra.Command { return []*cobra.Command{manCommand()} }

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the manual pages",
		Long: `man writes the manual pages, one for each command, to a folder. Their date is
that of SOURCE_DATE_EPOCH, if it is set, and else today.`,
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
	c.Flags().Lookup("help").Hidden = true // who reads this knows where help is
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "8", Source: "knockwall " + version(), Manual: "knockwall"}
	if err := doc.GenMan(c, header, &page); err != nil {
		return nil, err
	}
	return manFlag.ReplaceAll(page.Bytes(), []byte(".TP\n$1\n")), nil
}

// asMarkdown has plain text mean itself in Markdown, which cobra takes it for.
var asMarkdown = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`)

// manFlag is a flag as cobra writes it: in a paragraph with what it is for, and
// with a default even where that is no.
var manFlag = regexp.MustCompile(`(?:\.PP\n)?(\\fB-.*?)(?:\[=false\])?\n\t`)
