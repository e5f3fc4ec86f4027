// Package printable makes text ready to print. Untrusted text becomes safe: the result has no
// terminal control sequences and no unexpected line ends.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mitchellh/go-wordwrap"
)

// tab is what a tab is shown as.
const tab = "    "

// Columns returns a line in which each character is one column. It replaces unprintable
// characters by U+FFFD and a tab by four spaces, and removes carriage returns.
func Columns(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteString(tab)
		case r == '\r':
		case !unicode.IsPrint(r):
			b.WriteRune(utf8.RuneError)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Lines returns the output of a program with its newlines and tabs. It replaces other
// control characters and invalid UTF-8 by U+FFFD.
func Lines(b []byte) string {
	return strings.Map(func(r rune) rune { // strings.Map replaces invalid UTF-8 by U+FFFD
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, string(b))
}

// Escape returns a line with Go's escapes for unprintable characters, such as \n for a
// newline. A tab becomes a space. Nothing else is lost.
func Escape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r == '\t':
			b.WriteByte(' ')
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		s = s[size:]
	}
	return b.String()
}

// Quote returns a name unchanged if it is printable, and otherwise as a quoted Go string.
func Quote(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(s)
	}
	return s
}

// Wrap breaks the lines of s between words, so that they fit into the columns. A longer
// word gets its own line.
func Wrap(s string, columns int) []string {
	return strings.Split(wordwrap.WrapString(s, uint(columns)), "\n")
}

// Cut returns at most so many characters of s. A shortened text ends in an ellipsis.
func Cut(s string, most int) string {
	r := []rune(s)
	switch {
	case len(r) <= most:
		return s
	case most < 1:
		return ""
	}
	return string(r[:most-1]) + "…"
}

// Count returns a number of things in words, for example "no doors", "1 door" or
// "2 doors".
func Count(n int, thing string) string {
	switch n {
	case 0:
		return "no " + thing + "s"
	case 1:
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Time returns a length of time as people write it: 5m, and not 5m0s.
func Time(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
