package migrate

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// placeholder is the text that knockd replaces by the source's address before a shell reads
// the command.
const placeholder = "%IP%"

// maxShell is the maximum length of a command that is parsed, in bytes. It bounds the depth
// of the tree.
const maxShell = 16 << 10

// parseShell parses a command line as /bin/sh reads it. As /bin/sh is bash on some systems,
// it also accepts what only bash understands.
func parseShell(text string) (*syntax.File, error) {
	if len(text) > maxShell {
		return nil, fmt.Errorf("it is longer than %d KiB", maxShell>>10)
	}
	f, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), "")
	if err != nil {
		f, bashErr := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
		if bashErr == nil {
			return f, nil
		}
		var wrong syntax.ParseError
		if errors.As(err, &wrong) {
			return nil, fmt.Errorf("a shell cannot run it: %s, at column %d", wrong.Text, wrong.Pos.Col())
		}
		return nil, fmt.Errorf("a shell cannot run it: %w", err)
	}
	return f, nil
}

// source returns the text of a node.
func source(text string, n syntax.Node) string {
	return text[n.Pos().Offset():n.End().Offset()]
}

// variables are the shell variables that a script has set to known values.
type variables map[string]string

// words returns the words that a shell makes of w. known is false if only the shell that
// runs it can know them, as with $(date).
func (v variables) words(w *syntax.Word) (words []string, known bool) {
	text, known := v.word(w)
	if p, ok := w.Parts[0].(*syntax.ParamExp); ok && len(w.Parts) == 1 && p != nil {
		return strings.Fields(text), known // a shell splits what is not in quotes
	}
	return []string{text}, known
}

// word returns the text of a word without splitting it.
func (v variables) word(w *syntax.Word) (text string, known bool) {
	var b strings.Builder
	known = true
	for i, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			plain, isPattern := unescape(p.Value)
			known = known && !isPattern && (i > 0 || !strings.HasPrefix(p.Value, "~"))
			b.WriteString(plain)
		case *syntax.SglQuoted:
			known = known && !p.Dollar
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			known = v.quoted(&b, p) && known
		case *syntax.ParamExp:
			known = v.parameter(&b, p) && known
		default:
			known = false
		}
	}
	return b.String(), known
}

func (v variables) quoted(b *strings.Builder, q *syntax.DblQuoted) bool {
	known := !q.Dollar
	for _, part := range q.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			b.WriteString(quotedEscape.ReplaceAllString(p.Value, "$1"))
		case *syntax.ParamExp:
			known = v.parameter(b, p) && known
		default:
			known = false
		}
	}
	return known
}

// parameter writes the value of $name or ${name}.
func (v variables) parameter(b *strings.Builder, p *syntax.ParamExp) bool {
	if p.Param == nil || p.Excl || p.Length || p.Index != nil || p.Slice != nil || p.Repl != nil || p.Names != 0 || p.Exp != nil {
		return false
	}
	value, ok := v[p.Param.Value]
	b.WriteString(value)
	return ok
}

// quotedEscape matches the backslashes that a shell removes in double quotes: POSIX XCU
// 2.2.3.
var quotedEscape = regexp.MustCompile("\\\\([\"\\\\$`])")

// unescape removes the backslashes from a literal outside quotes. isPattern says that the
// shell may put the names of files in its place.
func unescape(s string) (text string, isPattern bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
		case strings.IndexByte("*?[", c) >= 0:
			isPattern = true
		}
		b.WriteByte(s[i])
	}
	return b.String(), isPattern
}

// command is the command of an on_open or on_close block.
type command struct {
	words []string // with placeholders
	shell string   // or a command for /bin/sh -c, without placeholders
}

// arguments returns the program and its arguments.
func (c *command) arguments() []string {
	if c.shell != "" {
		return []string{"/bin/sh", "-c", c.shell}
	}
	return c.words
}

// builtins are commands that exist only in a shell.
var builtins = []string{".", ":", "cd", "command", "eval", "exec", "exit", "export", "readonly", "set", "source", "trap", "ulimit", "umask", "unset", "wait"}

