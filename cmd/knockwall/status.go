//go:build linux

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

With --json it prints the answer of GET /v1/status on the control socket, with
times in seconds. With --watch it prints the status every second, until Ctrl-C.`,
		Example: `  sudo knockwall status
  sudo knockwall status --watch
  sudo knockwall status --json | jq -r '.windows[].source'
  sudo curl --unix-socket /run/knockwall/control.sock http://knockwall/v1/status`,
		Args: noArguments,
	}
	path := controlFlag(c)
	asJSON := c.Flags().Bool("json", false, "write the status as JSON")
	watch := c.Flags().Bool("watch", false, "show the status every second")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client := control.NewClient(*path)
		if !*watch {
			return showStatus(c, client, *asJSON, "")
		}
		clear := ""
		if _, is := terminal.Width(c.OutOrStdout()); is && !*asJSON {
			clear = "\x1b[H\x1b[J" // cursor home, then erase to the end of the screen
		}
		for {
			if err := showStatus(c, client, *asJSON, clear); err != nil {
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

// watchInterval is the time between two outputs of status --watch.
const watchInterval = time.Second

// showStatus gets the status from the daemon, then writes clear and the status.
func showStatus(c *cobra.Command, client *control.Client, asJSON bool, clear string) error {
	s, err := client.Status(c.Context())
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	fmt.Fprint(out, clear)
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(s)
	}
	return writeStatus(out, s, time.Now())
}

func writeStatus(out io.Writer, s wall.Status, now time.Time) error {
	fmt.Fprintf(out, "The daemon has run the wall (table inet %s) since %s, for %s.\n",
		s.Table, s.Since.Format(time.DateTime), now.Sub(s.Since).Round(time.Second))
	if s.Trial != nil {
		fmt.Fprintf(out, "It is on trial: without `knockwall confirm` the former state returns in %s.\n", inSeconds(s.Trial.LeftSeconds))
	}
	if s.FilesDiffer {
		fmt.Fprintln(out, "The rule files differ from the rules in force. `knockwall check` checks the files,\n`knockwall reload` puts them in force.")
	}
	for _, f := range s.Findings {
		word := string(f.Severity)
		if f.Severity == doctor.Error {
			word = "degraded"
		}
		writeFinding(out, word, f)
	}
	if n := s.Counters.Healed; n > 0 {
		fmt.Fprintf(out, "Other programs have changed the wall, and the daemon put it back: %s.\n", printable.Count(int(n), "time"))
	}
	if n := s.Counters.Lost; n > 0 {
		fmt.Fprintf(out, "%s came faster than they could be read.\n", printable.Count(int(n), "packet"))
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
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", source, win.Door, inSeconds(win.LeftSeconds), win.Connections)
		}
	} else {
		fmt.Fprintf(w, "\nNo window is open.\n")
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
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}
