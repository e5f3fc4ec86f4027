//go:build linux && !client

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/internal/wall"
)

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show doors, open windows, attempts and counters",
		Long: `status shows the doors of the daemon, the open windows and how long they stay
open, the sources that are knocking, and the counters since the daemon started.
Problems of this host come first, such as a door that guards nothing. status
needs access to the control socket, which root and the socket's group have.

Of the open windows it shows the first 1,000, by door and address. --lines,
--door and --source select others; --source takes an address, a prefix or the
name of a host.

With --json it prints the answer of GET /v1/status on the control socket, with
times in seconds, and with all windows unless --lines limits them. With --watch
it prints the status every second, until Ctrl-C.`,
		Example: `  sudo knockwall status
  sudo knockwall status --door ssh --source 198.51.100.0/24
  sudo knockwall status --watch
  sudo knockwall status --json | jq -r '.windows[].source'
  sudo curl --unix-socket /run/knockwall/control.sock http://knockwall/v1/status`,
		Args: noArguments,
	}
	path := controlFlag(c)
	asJSON := c.Flags().Bool("json", false, "write the status as JSON")
	watch := c.Flags().BoolP("watch", "w", false, "show the status every second")
	lines := c.Flags().UintP("lines", "n", 0, "show at most `N` open windows")
	door := c.Flags().String("door", "", "show only open windows at the door `NAME`")
	source := c.Flags().String("source", "", "show only open windows of the source `ADDRESS`")
	_ = c.RegisterFlagCompletionFunc("door", completeFromStatus(path, doorsOf))
	_ = c.RegisterFlagCompletionFunc("source", completeFromStatus(path, guestsOf))
	c.RunE = func(c *cobra.Command, _ []string) error {
		client := control.NewClient(*path)
		wanted := wall.WindowQuery{Door: *door, Limit: int(*lines)}
		switch {
		case c.Flags().Changed("lines") && *lines == 0:
			return usage("--lines takes a number from 1")
		case !c.Flags().Changed("lines") && !*asJSON:
			wanted.Limit = shownWindows
		}
		if *source != "" {
			var err error
			if wanted.Sources, err = selectedSources(c.Context(), *source); err != nil {
				return err
			}
		}
		if !*watch {
			return showStatus(c, client, wanted, *path, *asJSON, false)
		}
		for {
			_, onTerminal := terminal.Width(c.OutOrStdout())
			if err := showStatus(c, client, wanted, *path, *asJSON, onTerminal && !*asJSON); err != nil {
				return err
			}
			select {
			case <-c.Context().Done():
				return nil
			case <-time.After(watchInterval):
			}
		}
	}
	return c
}

// shownWindows is how many open windows the text shows unless --lines says otherwise.
const shownWindows = 1000

// watchInterval is the time between two outputs of status --watch.
const watchInterval = time.Second

// showStatus gets the status from the daemon whose socket is at path and writes it, in place
// of what the screen shows or below it.
func showStatus(c *cobra.Command, client *control.Client, wanted wall.WindowQuery, path string, asJSON, inPlace bool) error {
	s, err := client.Status(c.Context(), wanted)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(s)
	}
	if !inPlace {
		return writeStatus(out, path, s, wanted, time.Now())
	}
	p := page{terminal: out}
	if err := writeStatus(&p, path, s, wanted, time.Now()); err != nil {
		return err
	}
	columns, rows := terminal.Screen(out)
	const clear = "\x1b[H\x1b[J" // cursor home, then erase to the end of the screen
	_, err = fmt.Fprint(out, clear+head(p.String(), int(columns), int(rows)))
	return err
}

// page is text for a terminal that is written to it at once.
type page struct {
	strings.Builder
	terminal io.Writer
}

// Unwrap tells package terminal how wide the page is.
func (p *page) Unwrap() io.Writer { return p.terminal }

// head returns the part of text that fits on a screen of that size: the beginnings of the
// first lines. The last line says how many are missing. A size of 0 is unknown.
func head(text string, columns, rows int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if columns > 0 {
		for i, line := range lines {
			lines[i] = printable.Cut(line, columns)
		}
	}
	if missing := len(lines) - (rows - 1); rows > 1 && missing > 0 {
		lines = append(lines[:rows-2], fmt.Sprintf("… and %d more lines", missing+1))
	}
	return strings.Join(lines, "\n") + "\n"
}

