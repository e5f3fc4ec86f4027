package migrate

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// placeholder is the text that knockd replaces by the source's address before a shell reads
// the command.
const placeholder = "%IP%"

// script is a command line as /bin/sh reads it.
type script struct {
	text  string
	parts []simple // its commands in order, unless it needs a shell
	shell bool     // it needs a shell, as it has more than words and quotes
}

// simple is one command of a script.
type simple struct {
	text  string
	words []string
}

func (s script) empty() bool { return !s.shell && len(s.parts) == 0 }

var errQuote = errors.New("a quote is not closed, so a shell cannot run this command: close it")

// parseScript splits a line into commands, and these into words, by POSIX XCU 2.2 and
// 2.3. It splits at ; and &&. With any other special character the script needs a shell.
// The error says that a quote is not closed.
func parseScript(text string) (script, error) {
	s := script{text: text}
	var words []string
	var word strings.Builder
	inWord, start := false, 0
	endWord := func() {
		if inWord {
			words = append(words, word.String())
			word.Reset()
			inWord = false
		}
	}
	endPart := func(end int) {
		endWord()
		if len(words) > 0 {
			s.parts = append(s.parts, simple{strings.TrimSpace(text[start:end]), words})
		} else if end < len(text) {
			s.shell = true // as in ;; or a line that begins with &&
		}
		words = nil
	}
	end := len(text)
scan:
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f':
			endWord()
			continue
		case c == '#' && !inWord:
			end = i
			break scan
		case c == ';':
			endPart(i)
			start = i + 1
			continue
		case strings.HasPrefix(text[i:], "&&"):
			endPart(i)
			i++
			start = i + 1
			continue
		case c == '\'':
			length := strings.IndexByte(text[i+1:], '\'')
			if length < 0 {
				return s.unclosed()
			}
			word.WriteString(text[i+1 : i+1+length])
			i += 1 + length
		case c == '"':
			length, ok := s.doubleQuoted(text[i+1:], &word)
			if !ok {
				return s.unclosed()
			}
			i += 1 + length
		case c == '\\' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
		default:
			if strings.IndexByte("|&<>()`$*?[\\", c) >= 0 || c == '~' && !inWord ||
				len(words) == 0 && (c == '=' || c == '!' && !inWord) {
				s.shell = true
			}
			word.WriteByte(c)
		}
		inWord = true
	}
	endWord()
	if len(words) > 0 {
		s.parts = append(s.parts, simple{strings.TrimSpace(text[start:end]), words})
	}
	if s.shell {
		s.parts = nil
	}
	return s, nil
}

// doubleQuoted reads text up to its closing quote, and returns the place of that quote.
func (s *script) doubleQuoted(text string, word *strings.Builder) (length int, ok bool) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return i, true
		case c == '\\' && i+1 < len(text) && strings.IndexByte("\"\\$`", text[i+1]) >= 0:
			i++
			word.WriteByte(text[i])
		default:
			s.shell = s.shell || c == '$' || c == '`'
			word.WriteByte(c)
		}
	}
	return 0, false
}

// unclosed handles a quote that is not closed. In a script that needs a shell it is no
// error, as the quote may be in a substitution, which parseScript does not parse.
func (s *script) unclosed() (script, error) {
	if s.shell {
		return script{text: s.text, shell: true}, nil
	}
	return *s, errQuote
}

// command is the command of an on_open or on_close block.
type command struct {
	words []string // with placeholders
	shell string   // or a command for /bin/sh -c, without placeholders
}

// builtins are commands that exist only in a shell.
var builtins = []string{".", ":", "cd", "command", "eval", "exec", "exit", "export", "readonly", "set", "source", "trap", "ulimit", "umask", "unset", "wait",
	"if", "for", "while", "until", "case", "{"}

// command returns the command for the whole script.
func (s script) command() *command { return commandOf(s.parts, s.text) }

// commandOf returns the command for the parts with this text.
func commandOf(parts []simple, text string) *command {
	if len(parts) == 1 {
		words := parts[0].words
		program := words[0]
		if program != "" && (program[0] == '/' || !strings.Contains(program, "/")) &&
			!strings.Contains(program, placeholder) && !slices.Contains(builtins, program) {
			return &command{words: words}
		}
	}
	return &command{shell: throughEnvironment(text)}
}

// eitherFamily returns a command that runs v4 for IPv4 sources and v6 for IPv6 sources.
// Each is on its own line, as it may end in a comment.
func eitherFamily(v4, v6 script) *command {
	return &command{shell: "case \"$KNOCKWALL_SOURCE\" in\n*:*)\n" + throughEnvironment(v6.text) +
		"\n;;\n*)\n" + throughEnvironment(v4.text) + "\n;;\nesac"}
}

var continues = regexp.MustCompile(`^[A-Za-z0-9_]`)

// throughEnvironment replaces the placeholder by the variable KNOCKWALL_SOURCE, so that a
// shell expands it inside any kind of quotes.
func throughEnvironment(text string) string {
	var b strings.Builder
	open := []byte{0} // open quotes and brackets, the innermost last
	for i := 0; i < len(text); i++ {
		within := open[len(open)-1]
		rest := text[i:]
		switch c := text[i]; {
		case strings.HasPrefix(rest, placeholder):
			i += len(placeholder) - 1
			switch {
			case within == '\'':
				b.WriteString(`'"$KNOCKWALL_SOURCE"'`)
			case continues.MatchString(rest[len(placeholder):]):
				b.WriteString("${KNOCKWALL_SOURCE}")
			default:
				b.WriteString("$KNOCKWALL_SOURCE")
			}
			continue
		case within == '\'':
			if c == '\'' {
				open = open[:len(open)-1]
			}
		case c == '\\' && strings.HasPrefix(rest[1:], placeholder):
			// The backslash would escape the variable's $. Before an address it had no
			// effect, except that in double quotes it stayed.
			if within == '"' {
				b.WriteString(`\\`)
			}
			continue
		case c == '\\' && len(rest) > 1:
			b.WriteByte(c)
			i++
		case c == within && (c == '"' || c == '`'), c == ')' && within == '(':
			open = open[:len(open)-1]
		case c == '"', c == '`', c == '\'' && within != '"', c == '(' && within != '"':
			open = append(open, c)
		case strings.HasPrefix(rest, "$("):
			open = append(open, '(')
			b.WriteByte(c)
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
