package migrate

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// door is one of a rule file, or a comment instead of one.
type door struct {
	title string // what it was called; may be anything
	line  int
	notes []string
	left  bool // only the notes are written

	ports         []packet.PortRange
	sequence      []packet.Port
	oneTime       string // path of a file with sequences
	seqTimeout    time.Duration
	window        time.Duration // 0: not written
	closeSequence []packet.Port
	flags         []string
	device        string // an interface
	to            string
	onOpen        *command
	onClose       *command
	otp           *passwords

	closing *closing // it closes another door
	noStop  bool     // knockd left it open
}

// closing is the half of a pair of doors that deletes what the other puts in.
type closing struct {
	ports  []packet.PortRange // none: it does not say which
	device string
	script *command
	text   string
	extra  bool // it does something else, too
}

func (d *door) note(format string, a ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, a...))
}

// What knockd has where nothing is said, and what a window has that was without
// an end.
const (
	knockdSeqTimeout = 25
	knockdCmdTimeout = 10
	someWindow       = 30 * time.Second
)

// door turns a section.
func (im *importer) door(s *section) *door {
	d := &door{title: s.name, line: s.line}
	im.knocks(s, d)
	d.seqTimeout = im.seconds(s, d, "seq_timeout", "Seq_Timeout", knockdSeqTimeout, sequence.MaxTimeout)
	if v, ok := s.values["target"]; ok {
		d.target(v.text)
	}
	start, stop := im.scripts(s, "start_command"), im.scripts(s, "stop_command")
	lasts := im.seconds(s, d, "cmd_timeout", "Cmd_Timeout", knockdCmdTimeout, ruleset.MaxWindow)
	switch e := start.effect(); {
	case start.empty():
		d.left = true
		d.note("It runs no command, so that it opened nothing, and it is left out.")
	case e.understood && e.kind == opens:
		d.guard(start, e, stop, lasts)
	case e.understood && e.kind == closes && stop.empty():
		d.closing = &closing{e.ports, e.device, start.command(), start.text(), len(e.rest) > 0}
		d.notes = append(d.notes, e.notes...)
	default:
		d.run(start, stop, lasts)
	}
	return d
}

// stateFolder is the one folder that lasts and that the daemon's sandbox lets it
// write to.
const stateFolder = "/var/lib/knockwall"

// knocks turns what opens the door.
func (im *importer) knocks(s *section, d *door) {
	steps, hasSteps := s.values["sequence"]
	file, hasFile := s.values["one_time_sequences"]
	switch {
	case hasFile && (!path.IsAbs(file.text) || !exact(file.text)):
		im.fail(file.line, "%q is not an absolute path in UTF-8: write where the file with the sequences is, from / on", printable.Escape(file.text))
	case hasFile:
		d.oneTime = file.text
		d.note("The daemon crosses out what is used in the list %s, so it has to be the daemon's own, in its folder "+stateFolder+": "+
			"see above. Then write here where it is.", file.text)
		if hasSteps {
			d.note("knockd had a Sequence here, too, %s; the one-time sequences have taken its place.", steps.text)
		}
	case hasSteps:
		d.sequence = im.sequence(withoutComment(steps))
		if n := len(d.sequence); n > sequence.MaxSteps {
			im.fail(steps.line, "a sequence has %d knocks at most, and this one has %d: shorten it", sequence.MaxSteps, n)
		}
	default:
		im.fail(s.line, "[%s] has no Sequence: give it one, or take it out", printable.Escape(s.name))
	}
	if v, ok := s.values["tcpflags"]; ok {
		d.flags = im.flags(withoutComment(v))
	}
}

