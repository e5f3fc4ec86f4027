package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/knockwall/knockwall/internal/printable"
)

// figure formats a value with three significant digits, more than two runs agree on: 0.0312,
// 4.50, 140, 20518.
func figure(v float64) string {
	if v == 0 {
		return "0"
	}
	short := strconv.FormatFloat(v, 'e', 2, 64)
	_, exponent, _ := strings.Cut(short, "e")
	n, err := strconv.Atoi(exponent)
	if err != nil || n < -4 || n > 6 { // err: infinite or not a number
		return short
	}
	return strconv.FormatFloat(v, 'f', max(2-n, 0), 64)
}

// times returns the cell's median as a multiple of knockwall's, such as "1.16×". It is "" if
// there is no ratio, and for knockwall itself.
func (r Row) times(c Cell) string {
	ratio := r.Ratio(c)
	if ratio == 0 || c.System == Knockwall {
		return ""
	}
	return figure(ratio) + "×"
}

// The states of a goal.
const (
	met         = "met"
	missed      = "MISSED"
	notMeasured = "not measured"
)

// state returns the state of a goal of the row, and the measured figure, if there is one.
func (r Row) state(g Goal) (word, got string) {
	v, kept, ok := r.Met(g)
	if !ok {
		return notMeasured, ""
	}
	word = missed
	if kept {
		word = met
	}
	switch {
	case g.AtMost == 0:
		c := r.cell(Knockwall)
		return word, fmt.Sprintf("%d of %d", c.Done, c.Of)
	case g.Against == "":
		return word, strings.TrimSpace(figure(v) + " " + r.Unit)
	case v < 1: // in the form of the goals' texts
		return word, "1/" + figure(1/v)
	}
	return word, figure(v) + "×"
}

// span formats a duration, rounded to seconds.
func (s Seconds) span() string {
	return time.Duration(float64(s) * float64(time.Second)).Round(time.Second).String()
}

// plain returns a text as one line, without characters that move a terminal's cursor.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// width returns the number of columns of a text.
func width(text string) int { return len([]rune(text)) }

// wrap breaks a text into lines of a number of columns, between words if possible.
func wrap(text string, columns int) []string {
	var words []string
	for word := range strings.FieldsSeq(plain(text)) {
		runes := []rune(word)
		for len(runes) > columns {
			words = append(words, string(runes[:columns]))
			runes = runes[columns:]
		}
		words = append(words, string(runes))
	}
	return printable.Wrap(strings.Join(words, " "), columns)
}