func writeStatus(out io.Writer, path string, s wall.Status, wanted wall.WindowQuery, now time.Time) error {
	say := func(format string, a ...any) { terminal.WriteParagraph(out, fmt.Sprintf(format, a...)) }
	const day = 24 * time.Hour
	running := now.Sub(s.Since).Round(time.Second)
	length := printable.Time(running)
	if running >= 2*day {
		length = printable.Count(int(running/day), "day")
	}
	say("The daemon has run the wall (table inet %s) since %s, for %s.", s.Table, s.Since.Format(time.DateTime), length)
	if s.Trial != nil {
		say("It is on trial: without `%s` the former state returns in %s.", control.Command(path, "confirm"), inSeconds(s.Trial.LeftSeconds))
	}
	reload := control.Command(path, "reload")
	switch {
	case !s.FilesDiffer:
	case s.Unconfirmed != nil:
		next := "reload"
		if s.Unconfirmed.Boot {
			next = "reload or boot"
		}
		say("The former rules are in force: the rule files were on trial, from %s on, and nobody confirmed them. "+
			"Try them again with `%s --confirm 2m`, or correct them: the next %s puts them in force.",
			s.Unconfirmed.Since.Format(time.DateTime), reload, next)
	case s.FilesFailed:
		say("The rule files differ from the rules in force, and could not be put in force. Correct them until `knockwall check` finds no errors, then type `%s`.", reload)
	default:
		say("The rule files differ from the rules in force. `knockwall check` checks the files, `%s` puts them in force.", reload)
	}
	for _, f := range s.Findings {
		word := string(f.Severity)
		if f.Severity == doctor.Error {
			word = "degraded"
		}
		writeFinding(out, word, f)
	}
	if s.Sharing != nil {
		say("%s", describeSharing(s.Sharing))
	}
	if n := s.Counters.Healed; n > 0 {
		say("Other programs have changed the wall, and the daemon put it back: %s.", printable.Count(int(n), "time"))
	}
	if n := s.Counters.Lost; n > 0 {
		say("%s came faster than they could be read.", printable.Count(int(n), "packet"))
	}
	switch {
	case len(s.Doors) > 0:
	case s.FilesDiffer:
		say("The wall has no door, so it hides nothing.")
		return nil
	default:
		say("The wall has no door, so it hides nothing. To make one for ssh, type:\n  sudo knockwall init ssh 22 --keys")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nDOOR\tPORTS\tKNOCKS\tOPENED\tACCEPTED\tREFUSED\n")
	for _, d := range s.Doors {
		var ports []string
		for _, p := range d.Ports {
			ports = append(ports, p.String())
		}
		if d.Bare {
			ports = append(ports, "(NOT guarded)")
		}
		n := d.Counters
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\n", d.Name, strings.Join(ports, " "), n.Knocks, n.Opened, n.Accepted, n.Refused)
	}
	if len(s.Windows) > 0 {
		fmt.Fprintf(w, "\nOPEN FOR\tDOOR\tTIME LEFT\tCONNECTIONS\n")
		for _, win := range s.Windows {
			source := win.Source.String()
			if win.Person != "" {
				source += " (" + printable.Escape(win.Person) + ")"
			}
			if win.Origin != "" {
				source += " from " + printable.Escape(win.Origin)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", source, win.Door, inSeconds(win.LeftSeconds), win.Connections)
		}
	}
	open := 0
	for _, d := range s.Doors {
		open += d.OpenWindows
	}
	switch {
	case max(open, len(s.Windows)) == 0:
		fmt.Fprintf(w, "\nNo window is open.\n")
	case len(s.Windows) == 0:
		fmt.Fprintf(w, "\nNo such window is open, of %d in all.\n", open)
	case len(s.Windows) < open && len(s.Windows) == wanted.Limit:
		fmt.Fprintf(w, "These are the first %d of %d open windows. --lines shows more.\n", len(s.Windows), open)
	case len(s.Windows) < open:
		fmt.Fprintf(w, "These are %d of %d open windows.\n", len(s.Windows), open)
	}
	if len(s.Attempts) > 0 {
		fmt.Fprintf(w, "\nKNOCKING\tDOOR\tSTEP\tTIME LEFT\n")
		for _, a := range s.Attempts {
			fmt.Fprintf(w, "%s\t%s\t%d of %d\t%s\n", a.Source, a.Door, a.Step, a.Steps, inSeconds(a.LeftSeconds))
		}
	}
	return w.Flush()
}

func inSeconds(s float64) string {
	return printable.Time(time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond))
}

// describeSharing returns a sentence about the group of hosts.
func describeSharing(s *wall.Sharing) string {
	c := s.Companion
	if c == nil {
		return fmt.Sprintf("Other hosts of the group %s: unknown, as no companion tells of them.", printable.Escape(s.Group))
	}
	text := fmt.Sprintf("This host is %s in the group %s", printable.Escape(c.Name), printable.Escape(c.Group))
	switch {
	case !c.Connected:
		return text + ", and connected with no NATS server."
	case c.Count == 0:
		return text + ", and hears no other host."
	}
	const most = 8
	var names []string
	for _, m := range c.Members[:min(most, len(c.Members))] {
		lag := "unknown"
		if m.LagSeconds != nil {
			lag = fmt.Sprintf("%.1f ms", *m.LagSeconds*1000)
		}
		names = append(names, fmt.Sprintf("%s (lag %s)", printable.Escape(m.Name), lag))
	}
	text += fmt.Sprintf(", with %s: %s", printable.Count(c.Count, "other host"), strings.Join(names, ", "))
	if more := c.Count - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	text += "."
	if c.Lost > 0 {
		text += fmt.Sprintf(" It has missed %s, and asked for what was in them.", printable.Count(int(min(c.Lost, 1<<31-1)), "message"))
	}
	return text
}
