// Package printable prepares text for people to read, whoever has written it: nothing in
// it gives orders to a terminal or ends a line too early.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mitchellh/go-wordwrap"
)

// tab is what a tab is shown as.
const tab = "    "

// Columns returns a line in which each character takes one column: U+FFFD stands
// for what cannot be printed, and four spaces for a tab. Carriage returns are left
// out.
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

// Lines returns what a program has written, with its lines and tabs. U+FFFD stands
// for other control characters and for what is not UTF-8.
func Lines(b []byte) string {
	return strings.Map(func(r rune) rune { // it takes U+FFFD for what is not UTF-8
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, string(b))
}

// Escape returns a line in which all that cannot be printed is written as Go writes
// it, such as \n for a newline, so that nothing is lost. A tab becomes a space.
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

// Quote returns a name as it is if all of it can be printed, and else in quotes as Go
// writes it.
func Quote(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(s)
	}
	return s
}

// Wrap breaks each line of s between words, where it would be wider than so many
// columns. A word that is wider has a line of its own.
func Wrap(s string, columns int) []string {
	return strings.Split(wordwrap.WrapString(s, uint(columns)), "\n")
}
