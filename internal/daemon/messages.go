//go:build linux

package daemon

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// describe writes what the wall guards, and what is not as the rule files say.
func (d *daemon) describe(config *ruleset.Config, hasUDPTimeout bool) {
	report := doctor.Examine(&doctor.Host{Config: config}, doctor.Reading)
	_ = terminal.WriteDiagnostics(systemd.At(d.stderr, systemd.Warning), report.Warnings())
	writeGuarded(d.stderr, config, report.Findings)
	if !hasUDPTimeout && config.HasUDP() {
		d.logWarning("this kernel cannot set how long it remembers a UDP flow (CONFIG_NF_CONNTRACK_TIMEOUT):\n" +
			"after 30 s of silence the client has to knock again, whatever udp_timeout says")
	}
	if d.Confirm != 0 {
		fmt.Fprintf(d.stderr, "on trial until %s: type `%s` before then, from a new connection\n",
			time.Now().Add(d.Confirm).Format(time.TimeOnly), control.Command(d.Control, "confirm"))
	}
}

// writeGuarded writes what the wall guards, and what it does not guard.
func writeGuarded(w io.Writer, config *ruleset.Config, findings []doctor.Finding) {
	guarded := writeBare(systemd.At(w, systemd.Error), config.Doors, findings)
	for i := range guarded {
		d := &guarded[i]
		fmt.Fprintf(w, "%s, open for %s after %s\n", purposeOf(d), printable.Time(d.Window), openersOf(d))
	}
	if len(config.Doors) == 0 {
		fmt.Fprintln(w, "guarding nothing: the rule files have no door")
	}
}

// writeChanges writes which doors guard nothing since the host changed, and which doors
// guard their ports again.
func writeChanges(w io.Writer, config *ruleset.Config, before, now []doctor.Finding) {
	wereBare, areBare := doctor.BareDoors(before), doctor.BareDoors(now)
	for i := range config.Doors {
		d := &config.Doors[i]
		was, is := wereBare[d.Name], areBare[d.Name]
		switch {
		case is != "" && is != was:
			writeBare(systemd.At(w, systemd.Error), config.Doors[i:i+1], now)
		case is == "" && was != "":
			fmt.Fprintln(w, purposeOf(d), "again")
		}
	}
}

// writeBare writes which doors guard nothing, and why, and returns the other doors.
func writeBare(w io.Writer, doors []ruleset.Door, findings []doctor.Finding) (guarded []ruleset.Door) {
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

// purposeOf says what a door does: it guards ports, or only hears knocks for commands.
func purposeOf(d *ruleset.Door) string {
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

// openersOf describes what opens a door, without the secrets.
func openersOf(d *ruleset.Door) string {
	var ways []string
	for _, m := range d.Methods {
		ways = append(ways, m.Describe(d.SequenceTimeout))
	}
	return strings.Join(ways, ", or ")
}

// statusLine describes the state of the daemon in one line, for systemd.
func statusLine(guarded, bare, windows int) string {
	s := printable.Count(guarded, "door") + " guarded, " + printable.Count(windows, "window") + " open"
	if bare > 0 {
		s = "degraded: " + printable.Count(bare, "door") + " NOT guarded, " + s
	}
	return s
}
