package ruleset

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/methods"
	"github.com/knockwall/knockwall/internal/spa"
)

// Diagnostics must not show a secret, whatever the mistake in the file is: a mistyped
// attribute, a missing quote or brace, a value on another line. So excerpts show only
// text that cannot be a secret: the attributes of walls, doors and commands. This code
// works line by line, as a parser finds nothing in a file with syntax errors.

// words are the names that a kind of file has, by what excerpts may show of them.
type words struct {
	file  string          // what such a file is called
	top   map[string]bool // the blocks at the top, whose labels are shown
	shown map[string]bool // the attributes whose values are shown
	open  map[string]bool // the blocks within that have no secrets
	// closed are the blocks that may have secrets, and plain are the attributes in them whose
	// values are shown if they look like ports or durations.
	closed, plain map[string]bool
	all           map[string]bool // the names above and all others
}

// ruleWords are the words of rule files.
var ruleWords = newWords("a rule file", map[string]bool{"wall": true, "door": true, "share": true},
	ruleNames(), map[string]bool{"on_open": true, "on_close": true, "tls": true}, methods.Kinds)

// ruleNames are the attributes of walls, doors, commands and shares. The values of some are
// not shown: somebody may write a secret there, and not the path of its file, or write it
// into a URL.
func ruleNames() map[string]bool {
	names := namesOf(impliedBy(rawWall{}), doorSchema(), impliedBy(rawCommand{}), impliedBy(rawShare{}), impliedBy(rawTLS{}))
	for _, secret := range []string{"identity", "servers", "credentials", "nkey", "key"} {
		delete(names, secret)
	}
	return names
}

// newWords returns the words of a kind of file with these methods.
func newWords(file string, top, shown, open map[string]bool, kinds []*method.Kind) *words {
	w := &words{file: file, top: top, shown: shown, open: open, closed: map[string]bool{}, plain: map[string]bool{}, all: maps.Clone(shown)}
	maps.Copy(w.all, top)
	for _, k := range kinds {
		for _, name := range k.Shown {
			w.plain[name] = true
		}
		if k.Fields != nil {
			maps.Copy(w.all, namesOf(impliedBy(k.Fields)))
		}
		switch {
		case k.Plain:
			w.open[k.Name] = true
			for name := range namesOf(impliedBy(k.Fields)) {
				w.shown[name] = w.shown[name] || !inClosedBlock(name, kinds)
			}
		case k.IsBlock():
			w.closed[k.Name] = true
		}
	}
	return w
}

// inClosedBlock reports whether a block that may have secrets has an attribute of a name.
func inClosedBlock(attribute string, kinds []*method.Kind) bool {
	return slices.ContainsFunc(kinds, func(k *method.Kind) bool {
		return !k.Plain && k.Fields != nil && namesOf(impliedBy(k.Fields))[attribute]
	})
}

func impliedBy(block any) *hcl.BodySchema {
	schema, _ := gohcl.ImpliedBodySchema(block)
	return schema
}

// namesOf returns the names of the attributes and blocks in some schemas, and of the keys
// of a source prefix.
func namesOf(blocks ...*hcl.BodySchema) map[string]bool {
	names := map[string]bool{"ipv4": true, "ipv6": true}
	for _, schema := range blocks {
		for _, a := range schema.Attributes {
			names[a.Name] = true
		}
		for _, b := range schema.Blocks {
			names[b.Type] = true
		}
	}
	return names
}

