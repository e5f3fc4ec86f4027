//go:build man

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/knockwall/knockwall/internal/build"
)

// packagerCommands returns the commands for package builds. Cobra makes manual pages from
// Markdown. A build tag keeps the Markdown parsers out of the daemon.
func packagerCommands() []*cobra.Command { return []*cobra.Command{manCommand()} }

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER [PAGE]...",
		Short: "Write the manual pages",
		Long: `man writes the manual pages to a folder: one for each command, and one for each
PAGE, a file in Markdown whose first line is "# NAME(SECTION): DESCRIPTION".
Their date comes from SOURCE_DATE_EPOCH. If it is not set, the date is today.`,
		Example: `  knockwall man . docs/*.[58].md && man -l knockwall.8`,
		Args:    takes("a folder, then files in Markdown", 1, 100),
		Hidden:  true,
		RunE: func(c *cobra.Command, arguments []string) error {
			root := c.Root()
			root.DisableAutoGenTag = true
			for _, about := range root.Commands() {
				if !about.IsAvailableCommand() {
					continue
				}
				page, err := manPage(about)
				if err != nil {
					return err
				}
				name := strings.ReplaceAll(about.CommandPath(), " ", "-") + "." + manSection(about)
				if err := os.WriteFile(filepath.Join(arguments[0], name), page, 0o644); err != nil {
					return err
				}
			}
			for _, path := range arguments[1:] {
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				name, page, err := writtenPage(path, string(text))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(arguments[0], name), page, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manSection returns the section of a command's page: 1 for the commands of clients, which
// any user types, else 8.
func manSection(c *cobra.Command) string {
	switch c.Name() {
	case "knock", "connect", "join", "ports":
		return "1"
	}
	return "8"
}

func manPage(c *cobra.Command) ([]byte, error) {
	c.Long = asMarkdown.Replace(c.Long)
	c.InitDefaultHelpFlag()
	c.Flags().Lookup("help").Hidden = true // readers of a manual page do not need it
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: manSection(c), Source: "knockwall " + build.Version(), Manual: "knockwall"}
	if err := doc.GenMan(c, header, &page); err != nil {
		return nil, err
	}
	text := manFlag.ReplaceAll(page.Bytes(), []byte(".TP\n$1\n"))
	return bytes.ReplaceAll(text, []byte("\\fBknockwall(1)\\fP"), []byte("\\fBknockwall(8)\\fP")), nil
}

// asMarkdown escapes plain text for cobra, which reads it as Markdown.
var asMarkdown = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`)

// manFlag matches a flag as cobra writes it: in one paragraph with its description, and
// with a default even if that is false.
var manFlag = regexp.MustCompile(`(?:\.PP\n)?(\\fB-.*?)(?:\[=false\])?\n\t`)

var (
	manTitle   = regexp.MustCompile(`^# ([a-z.-]+)\(([1-8])\): (.+)\n`)
	manHeading = regexp.MustCompile(`(?m)^## (.+)$`)
	manLink    = regexp.MustCompile(`\[([^\]]+)\]\([^)]*\)`)
)

// writtenPage makes a manual page of a text in Markdown. It returns the name of its file.
// Links become their text, as what they lead to may not be installed.
func writtenPage(path, text string) (name string, page []byte, err error) {
	title := manTitle.FindStringSubmatch(text)
	if title == nil {
		return "", nil, fmt.Errorf("%s: the first line is not \"# NAME(SECTION): DESCRIPTION\"", path)
	}
	date, err := manDate()
	if err != nil {
		return "", nil, err
	}
	head := fmt.Sprintf("%% %q %q %q %q %q\n# NAME\n%s \\- %s\n\n# DESCRIPTION\n",
		strings.ToUpper(title[1]), title[2], date.Format("Jan 2006"), "knockwall "+build.Version(), "knockwall", title[1], title[3])
	text = manHeading.ReplaceAllStringFunc(text[len(title[0]):], func(heading string) string { return strings.ToUpper(heading[1:]) })
	return title[1] + "." + title[2], md2man.Render([]byte(head + manLink.ReplaceAllString(text, "$1"))), nil
}

// manDate returns the date of manual pages.
func manDate() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, and not a number of seconds", epoch)
	}
	return time.Unix(seconds, 0), nil
}
