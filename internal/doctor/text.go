package doctor

import (
	"strconv"
	"strings"
	"unicode"
)

// printable returns a name that somebody else has chosen, so that it does a terminal
// no harm.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(s)
	}
	return s
}
