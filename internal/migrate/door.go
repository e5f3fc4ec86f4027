package migrate

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/sandbox"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// door is a door of the rule file, or a comment in place of one.
type door struct {
	title string // its former name; any text
	file  string // its file, if there is more than one
	line  int
	notes []string
	left  bool // only the notes are written, and the door as a comment if it is proposed

	ports         []packet.PortRange
	sequence      []packet.Port
	oneTime       string // path of a file with sequences
	seqTimeout    time.Duration
	window        time.Duration // 0: not written
	closeSequence []packet.Port
	flags         []string
	device        string // an interface
	to            []string
	onOpen        *command
	onClose       *command
	otp           *passwords

	opened   *opening // what knockd's commands opened; nil: nothing
	proposed bool     // the door is written as a comment, for the administrator to complete
	closing  *closing // not nil if the door closes another door
	noStop   bool     // knockd did not close it again
}

// closing is the half of a pair of doors whose command takes back that of the other.
type closing struct {
	acts   []act
	script *command
	runs   bool // the daemon can run the command
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
	if im.knocks(s, d); d.left {
		return d
	}
	d.seqTimeout = s.seconds(d, "seq_timeout", "Seq_Timeout", knockdSeqTimeout, sequence.MaxTimeout)
	if v, ok := s.values["target"]; ok {
		d.target(v.text)
	}
	start, stop := scriptsOf(s, "start_command"), scriptsOf(s, "stop_command")
	_, timed := s.values["cmd_timeout"]
	lasts := s.seconds(d, "cmd_timeout", "Cmd_Timeout", knockdCmdTimeout, ruleset.MaxWindow)
	if d.unreadable(&start) {
		return d
	}
	if d.unreadable(&stop) {
		stop = scripts{}
		d.left = false
	}
	d.opened = start.opening()
	switch {
	case start.empty():
		d.left = true
		d.note("This door is left out: it runs no command, so it opened nothing.")
	case d.opened != nil && d.opened.reason() == "":
		d.guard(&start, &stop, lasts, timed)
	case d.opened != nil:
		d.keep(&start, &stop, lasts)
	case stop.empty() && start.closes():
		d.closing = closingOf(&start)
	default:
		d.run(&start, &stop, lasts)
	}
	return d
}

// scriptsOf reads a command of a door: the values of key and key_6.
func scriptsOf(s *section, key string) scripts {
	both := scripts{v4: readScript(s.values[key].text)}
	if v, ok := s.values[key+"_6"]; ok && v.text != s.values[key].text {
		v6 := readScript(v.text)
		both.v6 = &v6
	}
	return both
}

// unreadable leaves the door out if a shell cannot read its command, or a rule file cannot
// hold it.
func (d *door) unreadable(s *scripts) bool {
	err := s.wrong()
	if !exact(s.text()) {
		err = errors.New("it is not UTF-8 in normal form C, so a rule file cannot hold it unchanged: write its accented characters anew")
	}
	if err != nil {
		d.left = true
		d.note("This command is left out, as %v. Correct it in the old file, and import that again: %s", err, s.text())
	}
	return err != nil
}

// closes reports whether the scripts close something and open nothing.
func (s *scripts) closes() bool {
	return s.doubt() == "" && s.any(func(one *script) bool {
		return slices.ContainsFunc(one.acts(), func(a act) bool { return a.closes() && a.doubt == "" })
	})
}

func closingOf(s *scripts) *closing {
	c := &closing{script: s.command(), text: s.text(), extra: s.others(0, forEver) != nil, runs: s.runs() == ""}
	for _, one := range s.each() {
		for _, a := range one.acts() {
			if a.closes() {
				c.acts = append(c.acts, a)
			}
		}
	}
	return c
}

// stateFolder is the only permanent folder to which the daemon's sandbox permits writing.
const stateFolder = "/var/lib/knockwall"

