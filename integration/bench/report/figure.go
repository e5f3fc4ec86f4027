package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/knockwall/knockwall/internal/printable"
)

// figure writes what was measured with three digits that count, which is more than
// two runs agree on: 0.0312, 4.50, 140, 20518.
func figure(v float64) string {
	if v == 0 {
		return "0"
	}
	short := strconv.FormatFloat(v, 'e', 2, 64)
	_, exponent, _ := strings.Cut(short, "e")
	n, err := strconv.Atoi(exponent)
	if err != nil || n < -4 || n > 6 { // an error: infinite, or not a number
		return short
	}
	return strconv.FormatFloat(v, 'f', max(2-n, 0), 64)
}

// times writes how many times knockwall's median the cell's is; "" where that is not
// to be had, and for knockwall itself.
func (r Row) times(c Cell) string {
	ratio := r.Ratio(c)
	if ratio == 0 || c.System == Knockwall {
		return ""
	}
	return figure(ratio) + "×"
}

// How a goal was kept.
const (
	met         = "met"
	missed      = "MISSED"
	notMeasured = "not measured"
)

// state tells how a goal of the row was kept, and with what figure, if there is one.
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
	case v < 1: // as goals have it
		return word, "1/" + figure(1/v)
	}
	return word, figure(v) + "×"
}

// span writes a span of time to the second.
func (s Seconds) span() string {
	return time.Duration(float64(s) * float64(time.Second)).Round(time.Second).String()
}

// plain is a text in one line, without what would move a terminal's cursor.
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

// width counts a text's columns.
func width(text string) int { return len([]rune(text)) }

// cut makes a text fit so many columns; … says that it was longer.
func cut(text string, columns int) string {
	runes := []rune(text)
	if len(runes) <= columns {
		return text
	}
	return string(runes[:columns-1]) + "…"
}

// wrap breaks a text in lines of so many columns, between words where it can.
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