var (
	// assignment is the beginning of an attribute with a value on its line. Without a value,
	// the text may be base64, which can end in =.
	assignment = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_-]*)[ \t]*=[ \t]*[^= \t\r]`)
	// header is the beginning of a block.
	header = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_-]*)((?:[ \t]*"[^"]*"|[ \t]+[A-Za-z0-9_-]+)*)[ \t]*\{`)
	// begins is the possible beginning of an attribute or block, anywhere on a line.
	begins = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*[ \t]*(?:[={"]|:[ \t"])`)
	// name is text that is unlikely to be a secret in place of an attribute's name.
	name   = regexp.MustCompile(`^[A-Za-z_]{1,32}$`)
	word   = regexp.MustCompile(`^[A-Za-z0-9_-]+`)
	source = regexp.MustCompile(`^[ \t]*=[ \t]*(?:credential|file|env)\("([^"]*)"\)`)
	// aPlainValue is a port, a range of ports or a duration, with or without quotes.
	aPlainValue = regexp.MustCompile(`^[ \t]*=[ \t]*"?(?:[0-9]{1,5}(?:-[0-9]{1,5})?(?:[/:](?:tcp|udp))?|-?(?:[0-9]{1,6}(?:ms|s|m|h)){1,3})"?[ \t\r]*(?:\}|$)`)
	heredoc     = regexp.MustCompile(`^<<-?([^ \t\r\n]+)[ \t\r]*$`)
)

// hider goes through the text of a file.
type hider struct {
	*words
	text   []byte // the current line
	out    []byte // the same line of the shown text
	depth  int    // depth of braces in a block that may have secrets
	nested int    // open brackets of a value that may be shown
	marker []byte // ends the current heredoc
	remark bool   // inside a comment of several lines
}

// hide returns the text of a file with stars in place of possible secrets, and with blanks
// in place of comments. The result has the same length and the same lines.
func (w *words) hide(text []byte) []byte {
	shown := bytes.Clone(text)
	h := hider{words: w}
	at := 0
	for line := range bytes.Lines(text) {
		h.text = bytes.TrimSuffix(line, []byte("\n"))
		h.out = shown[at : at+len(h.text)]
		h.line()
		at += len(line)
	}
	return shown
}

func (h *hider) line() {
	if h.marker != nil {
		if bytes.Equal(bytes.TrimSpace(h.text), h.marker) {
			h.marker = nil
		} else {
			h.star(0, len(h.text))
		}
		return
	}
	for at := 0; at < len(h.text); {
		at = h.statement(at)
	}
	// Somebody may write the private identity in place of the public one or of its file, and
	// without the colon at its end.
	if at := bytes.Index(h.text, []byte(strings.TrimSuffix(spa.PrivatePrefix, ":"))); at >= 0 {
		h.star(at, len(h.text))
	}
}

// star hides the bytes of the line from one place up to another, except white space.
func (h *hider) star(from, to int) {
	for i := from; i < to; i++ {
		if c := h.text[i]; c != ' ' && c != '\t' && c != '\r' {
			h.out[i] = '*'
		}
	}
}

// statement handles the statement that begins at a place of the line, and returns the
// place where the next one begins.
func (h *hider) statement(at int) int {
	rest := h.text[at:]
	switch c := rest[0]; {
	case h.remark || bytes.HasPrefix(rest, []byte("/*")):
		return h.comment(at)
	case c == ' ' || c == '\t' || c == '\r':
		return at + 1
	case c == '{': // the header of this block is on another line
		h.depth = max(h.depth, 1)
		return at + 1
	case c == '}':
		h.depth = max(h.depth-1, 0)
		h.nested = max(h.nested-1, 0)
		return at + 1
	case c == '#' || bytes.HasPrefix(rest, []byte("//")):
		h.blank(at, len(h.text))
		return len(h.text)
	}
	if m := header.FindSubmatchIndex(rest); m != nil {
		switch kind := string(rest[:m[3]]); {
		case h.top[kind]:
			h.depth = 0 // these are top-level blocks: a brace is missing before
		case h.depth > 0 || !h.open[kind]:
			h.nameOnly(at, at+m[3])
			h.star(at+m[4], at+m[5])
			h.depth++
		}
		h.nested = 0
		return at + m[1]
	}
	if m := assignment.FindSubmatchIndex(rest); m != nil {
		if h.depth == 0 && h.shown[string(rest[:m[3]])] {
			h.nested = 0
			return h.value(at + m[1] - 1)
		}
		h.nameOnly(at, at+m[3])
		value := rest[m[3]:]
		if called := source.FindSubmatchIndex(value); called != nil {
			h.star(at+m[3]+called[2], at+m[3]+called[3])
			return h.hidden(at + m[3] + called[1])
		}
		if plain := aPlainValue.Find(value); plain != nil && h.plain[string(rest[:m[3]])] {
			return at + m[3] + len(bytes.TrimSuffix(plain, []byte("}")))
		}
		return h.hidden(at + m[3] + bytes.IndexByte(value, '=') + 1)
	}
	if h.depth == 0 && h.nested > 0 && !begins.Match(rest) && !isLetter(rest[0]) {
		return h.value(at)
	}
	if first := string(word.Find(rest)); h.all[first] {
		at += len(first)
		if h.closed[first] { // the block's opening brace is missing
			h.depth++
		}
	}
	h.nested = 0
	return h.hidden(at)
}

