package migrate

import (
	"slices"
	"strings"
)

// scripts is a command of a door for IPv4 sources, and the one for IPv6 sources if that is
// separate.
type scripts struct {
	v4 script
	v6 *script
}

// scripts reads a command of a door: the values of key and key_6.
func (im *importer) scripts(s *section, key string) scripts {
	var both scripts
	if v, ok := s.values[key]; ok {
		both.v4 = im.script(v)
	}
	if v, ok := s.values[key+"_6"]; ok {
		v6 := im.script(v)
		both.v6 = &v6
	}
	return both
}

func (im *importer) script(v value) script {
	if !exact(v.text) {
		im.fail(v.line, "the command is not UTF-8 in normal form C, so a rule file cannot hold it unchanged: write its accented characters anew")
	}
	s, err := parseScript(v.text)
	if err != nil {
		im.fail(v.line, "%v", err)
	}
	return s
}

func (s scripts) empty() bool { return s.v4.empty() && (s.v6 == nil || s.v6.empty()) }

// text returns the commands for a comment.
func (s scripts) text() string {
	if s.v6 == nil || s.v6.text == s.v4.text {
		return s.v4.text
	}
	return strings.TrimSpace(s.v4.text + "   and for IPv6: " + s.v6.text)
}

// command returns the command for the rule file.
func (s scripts) command() *command {
	switch {
	case s.v6 == nil || s.v6.text == s.v4.text:
		return s.v4.command()
	default:
		return eitherFamily(s.v4, *s.v6)
	}
}

const differentFamilies = "knockd opened different ports to IPv4 and IPv6 sources. Here all of them open to both."

// effect returns the common effect for both families.
func (s scripts) effect() effect {
	e := understand(s.v4)
	if s.v6 == nil || s.v6.text == s.v4.text || s.v6.empty() {
		return e
	}
	e6 := understand(*s.v6)
	if s.v4.empty() {
		e6.notes = append(e6.notes, "knockd did nothing for IPv4 sources. Here IPv4 sources that knock are admitted, too.")
		return e6
	}
	sameRest := slices.EqualFunc(e.rest, e6.rest, func(a, b simple) bool { return a.text == b.text })
	if !e.understood || !e6.understood || e.kind != e6.kind || !sameRest || e.device != e6.device || e.lasts != e6.lasts {
		return effect{}
	}
	if !slices.Equal(e.ports, e6.ports) {
		if e.kind == opens {
			e.notes = append(e.notes, differentFamilies)
		}
		e.ports = distinct(slices.Concat(e.ports, e6.ports))
	}
	for _, note := range e6.notes {
		if !slices.Contains(e.notes, note) {
			e.notes = append(e.notes, note)
		}
	}
	return e
}

// restCommand returns the command for the remaining parts of a script.
func restCommand(rest []simple) *command {
	var texts []string
	for _, part := range rest {
		texts = append(texts, part.text)
	}
	return commandOf(rest, strings.Join(texts, "; "))
}