// commandOf returns the command for a text that parseShell accepts. It needs a shell unless
// it is one program with its arguments.
func commandOf(text string) *command {
	f, err := parseShell(text)
	if err == nil && len(f.Stmts) == 1 {
		s := f.Stmts[0]
		call, ok := s.Cmd.(*syntax.CallExpr)
		if ok && !s.Negated && !s.Background && len(s.Redirs) == 0 && len(call.Assigns) == 0 {
			if words, known := wordsOf(nil, call); known && runsAlone(words[0]) {
				return &command{words: words}
			}
		}
	}
	return &command{shell: throughEnvironment(text)}
}

// runsAlone reports whether the first word of a command is a program that a rule file can
// name.
func runsAlone(program string) bool {
	return program != "" && (program[0] == '/' || !strings.Contains(program, "/")) && !strings.HasSuffix(program, "/") &&
		!strings.Contains(program, placeholder) && !slices.Contains(builtins, program)
}

// wordsOf returns the words of a simple command.
func wordsOf(v variables, call *syntax.CallExpr) (words []string, known bool) {
	known = true
	for _, w := range call.Args {
		more, ok := v.words(w)
		words, known = append(words, more...), known && ok
	}
	return words, known && len(words) > 0
}

// wordsIn returns the words of a text that is one simple command, or nil.
func wordsIn(text string) []string {
	if f, err := parseShell(text); err == nil && len(f.Stmts) == 1 {
		if call, ok := f.Stmts[0].Cmd.(*syntax.CallExpr); ok {
			if words, known := wordsOf(nil, call); known {
				return words
			}
		}
	}
	return nil
}

// eitherFamily returns a command that runs v4 for IPv4 sources and v6 for IPv6 sources.
// Each is on its own line, as it may end in a comment.
func eitherFamily(v4, v6 string) *command {
	return &command{shell: "case \"$KNOCKWALL_SOURCE\" in\n*:*)\n" + throughEnvironment(v6) +
		"\n;;\n*)\n" + throughEnvironment(v4) + "\n;;\nesac"}
}

var continues = regexp.MustCompile(`^[A-Za-z0-9_]`)

// throughEnvironment replaces the placeholder by the variable KNOCKWALL_SOURCE, so that a
// shell expands it inside any kind of quotes. A text that parseShell refuses stays as it is.
func throughEnvironment(text string) string {
	f, err := parseShell(text)
	if err != nil {
		return text
	}
	var b []byte
	done := 0
	var above []syntax.Node
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case nil:
			above = above[:len(above)-1]
			return true
		case *syntax.Lit, *syntax.SglQuoted:
			start, end := int(n.Pos().Offset()), int(n.End().Offset())
			_, single := n.(*syntax.SglQuoted)
			if start >= done && end <= len(text) && strings.Contains(text[start:end], placeholder) {
				b = append(b, text[done:start]...)
				b = insertVariable(b, text[start:end], text[end:], single, withinQuotes(above))
				done = end
			}
		}
		above = append(above, n)
		return true
	})
	return string(b) + text[done:]
}

// withinQuotes reports whether a node below these is in double quotes.
func withinQuotes(above []syntax.Node) bool {
	for _, n := range slices.Backward(above) {
		switch n.(type) {
		case *syntax.DblQuoted:
			return true
		case *syntax.CmdSubst, *syntax.ProcSubst:
			return false
		}
	}
	return false
}

// insertVariable appends a literal, or a string in single quotes, with the variable in place
// of the placeholder. after is the text behind it.
func insertVariable(b []byte, text, after string, single, double bool) []byte {
	for {
		before, rest, found := strings.Cut(text, placeholder)
		if !found {
			return append(b, text...)
		}
		text = rest
		if single {
			// Without quotes, as these would end others around a `…`. No address has a character
			// that a shell splits at.
			b = append(b, before+"'$KNOCKWALL_SOURCE'"...)
			continue
		}
		slashes := len(before) - len(strings.TrimRight(before, `\`))
		switch {
		case slashes%2 == 1 && double:
			before += `\` // before an address it would stay, before a $ it would escape
		case slashes%2 == 1:
			before = before[:len(before)-1]
		}
		b = append(b, before...)
		if continues.MatchString(rest + after) {
			b = append(b, "${KNOCKWALL_SOURCE}"...)
		} else {
			b = append(b, "$KNOCKWALL_SOURCE"...)
		}
	}
}