// knocks turns the keys for opening the door.
func (im *importer) knocks(s *section, d *door) {
	steps, hasSteps := s.values["sequence"]
	file, hasFile := s.values["one_time_sequences"]
	switch {
	case hasFile && (!path.IsAbs(file.text) || !exact(file.text)):
		d.left = true
		d.note("This door is left out: %q is not an absolute path in UTF-8. Write the path of the file with the sequences, which begins with /, "+
			"into the old file, and import that again.", printable.Escape(file.text))
	case hasFile:
		d.oneTime = file.text
		d.note("The daemon marks used sequences in the list %s. So the daemon must own the list, and the list must be in "+stateFolder+": "+
			"see above. Then write its new path here.", file.text)
		if hasSteps {
			d.note("This door also had the Sequence %s. The one-time sequences replace it.", steps.text)
		}
	case hasSteps:
		im.sequence(withoutComment(steps), d)
	default:
		im.fail(s.line, "[%s] has no Sequence: write one, or remove the door", printable.Escape(s.name))
	}
	if v, ok := s.values["tcpflags"]; ok {
		d.flags = im.flags(withoutComment(v))
	}
}

// seconds reads a whole number of seconds. It limits the result to the range from one
// second to most. otherwise is the default in seconds.
func (s *section) seconds(d *door, key, name string, otherwise int, most time.Duration) time.Duration {
	v, ok := s.values[key]
	if !ok {
		return time.Duration(otherwise) * time.Second
	}
	v = withoutComment(v)
	// knockd stops reading at the end of the number.
	digits := v.text[:len(v.text)-len(strings.TrimLeft(v.text, "0123456789"))]
	n, err := strconv.ParseUint(digits, 10, 31)
	switch lasts := time.Duration(n) * time.Second; {
	case err != nil:
		d.note("%s = %s is not a number of seconds, and knockd took 0. Here it is %d s, knockd's default.", name, v.text, otherwise)
		return time.Duration(otherwise) * time.Second
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
	d.to = []string{addr.Unmap().String()}
	d.note("Target: this door is for knocks and connections to %s. If this is an address of this host, remove \"to\" to guard the host's other addresses as well.", d.to[0])
}

// elsewhereOpen is the warning for doors that guard only some interfaces.
const elsewhereOpen = "On other interfaces your firewall decides alone: everybody can reach what it accepts there."

// guard makes a door with ports of what start opened. stop is what knockd ran afterwards.
func (d *door) guard(start, stop *scripts, lasts time.Duration, timed bool) {
	o := d.opened
	d.take(o)
	d.notes = append(d.notes, o.notes...)
	if d.device != "" {
		d.note("The command named the interface %s, so the door guards only this one. "+elsewhereOpen, d.device)
	}
	if o.forwarded {
		d.note("This door guards %s behind this host, so clients knock at that address. If they reach it by an address of this host (port forwarding), "+
			"remove \"to\", and write the port that they connect to: the wall stands before the translation.", strings.Join(d.to, ", "))
	}
	for _, command := range o.nat {
		d.note("NAT: the command changed where the source's packets go, and knockwall changes no addresses and ports. So let your firewall do that for everybody, "+
			"who cannot get past this door without a knock: %s", command)
		d.note("If everybody is to reach these ports as well, as those of a web server, guard the port behind the translation instead, and let clients connect to that one.")
	}
	d.onOpen = start.others(0, o.until())
	d.onClose = start.others(o.until(), forEver)
	switch {
	case !stop.empty():
		d.window = lasts
		d.after(stop)
	case o.ended > 0:
		d.window = limited(o.ended - o.began)
	case o.lasts > 0:
		d.window = limited(o.lasts)
	case timed:
		d.window = lasts
		d.note("knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here the door closes after it. Connections stay when it closes.")
	default:
		d.window, d.noStop = someWindow, true
	}
	d.sandbox()
}

// take takes what the commands opened into the door.
func (d *door) take(o *opening) {
	d.ports = o.ports
	if o.device != "" {
		d.device = o.device
	}
	if len(o.to) > 0 {
		d.to = o.to
	}
}

// limited returns a duration within the limits of a window.
func limited(d time.Duration) time.Duration {
	return min(max(d, ruleset.MinWindow), ruleset.MaxWindow)
}

// after turns the command that knockd ran at the end of the time of a door with ports. The
// ports close without a command.
func (d *door) after(stop *scripts) {
	o := d.opened
	understood := stop.doubt() == ""
	for _, s := range stop.each() {
		for _, a := range s.acts() {
			if a.opens() || a.doubt != "" && a.closes() {
				understood = false
			}
			if a.path == forwarded && len(o.nat) > 0 {
				continue // the same connection after its destination was changed
			}
			if a.closes() && !a.isAnonymous() && understood && !slices.ContainsFunc(o.acts, func(b act) bool { return a.takesBack(&b) }) {
				d.note("The Stop_Command closed other ports than the Start_Command had opened. Here all opened ports close.")
			}
		}
	}
	if !understood {
		d.note("This Stop_Command is left out, as it changes the firewall, and knockwall adds nothing there: %s", stop.text())
		return
	}
	if others := stop.others(0, forEver); others != nil {
		d.onClose = others
	}
}

// keep makes a door whose commands the daemon runs as before, although they open ports. If
// the daemon cannot run them, the door is only proposed.
func (d *door) keep(start, stop *scripts, lasts time.Duration) {
	o := d.opened
	d.note("%s", o.reason())
	proposal := "[22], with your own ports"
	if len(o.ports) > 0 {
		proposal = portText(o.ports)
	}
	d.window = limited(max(o.lasts, o.ended-o.began))
	if !stop.empty() {
		d.window = lasts
	} else if o.lasts == 0 && o.ended == 0 {
		d.window = someWindow
	}
	why := start.runs()
	if why == "" {
		why = stop.runs()
	}
	if why != "" {
		d.left, d.proposed = true, true
		d.take(o)
		if len(d.ports) == 0 {
			d.ports, _ = servicePorts("ssh")
		}
		d.note("The daemon cannot run it: %s. So complete this door, with your ports, and remove the # before it:", why)
		return
	}
	d.note("So the daemon runs the command as before, and the door guards no port. To let the wall guard the ports, write them instead of on_open and on_close, "+
		"and let your firewall accept them from everybody: ports = %s", proposal)
	d.onOpen = start.command()
	if !stop.empty() {
		d.onClose = stop.command()
	}
	d.sandbox()
}

// run makes a door that only runs commands.
func (d *door) run(start, stop *scripts, lasts time.Duration) {
	if start.touchesFirewall() {
		reason := start.doubt()
		for _, s := range start.each() {
			for _, a := range s.acts() {
				reason = cmp.Or(reason, a.doubt)
			}
		}
		if reason != "" {
			reason = " (" + reason + ")"
		}
		if why := cmp.Or(start.runs(), stop.runs()); why != "" {
			d.left, d.proposed = true, true
			d.ports, _ = servicePorts("ssh")
			d.window = someWindow
			if !stop.empty() {
				d.window = lasts
			}
			d.note("This command changes the firewall, and it is not certain that it opens ports to the source%s. The daemon cannot run it: %s. "+
				"If it opens ports, complete this door, with your ports, and remove the # before it:", reason, why)
			return
		}
		d.note("This command changes the firewall, and it is not certain that it opens ports to the source%s. So the daemon runs it as before, "+
			"and the door guards no port. If it does open ports, write them instead of the command: ports = [22], with your own ports", reason)
	} else {
		d.note("This door runs a command and guards no port. If the command opens ports to the source, write them instead of it: ports = [22], with your own ports")
	}
	d.onOpen = start.command()
	if !stop.empty() {
		d.onClose, d.window = stop.command(), lasts
	}
	d.sandbox()
}

// sandboxed is the comment for commands that the daemon runs.
const sandboxed = "The sandbox of knockwall.service applies: see above. Try it."

// sandbox adds comments if the daemon runs any command.
func (d *door) sandbox() {
	said := ""
	for _, c := range []*command{d.onOpen, d.onClose} {
		if c == nil {
			continue
		}
		if said == "" {
			said = sandboxed
		}
		if c.shell != "" {
			said = "A shell runs this command, as under knockd. The source is in $KNOCKWALL_SOURCE. " + sandboxed
		}
		if why := sandbox.Forbids(c.arguments()); why != "" {
			d.note("WARNING: the service cannot run this command: %s. "+shipped+"commands.hcl shows how another unit does it.", why)
		}
	}
	if said != "" {
		d.note("%s", said)
	}
}

// runs returns why the daemon cannot run the scripts, or "" if it can.
func (s *scripts) runs() string {
	if s.empty() {
		return ""
	}
	for _, one := range s.each() {
		for _, a := range one.acts() {
			if a.tool == recentList || a.tool == hostsAllow {
				return "only root can write the file"
			}
		}
	}
	return sandbox.Forbids(s.command().arguments())
}