// seconds reads how long something lasts: a whole number of seconds. A rule file
// may have from one second to most.
func (im *importer) seconds(s *section, d *door, key, name string, otherwise int, most time.Duration) time.Duration {
	v, ok := s.values[key]
	if !ok {
		return time.Duration(otherwise) * time.Second
	}
	v = withoutComment(v)
	n, err := strconv.ParseUint(v.text, 10, 31)
	switch lasts := time.Duration(n) * time.Second; {
	case err != nil:
		im.fail(v.line, "%s is a whole number of seconds, and not %q", name, printable.Escape(v.text))
		return 0
	case lasts < time.Second:
		d.note("%s was %d s; here it is one second, the least that is of use.", name, n)
		return time.Second
	case lasts > most:
		d.note("%s was %d s; here it is %s, the most there is.", name, n, duration(most))
		return most
	default:
		return lasts
	}
}

func (d *door) target(text string) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		d.note("Target = %s is not an address. Write to = [\"192.0.2.1\"], with the address that it stands for; "+
			"without it, this host's own addresses are guarded.", text)
		return
	}
	d.to = addr.Unmap().String()
	d.note("Target: knocks and connections to %s. If this is an address of this host, and its others are to be guarded as well, take out \"to\".", d.to)
}

// guard makes a door of ports. start opens the ports, as e says, and stop is what
// knockd ran afterwards, if not empty.
func (d *door) guard(start scripts, e effect, stop scripts, lasts time.Duration) {
	d.ports, d.device = e.ports, e.device
	d.notes = append(d.notes, e.notes...)
	if d.device != "" {
		d.note("The command named the interface %s, so the door stands there only. "+elsewhereOpen, d.device)
	}
	if len(e.rest) > 0 {
		d.onOpen = restCommand(e.rest)
	}
	if start.v6 != nil && start.v6.empty() {
		d.note("knockd did nothing for a source of IPv6; here, one that knocks is let in, too. To keep IPv6 out, list this host's IPv4 addresses in \"to\".")
	}
	switch {
	case !stop.empty():
		d.window = lasts
		d.after(stop, e)
	case e.lasts > 0:
		d.window = min(max(e.lasts, ruleset.MinWindow), ruleset.MaxWindow)
	default:
		d.window, d.noStop = someWindow, true
	}
	d.sandbox(d.onOpen, d.onClose)
}

// elsewhereOpen warns of doors that stand before some interfaces only.
const elsewhereOpen = "On others your firewall decides alone: what it accepts there, anybody can reach."

// after turns what knockd ran when the time of a door with ports was over. That
// its ports close then needs no command.
func (d *door) after(stop scripts, opened effect) {
	e := stop.effect()
	switch {
	case e.understood && e.kind != opens:
		if len(e.ports) > 0 && !slices.Equal(e.ports, opened.ports) {
			d.note("The Stop_Command closed other ports than the Start_Command had opened; here, all of them close.")
		}
		if len(e.rest) > 0 {
			d.onClose = restCommand(e.rest)
		}
	case anyFirewall.MatchString(stop.text()):
		d.note("Its Stop_Command changes the firewall and is left out, as nothing is put into it any more: %s", stop.text())
	default:
		d.onClose = stop.command()
	}
}

// run makes a door of commands.
func (d *door) run(start, stop scripts, lasts time.Duration) {
	if anyFirewall.MatchString(start.text()) {
		d.note("It is not clear that this command opens some ports to the one source, and does nothing else. So it is run as before, " +
			"and no port is guarded here. If that is what it does, write ports = [...] instead of it.")
	} else {
		d.note("It runs a command, and guards no port. If the command opens ports to who has knocked, write ports = [...] instead of it.")
	}
	d.onOpen = start.command()
	if !stop.empty() {
		d.onClose, d.window = stop.command(), lasts
	}
	d.sandbox(d.onOpen, d.onClose)
}

// sandboxed is what is different for what the daemon runs.
const sandboxed = "The sandbox of knockwall.service applies: see above. Try it."

// sandbox tells what is different for commands that the daemon runs.
func (d *door) sandbox(commands ...*command) {
	said := false
	for _, c := range commands {
		if c == nil {
			continue
		}
		if c.shell != "" {
			d.note("A shell runs this command, as it did under knockd; the source is in $KNOCKWALL_SOURCE. " + sandboxed)
			return
		}
		said = true
	}
	if said {
		d.note("%s", sandboxed)
	}
}
