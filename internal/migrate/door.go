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

// door is a door of the rule file, or a comment in place of one.
type door struct {
	title string // its former name; any text
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

	closing *closing // not nil if the door closes another door
	noStop  bool     // knockd did not close it again
}

// closing is the half of a pair of doors whose command deletes the rule of the other.
type closing struct {
	ports  []packet.PortRange // empty: the command does not name them
	device string
	script *command
	text   string
	extra  bool // the command does something else, too
}

func (d *door) note(format string, a ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, a...))
}

// knockd's default timeouts in seconds, and the window of a door that knockd did not close.
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
		d.note("This door is left out: it runs no command, so it opened nothing.")
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

// stateFolder is the only permanent folder to which the daemon's sandbox permits writing.
const stateFolder = "/var/lib/knockwall"

// knocks turns the keys for opening the door.
func (im *importer) knocks(s *section, d *door) {
	steps, hasSteps := s.values["sequence"]
	file, hasFile := s.values["one_time_sequences"]
	switch {
	case hasFile && (!path.IsAbs(file.text) || !exact(file.text)):
		im.fail(file.line, "%q is not an absolute path in UTF-8: write the path of the file with the sequences, which begins with /", printable.Escape(file.text))
	case hasFile:
		d.oneTime = file.text
		d.note("The daemon marks used sequences in the list %s. So the daemon must own the list, and the list must be in "+stateFolder+": "+
			"see above. Then write its new path here.", file.text)
		if hasSteps {
			d.note("This door also had the Sequence %s. The one-time sequences replace it.", steps.text)
		}
	case hasSteps:
		d.sequence = im.sequence(withoutComment(steps))
		if n := len(d.sequence); n > sequence.MaxSteps {
			im.fail(steps.line, "a sequence has at most %d knocks, and this one has %d: shorten it", sequence.MaxSteps, n)
		}
	default:
		im.fail(s.line, "[%s] has no Sequence: write one, or remove the door", printable.Escape(s.name))
	}
	if v, ok := s.values["tcpflags"]; ok {
		d.flags = im.flags(withoutComment(v))
	}
}

// seconds reads a whole number of seconds. It limits the result to the range from one
// second to most. otherwise is the default in seconds.
func (im *importer) seconds(s *section, d *door, key, name string, otherwise int, most time.Duration) time.Duration {
	v, ok := s.values[key]
	if !ok {
		return time.Duration(otherwise) * time.Second
	}
	v = withoutComment(v)
	n, err := strconv.ParseUint(v.text, 10, 31)
	switch lasts := time.Duration(n) * time.Second; {
	case err != nil:
		im.fail(v.line, "%s must be a whole number of seconds, not %q", name, printable.Escape(v.text))
		return 0
	case lasts < time.Second:
		d.note("%s was %d s. Here it is one second, the minimum.", name, n)
		return time.Second
	case lasts > most:
		d.note("%s was %d s. Here it is %s, the maximum.", name, n, duration(most))
		return most
	default:
		return lasts
	}
}

func (d *door) target(text string) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		d.note("Target = %s is not an address. Write to = [\"192.0.2.1\"] with the address that it stands for. "+
			"Without \"to\", the door guards this host's own addresses.", text)
		return
	}
	d.to = addr.Unmap().String()
	d.note("Target: this door is for knocks and connections to %s. If this is an address of this host, remove \"to\" to guard the host's other addresses as well.", d.to)
}

// guard makes a door with ports. e is the effect of start, and stop is the command that
// knockd ran afterwards. It may be empty.
func (d *door) guard(start scripts, e effect, stop scripts, lasts time.Duration) {
	d.ports, d.device = e.ports, e.device
	d.notes = append(d.notes, e.notes...)
	if d.device != "" {
		d.note("The command named the interface %s, so the door guards only this one. "+elsewhereOpen, d.device)
	}
	if len(e.rest) > 0 {
		d.onOpen = restCommand(e.rest)
	}
	if start.v6 != nil && start.v6.empty() {
		d.note("knockd did nothing for IPv6 sources. Here IPv6 sources that knock are admitted, too. To exclude IPv6, list this host's IPv4 addresses in \"to\".")
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

// elsewhereOpen is the warning for doors that guard only some interfaces.
const elsewhereOpen = "On other interfaces your firewall decides alone: everybody can reach what it accepts there."

// after turns the command that knockd ran at the end of the time of a door with ports. The
// ports close without a command.
func (d *door) after(stop scripts, opened effect) {
	e := stop.effect()
	switch {
	case e.understood && e.kind != opens:
		if len(e.ports) > 0 && !slices.Equal(e.ports, opened.ports) {
			d.note("The Stop_Command closed other ports than the Start_Command had opened. Here all opened ports close.")
		}
		if len(e.rest) > 0 {
			d.onClose = restCommand(e.rest)
		}
	case anyFirewall.MatchString(stop.text()):
		d.note("This Stop_Command is left out, as it changes the firewall, and knockwall adds nothing there: %s", stop.text())
	default:
		d.onClose = stop.command()
	}
}

// run makes a door that only runs commands.
func (d *door) run(start, stop scripts, lasts time.Duration) {
	if anyFirewall.MatchString(start.text()) {
		d.note("It is not certain that this command opens ports to the source and does nothing else. So the daemon runs it as before, " +
			"and the door guards no port. If the command does just this, write ports = [...] instead of it.")
	} else {
		d.note("This door runs a command and guards no port. If the command opens ports to the source, write ports = [...] instead of it.")
	}
	d.onOpen = start.command()
	if !stop.empty() {
		d.onClose, d.window = stop.command(), lasts
	}
	d.sandbox(d.onOpen, d.onClose)
}

// sandboxed is the comment for commands that the daemon runs.
const sandboxed = "The sandbox of knockwall.service applies: see above. Try it."

// sandbox adds a comment if the daemon runs any of the commands.
func (d *door) sandbox(commands ...*command) {
	said := false
	for _, c := range commands {
		if c == nil {
			continue
		}
		if c.shell != "" {
			d.note("A shell runs this command, as under knockd. The source is in $KNOCKWALL_SOURCE. " + sandboxed)
			return
		}
		said = true
	}
	if said {
		d.note("%s", sandboxed)
	}
}
