//go:build linux && !client

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/durable"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/report"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// serviceUnit is the unit whose events report reads from the journal.
const serviceUnit = "knockwall.service"

func reportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "report",
		Short: "Sum up who came in, what was refused, and what was not used",
		Long: `report sums up the events of a period: who came in at which door, when, by which
way and from where, the refused connections by hour, the scans that were
trapped, and the doors and people of the rule files that were not used.
Addresses that are trusted come in without a trace.

It reads the events of the service from the journal. If there are none, or with
--control, it asks the daemon, which remembers the last 1,000 refusals, the last
1,000 knocks and the last 1,000 other events since it started. The report says
where its events are from.

With --html it writes a page with plots to a file that only you can read. The
page is one file, has no script, and loads nothing from elsewhere.`,
		Example: `  sudo knockwall report
  sudo knockwall report --since 24h
  sudo knockwall report --since 30d --html report.html`,
		Args: noArguments,
	}
	config, path := configFlag(c), controlFlag(c)
	since := c.Flags().String("since", "7d", "begin that `TIME` ago, such as 24h, 7d or 4w")
	page := c.Flags().String("html", "", "write a page to `FILE`, and nothing to the terminal")
	c.RunE = func(c *cobra.Command, _ []string) error {
		period, err := parsePeriod(*since)
		if err != nil {
			return err
		}
		socket := ""
		if c.Flags().Changed("control") {
			socket = *path
		}
		now := time.Now()
		collector, origin, err := collect(c.Context(), now.Add(-period), now, socket)
		if err != nil {
			return err
		}
		r := collector.Report(knownTo(*config, now))
		if *page == "" {
			columns, _ := terminal.Width(c.OutOrStdout())
			return r.WriteText(c.OutOrStdout(), report.Style{Columns: int(columns), ASCII: !terminal.IsUTF8()}, origin)
		}
		var html bytes.Buffer
		if err := r.WritePage(&html, origin); err != nil {
			return err
		}
		if err := durable.Replace(*page, html.Bytes(), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s: written\n", *page)
		return nil
	}
	return c
}

// parsePeriod parses a time as Go writes it, or a number of days (7d) or weeks (4w).
func parsePeriod(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	d, err := time.ParseDuration(text)
	for unit, length := range map[string]time.Duration{"d": day, "w": 7 * day} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			var n uint64
			n, err = strconv.ParseUint(number, 10, 16)
			d = time.Duration(n) * length
		}
	}
	if err != nil || d < time.Minute || d > report.MaxDays*day {
		return 0, usage(`--since takes a time from 1m to %dd, such as 24h, 7d or 4w, and not %q`, report.MaxDays, text)
	}
	return d, nil
}

// collect collects the events of a period, and says where they are from. Without a socket it
// prefers the journal.
func collect(ctx context.Context, from, until time.Time, socket string) (c *report.Collector, origin string, err error) {
	var journal error
	if socket == "" {
		c = report.NewCollector(from, until)
		n := 0
		journal = systemd.ReadJournal(ctx, serviceUnit, from, func(e audit.Event) error {
			n++
			c.Add(e)
			return nil
		})
		if journal == nil && n > 0 {
			return c, "the journal of " + serviceUnit, nil
		}
		if journal == nil {
			journal = fmt.Errorf("the journal has no events of %s in that time, or you may not read them", serviceUnit)
		}
		socket = control.DefaultPath
	}
	c = report.NewCollector(from, until)
	err = control.NewClient(socket).Events(ctx, control.Selection{}, func(e audit.Event) error {
		c.Add(e)
		return nil
	})
	if err != nil {
		return nil, "", errors.Join(err, journal)
	}
	origin = "the daemon's memory"
	if journal != nil && os.Geteuid() != 0 {
		origin += " (`sudo knockwall report` reads the journal)"
	}
	return c, origin, nil
}

// knownTo returns the doors and people of the rule files, or nil if they cannot be used.
func knownTo(path string, now time.Time) *report.Known {
	loaded := review(path)
	if loaded.Config == nil {
		return nil
	}
	known := &report.Known{Trusted: map[string][]netip.Prefix{}}
	doors := map[string][]string{}
	for _, d := range loaded.Config.Doors {
		known.Doors = append(known.Doors, d.Name)
		known.Trusted[d.Name] = slices.Concat(loaded.Config.Wall.Trusted, d.Trusted)
		for _, name := range peopleOf(&d, now) {
			doors[name] = append(doors[name], d.Name)
		}
	}
	for name, of := range doors {
		known.People = append(known.People, report.Person{Name: name, Doors: of})
	}
	slices.SortFunc(known.People, func(a, b report.Person) int { return strings.Compare(a.Name, b.Name) })
	return known
}

// peopleOf returns the names of the people who may open a door, each once.
func peopleOf(d *ruleset.Door, now time.Time) (names []string) {
	for _, m := range d.Methods {
		if members, ok := m.(method.Members); ok {
			names = append(names, members.Listed(now)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
