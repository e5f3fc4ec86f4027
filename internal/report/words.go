package report

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
)

// ways are the words for how a door was opened.
var ways = map[audit.Code]string{
	audit.CodeSequence: "knocks",
	audit.CodePassword: "password",
	audit.CodeKey:      "ssh key",
	audit.CodeFwknop:   "fwknop",
	audit.CodeManual:   "by hand",
	audit.CodeShared:   "another host",
}

// traps are the words for why a source was trapped.
var traps = map[audit.Code]string{
	audit.CodeTrap:  "trap port",
	audit.CodeSpray: "many ports",
}

// By returns in words how the guest has opened the door.
func (g *Guest) By() string {
	var words []string
	for _, c := range g.Ways {
		words = append(words, wordOf(c, ways))
	}
	if words == nil {
		return "earlier" // the window was open when the period began
	}
	return strings.Join(words, ", ")
}

// connections returns how many connections of the guest were let in.
func (g *Guest) connections() string {
	if g.Trusted {
		return "trusted"
	}
	return number(g.Connections)
}

// aboutTrusted explains why no connections of some guests are counted. It is empty if there
// are no such guests.
func (r *Report) aboutTrusted() string {
	if !slices.ContainsFunc(r.Guests, func(g Guest) bool { return g.Trusted }) {
		return ""
	}
	return "A trusted client need not knock. Its connections need no window, and are not counted."
}

// aboutUnused is a sentence, with a blank before it, about the doors that nobody has opened.
func (r *Report) aboutUnused() string {
	if !r.Needless {
		return ""
	}
	return " Trusted clients need not open them, and are not counted."
}

// Why returns in words why the source was trapped.
func (t *Trapped) Why() string { return wordOf(t.Code, traps) }

// wordOf returns the word for a code, and the code itself if it is of a later version.
func wordOf(c audit.Code, words map[audit.Code]string) string { return cmp.Or(words[c], string(c)) }

// moment returns a time in a zone to the minute, without the year.
func moment(t time.Time, zone *time.Location) string { return t.In(zone).Format("Mon 2 Jan 15:04") }

// number returns a number with commas between groups of three digits.
func number(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// short returns about a number in at most four characters.
func short(n int) string {
	switch {
	case n < 1000:
		return strconv.Itoa(n)
	case n < 1_000_000:
		return strconv.FormatFloat(float64(n)/1000, 'f', decimals(n/1000), 64) + "k"
	}
	return strconv.FormatFloat(float64(n)/1_000_000, 'f', decimals(n/1_000_000), 64) + "M"
}

// decimals returns how many decimals a number with such a whole part gets.
func decimals(whole int) int {
	if whole < 10 {
		return 1
	}
	return 0
}
