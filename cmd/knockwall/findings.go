//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// onReading examines whether doors on this host are what the rule files say, and returns
// the findings as warnings. They are no errors, as the files may be for another host.
func onReading(config *ruleset.Config) (doctor.Report, *ruleset.Loaded) {
	r := doctor.Examine(&doctor.Host{Config: config}, doctor.Reading)
	return r, warnings(r.Findings)
}

// warnings turns findings into warnings as for rule files.
func warnings(findings []doctor.Finding) *ruleset.Loaded {
	l := &ruleset.Loaded{}
	for _, f := range findings {
		what := "This host"
		switch {
		case f.Bare:
			what = fmt.Sprintf("The door %q guards nothing on this host", f.Door)
		case f.Door != "":
			what = fmt.Sprintf("The door %q, on this host", f.Door)
		}
		l.Diagnostics = append(l.Diagnostics, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: what, Detail: f.Problem + " " + f.Cure})
	}
	return l
}

// notLookedAt names the checks of the host that could not be made, if any.
func notLookedAt(unmade []doctor.Unmade) string {
	var names []string
	for _, u := range unmade {
		names = append(names, u.Check)
	}
	if len(names) == 0 {
		return ""
	}
	return "; not checked: " + strings.Join(names, ", ")
}

// tellChanged writes which doors guard nothing since the host changed, and which doors
// guard their ports again.
func tellChanged(w io.Writer, config *ruleset.Config, before, now []doctor.Finding) {
	wereBare, areBare := doctor.BareDoors(before), doctor.BareDoors(now)
	for i := range config.Doors {
		d := &config.Doors[i]
		was, is := wereBare[d.Name], areBare[d.Name]
		switch {
		case is != "" && is != was:
			tellBare(systemd.At(w, systemd.Error), config.Doors[i:i+1], now)
		case is == "" && was != "":
			fmt.Fprintln(w, mindedBy(d), "again")
		}
	}
}

// tellBare writes which doors guard nothing, and why, and returns the other doors.
func tellBare(w io.Writer, doors []ruleset.Door, findings []doctor.Finding) (guarded []ruleset.Door) {
	bare := doctor.BareDoors(findings)
	return slices.DeleteFunc(slices.Clone(doors), func(d ruleset.Door) bool {
		why := bare[d.Name]
		switch {
		case why == "":
		case len(d.Ports) == 0:
			fmt.Fprintf(w, "%s hears NO knocks: %s\n", d.Name, why)
		default:
			fmt.Fprintf(w, "%s is NOT guarded: %s\n", portsOf(&d), why)
		}
		return why != ""
	})
}

// mindedBy says what a door does: it guards ports, or only hears knocks for commands.
func mindedBy(d *ruleset.Door) string {
	if len(d.Ports) == 0 {
		return "hearing knocks for " + d.Name + ": commands"
	}
	return "guarding " + portsOf(d)
}

// portsOf returns the name of a door and its ports.
func portsOf(d *ruleset.Door) string {
	var ports []string
	for _, p := range d.Ports {
		ports = append(ports, p.String())
	}
	return d.Name + ": " + strings.Join(ports, ", ")
}
