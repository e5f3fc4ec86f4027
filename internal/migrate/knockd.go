package migrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// section is a [name] of knockd.conf with its keys.
type section struct {
	name   string
	line   int
	values map[string]value // by key, in lower case and without aliases; the last value counts
}

// value is the value of a key.
type value struct {
	text string
	line int
}

// globals are the keys of [options].
var globals = []string{"logfile", "pidfile", "interface"}

// keys are the keys of a door, with aliases mapped to one name.
var keys = map[string]string{
	"sequence":           "sequence",
	"one_time_sequences": "one_time_sequences",
	"seq_timeout":        "seq_timeout",
	"timeout":            "seq_timeout",
	"tcpflags":           "tcpflags",
	"target":             "target",
	"start_command":      "start_command",
	"command":            "start_command",
	"start_command_6":    "start_command_6",
	"command_6":          "start_command_6",
	"cmd_timeout":        "cmd_timeout",
	"stop_command":       "stop_command",
	"stop_command_6":     "stop_command_6",
}

// knockd reads knockd.conf, as knockd 0.8 does.
func (im *importer) knockd(lines []line) *ruleFile {
	f := &ruleFile{from: im.name, kind: fromKnockd}
	options := section{values: map[string]value{}}
	var sections []*section
	var current *section
	for _, l := range lines {
		if l.text[0] == '[' && l.text[len(l.text)-1] == ']' {
			current = im.section(l, &options, &sections)
			if len(sections) > maxDoors {
				return nil
			}
			continue
		}
		key, text, isValue := strings.Cut(l.text, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		v := value{strings.TrimSpace(text), l.number}
		switch {
		case !isValue && key == "usesyslog":
			f.logs = append(f.logs, "UseSyslog")
		case current == nil:
			im.fail(l.number, "this line is before the first [name]: write [options], or the name of a door, above it")
		case !isValue:
			im.fail(l.number, "this is neither a [name] nor a key = value. Write a value on one line, however long it is")
		case current == &options && slices.Contains(globals, key):
			options.values[key] = v
		case current == &options:
			im.fail(l.number, "knockd has no option %q: its options are UseSyslog, LogFile, PidFile and Interface. "+
				"Write the keys of a door below the door's [name]", printable.Escape(key))
		case keys[key] != "":
			current.values[keys[key]] = v
		case slices.Contains(globals, key):
			im.fail(l.number, "%q is an option of knockd itself: write it below [options]", printable.Escape(key))
		default:
			im.fail(l.number, "a door of knockd has no key %q. See CONFIGURATION in `man knockd`", printable.Escape(key))
		}
	}
	im.options(f, &options)
	for _, s := range sections {
		f.doors = append(f.doors, im.door(s))
	}
	return f
}

// section returns the section that a line begins.
func (im *importer) section(l line, options *section, sections *[]*section) *section {
	name := strings.TrimSpace(l.text[1 : len(l.text)-1])
	if name == "options" {
		return options
	}
	if name == "" {
		im.fail(l.number, "the door has no name: write one between [ and ]")
	}
	im.tooMany(len(*sections), l.number)
	s := &section{name: name, line: l.number, values: map[string]value{}}
	*sections = append(*sections, s)
	return s
}

// options turns the keys of [options].
func (im *importer) options(f *ruleFile, options *section) {
	for _, key := range []string{"logfile", "pidfile"} {
		if v, ok := options.values[key]; ok {
			name := map[string]string{"logfile": "LogFile", "pidfile": "PidFile"}[key]
			f.logs = append(f.logs, name+" = "+v.text)
		}
	}
	v, ok := options.values["interface"]
	v = withoutComment(v)
	switch {
	case !ok:
	case v.text == "any":
		f.notes = append(f.notes, "knockd listened on any interface. The doors guard all interfaces but lo.")
	default:
		f.listenOn(v.text)
	}
}

// listenOn sets the interface that knockd listened on.
func (f *ruleFile) listenOn(device string) {
	if !isInterface(device) || strings.Contains(device, "*") {
		f.notes = append(f.notes, fmt.Sprintf("Interface = %s: a door cannot guard this interface. The doors guard all interfaces but lo.", device))
		return
	}
	f.interfaces = device
}

// isInterface reports whether a rule file can hold the interface or pattern unchanged.
func isInterface(s string) bool {
	return ruleset.CheckInterface(s) == nil && exact(s)
}

// sequence reads knocks such as 7000,8000:udp, with spaces anywhere between. knockd refuses
// some mistakes. Others, such as an empty knock, it accepts:
// then the door is left out.
func (im *importer) sequence(v value, d *door) {
	for step := range strings.SplitSeq(v.text, ",") {
		port, protocol, hasProtocol := strings.Cut(step, ":")
		port, protocol = strings.TrimSpace(port), strings.ToLower(strings.TrimSpace(protocol))
		if hasProtocol {
			port += "/" + protocol
		}
		p, err := packet.ParsePort(port)
		if err == nil {
			d.sequence = append(d.sequence, p)
			continue
		}
		number, _ := strconv.Atoi(strings.TrimSuffix(port, "/"+protocol))
		if number > 65535 || hasProtocol && protocol != "tcp" && protocol != "udp" {
			im.fail(v.line, "%v", err)
		}
		d.left = true
		d.note("This door is left out: in Sequence = %s, %v. Correct it in the old file, and import that again.", v.text, err)
		return
	}
	if n := len(d.sequence); n > sequence.MaxSteps {
		im.fail(v.line, "a sequence has at most %d knocks, and this one has %d: shorten it", sequence.MaxSteps, n)
	}
}

// flags reads TCP flags. If a flag is given twice, the last one counts.
func (im *importer) flags(v value) []string {
	var flags []string
	for flag := range strings.SplitSeq(strings.ToLower(v.text), ",") {
		flag = strings.TrimSpace(flag)
		name := strings.TrimPrefix(flag, "!")
		if !slices.Contains([]string{"fin", "syn", "rst", "psh", "ack", "urg"}, name) {
			im.fail(v.line, "%q is not a TCP flag: the flags are fin, syn, rst, psh, ack and urg, and !ack is a flag that must not be set", printable.Escape(name))
			return nil
		}
		flags = slices.DeleteFunc(flags, func(other string) bool { return strings.TrimPrefix(other, "!") == name })
		flags = append(flags, flag)
	}
	return flags
}

// withoutComment cuts off a comment behind a value that cannot have a #. knockd has no such
// comments, but it also stops reading at the end of a number.
func withoutComment(v value) value {
	v.text, _, _ = strings.Cut(v.text, "#")
	v.text = strings.TrimSpace(v.text)
	return v
}
