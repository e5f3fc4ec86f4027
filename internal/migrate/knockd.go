package migrate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
)

// section is a [name] of knockd.conf with what stands below it.
type section struct {
	name   string
	line   int
	values map[string]value // by key, in lower case and without aliases; the last one counts
}

// value is what stands behind a key.
type value struct {
	text string
	line int
}

// globals are the keys of [options].
var globals = []string{"logfile", "pidfile", "interface"}

// keys are those of a door, with what they are called here.
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
			im.fail(l.number, "this stands before the first [name]: put [options], or the name of a door, above it")
		case !isValue:
			im.fail(l.number, "this is neither a [name] nor a key = value. A value stands on one line, however long it is")
		case current == &options && slices.Contains(globals, key):
			options.values[key] = v
		case current == &options:
			im.fail(l.number, "knockd has no option %q: there are UseSyslog, LogFile, PidFile and Interface. "+
				"What is a door's belongs below the door's [name]", printable.Escape(key))
		case keys[key] != "":
			current.values[keys[key]] = v
		case slices.Contains(globals, key):
			im.fail(l.number, "%q is an option of knockd itself: put it below [options]", printable.Escape(key))
		default:
			im.fail(l.number, "a door of knockd has no %q. See CONFIGURATION in `man knockd`", printable.Escape(key))
		}
	}
	im.options(f, &options)
	for _, s := range sections {
		f.doors = append(f.doors, im.door(s))
	}
	if len(im.errs) == 0 {
		joinTwins(f.doors)
	}
	return f
}

// section begins a section, and returns it.
func (im *importer) section(l line, options *section, sections *[]*section) *section {
	name := strings.TrimSpace(l.text[1 : len(l.text)-1])
	if name == "options" {
		return options
	}
	if name == "" {
		im.fail(l.number, "a door has a name: write it between [ and ]")
	}
	im.tooMany(len(*sections), l.number)
	s := &section{name: name, line: l.number, values: map[string]value{}}
	*sections = append(*sections, s)
	return s
}

// options turns what is global.
func (im *importer) options(f *ruleFile, options *section) {
	for _, key := range []string{"logfile", "pidfile"} {
		if v, ok := options.values[key]; ok {
			name := map[string]string{"logfile": "LogFile", "pidfile": "PidFile"}[key]
			f.logs = append(f.logs, name+" = "+v.text)
		}
	}
	v, ok := options.values["interface"]
	switch {
	case !ok:
	case v.text == "any":
		f.notes = append(f.notes, "knockd listened on any interface. The doors stand before all of them but lo.")
	case !isInterface(v.text) || strings.Contains(v.text, "*"):
		f.notes = append(f.notes, fmt.Sprintf("Interface = %s: this can be no interface of a door. The doors stand before all but lo.", v.text))
	default:
		f.interfaces = v.text
	}
}

// isInterface reports whether a rule file may name the interface, or have the pattern,
// and it is still the same there.
func isInterface(s string) bool {
	return ruleset.CheckInterface(s) == nil && exact(s)
}

// sequence reads knocks: 7000,8000:udp, with spaces where one likes.
func (im *importer) sequence(v value) []packet.Port {
	var steps []packet.Port
	for step := range strings.SplitSeq(v.text, ",") {
		port, protocol, ok := strings.Cut(step, ":")
		port = strings.TrimSpace(port)
		if ok {
			port += "/" + strings.TrimSpace(protocol)
		}
		p, err := packet.ParsePort(port)
		if err != nil {
			im.fail(v.line, "%v", err)
			return nil
		}
		steps = append(steps, p)
	}
	return steps
}

// flags reads TCP flags. Of one that is there twice, the last one counts.
func (im *importer) flags(v value) []string {
	var flags []string
	for flag := range strings.SplitSeq(strings.ToLower(v.text), ",") {
		flag = strings.TrimSpace(flag)
		name := strings.TrimPrefix(flag, "!")
		if !slices.Contains([]string{"fin", "syn", "rst", "psh", "ack", "urg"}, name) {
			im.fail(v.line, "%q is not a TCP flag: there are fin, syn, rst, psh, ack and urg, and with a ! before it one must not be set", printable.Escape(name))
			return nil
		}
		flags = slices.DeleteFunc(flags, func(other string) bool { return strings.TrimPrefix(other, "!") == name })
		flags = append(flags, flag)
	}
	return flags
}

// withoutComment cuts off what somebody took for a comment behind a value in
// which there is no #. knockd reads as far as the number goes, too.
func withoutComment(v value) value {
	v.text, _, _ = strings.Cut(v.text, "#")
	v.text = strings.TrimSpace(v.text)
	return v
}