// nameOnly hides text in place of a name if it may be a secret.
func (h *hider) nameOnly(from, to int) {
	if !h.all[string(h.text[from:to])] && !name.Match(h.text[from:to]) {
		h.star(from, to)
	}
}

// value skips a value that may be shown, and returns the place where it ends.
func (h *hider) value(at int) int {
	for i := at; i < len(h.text); i++ {
		rest := h.text[i:]
		switch c := h.text[i]; {
		case c == '"':
			i += quoted(rest) - 1
		case c == '[' || c == '(':
			h.nested++
		case c == ']' || c == ')':
			h.nested = max(h.nested-1, 0)
		case c == '{':
			h.nested++
			return i + 1
		case c == '}' || c == '#', bytes.HasPrefix(rest, []byte("//")), bytes.HasPrefix(rest, []byte("/*")):
			return i
		case c == '=':
			return h.hidden(i)
		case bytes.HasPrefix(rest, []byte("<<")):
			h.begin(rest)
		case isLetter(c):
			if begins.Match(rest) {
				return i
			}
			i += len(word.Find(rest)) - 1
		}
	}
	return len(h.text)
}

// hidden hides a value, and returns the place where it ends.
func (h *hider) hidden(at int) int {
	for i := at; i < len(h.text); i++ {
		rest := h.text[i:]
		switch c := h.text[i]; {
		case c == '"':
			n := quoted(rest)
			for j := i; j < i+n; j++ {
				h.out[j] = '*'
			}
			i += n - 1
			continue
		case c == '{':
			if h.depth > 0 {
				h.depth++
			}
			continue
		case c == '}':
			return i
		case bytes.HasPrefix(rest, []byte("<<")):
			h.begin(rest)
		}
		h.star(i, i+1)
	}
	return len(h.text)
}

// begin sets the marker if a heredoc begins here.
func (h *hider) begin(rest []byte) {
	if m := heredoc.FindSubmatch(rest); m != nil {
		h.marker = m[1]
	}
}

// comment blanks a comment that may have several lines, and returns the place where it
// ends.
func (h *hider) comment(at int) int {
	from := at
	if !h.remark {
		from += len("/*")
	}
	end := bytes.Index(h.text[min(from, len(h.text)):], []byte("*/"))
	h.remark = end < 0
	if end < 0 {
		h.blank(at, len(h.text))
		return len(h.text)
	}
	end += from + len("*/")
	h.blank(at, end)
	return end
}

func (h *hider) blank(from, to int) {
	for i := from; i < to; i++ {
		h.out[i] = ' '
	}
}

// quoted returns the length in bytes of the quoted text at the beginning of rest. Text
// without a closing quote ends with the line.
func quoted(rest []byte) int {
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(rest)
}

func isLetter(c byte) bool { return c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z' }

// echoed is the part of HCL's message that may quote the file.
var echoed = regexp.MustCompile(`"[^"]*"|\[[^\]]*\]`)

// withoutSecrets returns a message of HCL with stars in place of quoted text that the shown
// text of the file does not have.
func (w *words) withoutSecrets(said string, shown []byte) string {
	return echoed.ReplaceAllStringFunc(said, func(part string) string {
		within := part[1 : len(part)-1]
		if w.all[within] || bytes.Contains(shown, []byte(within)) {
			return part
		}
		return part[:1] + "***" + part[len(part)-1:]
	})
}
