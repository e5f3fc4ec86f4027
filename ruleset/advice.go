package ruleset

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sandbox"
)

// synRetransmission is the time after which a client repeats an unanswered SYN: RFC 6298,
// section 2.1.
const synRetransmission = time.Second

// advise warns of settings that are valid but seldom intended. c.Doors[i] comes from
// raw.Doors[i].
func (l *Loaded) advise(raw *rawConfig, c *Config) {
	if l.Diagnostics.HasErrors() {
		return
	}
	if len(c.Doors) == 0 {
		l.warn("No door", "The rule files have no door, so no port is hidden.", nil)
	} else if !slices.ContainsFunc(c.Doors, func(d Door) bool { return len(d.Ports) > 0 }) {
		l.warn("Nothing is guarded", "No door has ports, so no port is hidden: the doors only run commands. Write the ports to hide, as in: ports = [22]", nil)
	}
	var doors []method.Door
	for i := range c.Doors {
		doors = append(doors, c.Doors[i].forMethods())
	}
	for i := range c.Doors {
		d, r := &c.Doors[i], &raw.Doors[i]
		for _, m := range d.Methods {
			m.Advise(reading{l}, doors, i)
		}
		l.adviseFlags(r, d)
		l.adviseNAT(r, d)
		l.adviseProgram(r.OnOpen, d.OnOpen)
		l.adviseProgram(r.OnClose, d.OnClose)
		if d.Window < synRetransmission {
			l.warnAt(r.Window, "Short window",
				"A client repeats a lost SYN after one second. By then this window has closed.")
		}
		if d.Closed == Reject && d.OnFailure == FailOpen {
			l.warnAt(r.OnFailure, "Closed door that answers late",
				fmt.Sprintf(`With on_failure = "open", the daemon decides about each connection, and the door rejects it only after %s. `+
					"This delay reveals the door to anybody who measures it.", c.Wall.Hold))
		}
		if d.TrapCount+len(d.TrapList) > 0 && d.Penalty < d.SequenceTimeout && d.isKnocked() {
			at := r.Penalty
			if absent(at) {
				at = r.SequenceTimeout
			}
			l.warnAt(at, "Penalty shorter than seq_timeout",
				"The penalty of a slow scan ends before its first knock expires. Make the penalty at least as long as seq_timeout.")
		}
		method.AdviseGuarded(reading{l}, r.CloseSequence, doors)
	}
}

// adviseFlags warns of TCP flags that no knock of an ordinary client has. Such a client knocks
// by connecting, and its first packet has SYN and neither ACK nor FIN: RFC 9293, section 3.5.
func (l *Loaded) adviseFlags(r *rawDoor, d *Door) {
	if packet.SYN&d.Flags.Mask == d.Flags.Value || !d.isKnockedByTCP() {
		return
	}
	why := "The first packet of a connection has SYN, and no ACK and no FIN."
	if d.Flags.Value&packet.FIN != 0 {
		why = "A client sends FIN at the end of a connection, and the packets of established connections are no knocks."
	}
	l.warnAt(r.Flags, "Knocks that no ordinary client can make", why+
		" Only a program that forges packets, such as hping3, can knock with these flags. Leave tcp_flags out.")
}

// isKnockedByTCP reports whether a knock of the door is one of TCP.
func (d *Door) isKnockedByTCP() bool {
	ports := packet.Ranges(d.CloseSequence)
	if i := d.Knocking(); i >= 0 {
		fixed, chosen := d.Methods[i].Ports()
		ports = slices.Concat(ports, fixed, chosen)
	}
	return slices.ContainsFunc(ports, func(p packet.PortRange) bool { return p.Protocol == packet.TCP })
}

// adviseNAT warns of a door that guards addresses on both sides of a NAT.
func (l *Loaded) adviseNAT(r *rawDoor, d *Door) {
	isPrivate := func(p netip.Prefix) bool { return p.Addr().Is4() && p.Addr().IsPrivate() }
	isPublic := func(p netip.Prefix) bool { return p.Addr().Is4() && !p.Addr().IsPrivate() && !p.Addr().IsLoopback() }
	if slices.ContainsFunc(d.To, isPrivate) && slices.ContainsFunc(d.To, isPublic) {
		l.warnAt(r.To, "Knocks on both sides of a NAT", "Private and public addresses are guarded together. The wall stands before the translation, so a client "+
			"has to knock at the very address that it connects to. For port forwarding the public address is enough.")
	}
}

// adviseProgram warns of a program that does not exist, or that the sandbox of the service
// stops. This is no error, as the program may be installed before the command is run, and the
// daemon may run without the service.
func (l *Loaded) adviseProgram(r *rawCommand, c *Command) {
	if c == nil {
		return
	}
	elements, _ := hcl.ExprList(r.Command)
	var arguments []string
	for _, a := range c.Arguments {
		arguments = append(arguments, a.text())
	}
	if why := sandbox.Forbids(arguments); why != "" {
		l.warnAt(elements[0], "Command that the service cannot run", "In the sandbox of knockwall.service this fails: "+why+". "+
			"Let a unit of its own do the work: commands.hcl among the examples shows how.")
	}
	if name := arguments[0]; !command.Exists(name) {
		l.warnAt(elements[0], "No such program", fmt.Sprintf("This host has no executable program %s.", name))
	}
}

// mostUnread is the number of names in the warning about unread files.
const mostUnread = 10

// adviseUnread warns of what lies in the folder of the rule files, and is neither a rule file
// nor named in one: perhaps a rule file with the wrong name.
func (l *Loaded) adviseUnread(folder string, others []string) {
	if l.reader == makeshift {
		return // the folder is that of the kept rules
	}
	var unread []string
	for _, path := range others {
		if path := absolute(path); path != l.identity.wall.IdentityPath && !l.isNamed(path) {
			unread = append(unread, filepath.Base(path))
		}
	}
	if len(unread) == 0 {
		return
	}
	names := strings.Join(unread[:min(len(unread), mostUnread)], ", ")
	if more := len(unread) - mostUnread; more > 0 {
		names += fmt.Sprintf(", and %d more", more)
	}
	l.warn("Not read", fmt.Sprintf("Of the files in %s, those that end in .hcl are rule files, and these may name others. No rule file names: %s.", folder, names), nil)
}

// isNamed reports whether a rule file has a path in quotes.
func (l *Loaded) isNamed(path string) bool {
	quoted := []byte(strconv.Quote(path))
	for _, file := range l.files {
		if bytes.Contains(file.Bytes, quoted) {
			return true
		}
	}
	return false
}

func (l *Loaded) warn(summary, detail string, at *hcl.Range) {
	l.Diagnostics = append(l.Diagnostics, &hcl.Diagnostic{
		Severity: hcl.DiagWarning, Summary: summary, Detail: detail, Subject: at,
	})
}

func (l *Loaded) warnAt(e hcl.Expression, summary, detail string) {
	at := e.Range()
	l.warn(summary, detail, &at)
}
