package migrate

import (
	"path"
	"slices"
	"strings"
)

// isDefaults reports whether lines are those of /etc/default/knockd or
// /etc/sysconfig/knockd, which the shell of the init script reads.
func isDefaults(lines []line) bool {
	return !slices.ContainsFunc(lines, func(l line) bool {
		return !slices.Contains([]string{"START_KNOCKD", "KNOCKD_OPTS", "OPTIONS", "KNOCKD_ARGS"}, assigned(l))
	})
}

// assigned returns the name of the variable that a line sets.
func assigned(l line) string {
	name, _, ok := strings.Cut(strings.TrimPrefix(l.text, "export "), "=")
	if !ok {
		return ""
	}
	return strings.TrimSpace(name)
}

// defaults reads the options of knockd(1) in /etc/default/knockd.
func (im *importer) defaults(lines []line) *ruleFile {
	f := &ruleFile{from: im.name, kind: fromDefaults}
	for _, l := range lines {
		if assigned(l) == "START_KNOCKD" {
			continue
		}
		_, value, _ := strings.Cut(l.text, "=")
		words := wordsIn("set " + value)
		if len(words) == 0 {
			im.fail(l.number, "a shell cannot read this line: write KNOCKD_OPTS=\"-i eth0\"")
			continue
		}
		a := &arguments{words: strings.Fields(strings.Join(words[1:], " "))}
		for len(a.words) > 0 {
			switch option := a.option(); {
			case option == "-i" || option == "--interface":
				f.listenOn(a.next())
			case strings.HasPrefix(option, "-i") && !strings.HasPrefix(option, "--"):
				f.listenOn(option[2:])
			case option == "-c" || option == "--config":
				f.configuration = a.next()
			case option == "-4" || option == "--only-ip-v4":
				f.notes = append(f.notes, "knockd was started with "+option+": it heard no IPv6. Here IPv6 sources that knock are admitted, too.")
			}
		}
		if a.short {
			im.fail(l.number, "the last option has no value: write KNOCKD_OPTS=\"-i eth0\"")
		}
	}
	return f
}

// merged joins the files of one host.
func merged(parts []*ruleFile) *ruleFile {
	if len(parts) == 1 {
		return parts[0]
	}
	f := &ruleFile{kind: fromAtomicorp}
	var from, devices []string
	override := ""
	for _, p := range parts {
		from = append(from, p.from)
		if p.kind == fromDefaults {
			override = p.interfaces
		} else {
			f.kind = min(f.kind, p.kind)
		}
	}
	for _, p := range parts {
		if p.kind == fromDefaults {
			if name := path.Base(p.configuration); p.configuration != "" && !slices.ContainsFunc(from, func(s string) bool { return path.Base(s) == name }) {
				p.notes = append(p.notes, "knockd was started with the configuration "+p.configuration+". Import that file.")
			}
			continue
		}
		if p.kind == fromKnockd {
			if override != "" { // knockd's option comes before its file
				p.interfaces = override
			}
			devices = append(devices, p.interfaces)
		}
	}
	one := len(devices) > 0 && !slices.ContainsFunc(devices, func(d string) bool { return d != devices[0] })
	for _, p := range parts {
		for _, log := range p.logs {
			if !slices.Contains(f.logs, log) {
				f.logs = append(f.logs, log)
			}
		}
		for _, note := range p.notes {
			if !slices.Contains(f.notes, note) {
				f.notes = append(f.notes, note)
			}
		}
		for _, d := range p.doors {
			d.file = p.from
			if !one && d.device == "" && p.interfaces != "" {
				d.device = p.interfaces
				d.note("knockd listened on the interface %s, so the door guards only this one. "+elsewhereOpen, d.device)
			}
			f.doors = append(f.doors, d)
		}
	}
	if one {
		f.interfaces = devices[0]
	}
	f.from = strings.Join(from, ", ")
	return f
}
