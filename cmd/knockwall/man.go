package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand is for those who make packages. Nobody else needs to know of it.
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
			date, err := manDate()
			if err != nil {
				return err
			}
			root := c.Root()
			for _, about := range append(root.Commands(), root) {
				if about != root && !about.IsAvailableCommand() {
					continue
				}
				if err := os.WriteFile(filepath.Join(arguments[0], manName(about)+".8"), manPage(about, date), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manDate returns the date of the pages. SOURCE_DATE_EPOCH sets it, so that a package
// has the same bytes whenever it is built.
func manDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is a number of seconds, and not %q", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// manName is the name of a command's page.
func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage writes a command's help in the macros of man(7). Cobra's own generator
// goes by way of Markdown, and would link parsers of Markdown and YAML into the
// daemon.
func manPage(c *cobra.Command, date time.Time) []byte {
	c.InitDefaultHelpFlag()
	c.Flags().Lookup("help").Hidden = true // who reads this knows where help is
	var b strings.Builder
	name := manName(c)
	about := c.Long
	if about == "" {
		about = c.Short
	}
	fmt.Fprintf(&b, ".nh\n.TH \"%s\" \"8\" \"%s\" \"knockwall %s\" \"knockwall\"\n",
		strings.ToUpper(name), date.Format("Jan 2006"), roff(version()))
	fmt.Fprintf(&b, ".SH NAME\n%s - %s\n", roff(name), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n%s\n", bold(c.UseLine()))
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", strings.ReplaceAll(roff(about), "\n\n", "\n.PP\n"))
	if c.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				b.WriteString(manFlag(f))
			}
		})
	}
	if c.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLE\n.EX\n%s\n.EE\n", roff(c.Example))
	}
	var others []string
	if c.HasParent() {
		others = append(others, bold(manName(c.Parent())+"(8)"))
	}
	for _, o := range c.Commands() {
		if o.IsAvailableCommand() {
			others = append(others, bold(manName(o)+"(8)"))
		}
	}
	fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(others, ", "))
	return []byte(b.String())
}

// manFlag writes a flag, its default and what it is for. The word in backquotes
// names its value, as in the help.
func manFlag(f *pflag.Flag) string {
	head := bold("--" + f.Name)
	if f.Shorthand != "" {
		head = bold("-"+f.Shorthand) + ", " + head
	}
	switch {
	case f.NoOptDefVal != "": // it takes no value
	case f.Value.Type() == "string":
		head += "=" + roff(strconv.Quote(f.DefValue))
	default:
		head += "=" + roff(f.DefValue)
	}
	usage := roff(f.Usage)
	if before, value, ok := strings.Cut(usage, "`"); ok {
		value, after, _ := strings.Cut(value, "`")
		usage = before + `\fB` + value + `\fR` + after
	}
	return ".TP\n" + head + "\n" + usage + "\n"
}

func bold(s string) string { return `\fB` + roff(s) + `\fP` }

// roff writes text so that it stands for itself: a backslash begins an escape, and so
// does a dot or an apostrophe at the beginning of a line.
func roff(s string) string {
	s = "\n" + strings.ReplaceAll(s, `\`, `\e`)
	s = strings.NewReplacer("\n.", "\n\\&.", "\n'", "\n\\&'").Replace(s)
	return s[1:]
}
