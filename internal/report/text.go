package report

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/knockwall/knockwall/internal/printable"
)

// How many lines of a list the text has at most. The page has more of them.
const (
	textRows = 20
	textDays = 31
)

// WriteText writes the report in lines of so many columns. origin says where the events are
// from.
func (r *Report) WriteText(w io.Writer, columns int, origin string) error {
	t := &text{Writer: bufio.NewWriter(w), columns: columns, zone: r.Until.Location()}
	t.header(r, origin)
	t.guests(r)
	t.refusals(&r.Refusals)
	t.trapped(r)
	t.unused(r)
	return t.Flush()
}

type text struct {
	*bufio.Writer
	columns int
	zone    *time.Location
}

// say writes a paragraph. Each line after the first begins with the indentation of the
// first.
func (t *text) say(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	words := strings.TrimLeft(s, " ")
	indent := s[:len(s)-len(words)]
	for _, line := range printable.Wrap(words, t.columns-len(indent)) {
		fmt.Fprintln(t, indent+line)
	}
}

func (t *text) heading(s string) { fmt.Fprintf(t, "\n%s\n", s) }

func (t *text) header(r *Report, origin string) {
	t.say("%s to %s, from %s: %s.", moment(r.From, t.zone), moment(r.Until, t.zone), origin, printable.Count(r.Events, "event"))
	for _, s := range r.remarks() {
		t.say("%s", s)
	}
}

// remarks are sentences about the whole report.
func (r *Report) remarks() (all []string) {
	if r.Events > 0 && r.First.Sub(r.From) > time.Hour {
		all = append(all, fmt.Sprintf("The oldest event is of %s.", moment(r.First, r.Until.Location())))
	}
	if r.Lossy {
		all = append(all, "Some packets or events were lost, so the numbers are too low.")
	}
	if r.Failed > 0 {
		all = append(all, fmt.Sprintf("Something has failed, %s: see `journalctl -u knockwall -p err` or `knockwall events`.", printable.Count(r.Failed, "event")))
	}
	return all
}

func (t *text) guests(r *Report) {
	t.heading("WHO CAME IN")
	if len(r.Guests) == 0 {
		t.say("  Nobody.")
		return
	}
	rows := [][]string{{"LAST", "WHO", "DOOR", "BY", "OPENED", "CONNECTIONS"}}
	below := []string{""}
	for _, g := range r.Guests[:min(textRows, len(r.Guests))] {
		rows = append(rows, []string{moment(g.Last, t.zone), g.Who(), g.Door, g.By(), number(g.Opened), number(g.Connections)})
		from := ""
		if g.Name != "" {
			from = "from " + g.from(3)
		}
		below = append(below, from)
	}
	t.table(rows, below, 1, 2, 3)
	t.more(len(r.Guests), r.MoreGuests)
}

// from returns the latest sources of a guest.
func (g *Guest) from(most int) string {
	var words []string
	for i := len(g.Sources) - 1; i >= 0 && len(words) < most; i-- {
		words = append(words, g.Sources[i])
	}
	if len(g.Sources) > len(words) || g.MoreSources {
		return strings.Join(words, ", ") + " and others"
	}
	return strings.Join(words, ", ")
}

// more says that a list has more rows than are shown.
func (t *text) more(rows int, others bool) {
	switch {
	case others:
		t.say("  … and others, too many to keep.")
	case rows > textRows:
		t.say("  … and %s more.", number(rows-textRows))
	}
}

func (t *text) refusals(c *Calendar) {
	t.heading("REFUSED CONNECTIONS BY HOUR")
	if c.Total() == 0 {
		t.say("  None.")
		return
	}
	days := c.Days[max(0, len(c.Days)-textDays):]
	fmt.Fprintf(t, "  %-10s  00    06    12    18\n", "")
	most := c.Most()
	for _, d := range days {
		fmt.Fprintf(t, "  %10s  %s  %s\n", d.Date.Format("Mon 2 Jan"), bars(d.Hours[:], most), number(d.Total()))
	}
	shown := Calendar{Days: days}
	if before := c.Total() - shown.Total(); before > 0 {
		t.say("  … and %s before.", number(before))
	}
	t.say("  %s in all. A full bar is %s in an hour, and half a bar a quarter of that.", number(c.Total()), number(most))
}

// scaled returns how high a number is on a scale of square roots: 1 for most. An hour with a
// scan has many times the packets of others, which would vanish on a linear scale.
func scaled(n, most int) float64 { return math.Sqrt(float64(n) / float64(most)) }

// bars draws a number as a bar of eighths of a line, and 0 as a dot.
func bars(numbers []int, most int) string {
	var b strings.Builder
	for _, n := range numbers {
		if n == 0 {
			b.WriteRune('·')
			continue
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[max(0, int(math.Ceil(8*scaled(n, most)))-1)])
	}
	return b.String()
}

func (t *text) trapped(r *Report) {
	t.heading("SCANS TRAPPED")
	if len(r.Trapped) == 0 && r.TrappedElsewhere == 0 {
		t.say("  None.")
		return
	}
	rows := [][]string{{"LAST", "SOURCE", "DOOR", "BY", "TIMES"}}
	for _, s := range r.Trapped[:min(textRows, len(r.Trapped))] {
		rows = append(rows, []string{moment(s.Last, t.zone), s.Source, s.Door, s.Why(), number(s.Count)})
	}
	t.table(rows, nil, 1, 2, 3)
	t.more(len(r.Trapped), r.MoreTrapped)
	if r.TrappedElsewhere > 0 {
		t.say("  From many other sources: %s.", number(r.TrappedElsewhere))
	}
}

func (t *text) unused(r *Report) {
	t.heading("NOT USED")
	if !r.Compared {
		t.say("  The rule files could not be read, so it is not known which doors and people there are. `knockwall check` says why.")
		return
	}
	if len(r.Unused) == 0 && len(r.Unseen) == 0 {
		t.say("  Each door was opened, and each person came.")
		return
	}
	if len(r.Unused) > 0 {
		t.say("  Doors that nobody opened: %s.", listed(escaped(r.Unused)))
	}
	if len(r.Unseen) > 0 {
		t.say("  People who did not come: %s.", listed(r.unseen()))
	}
}

// unseen returns the people who have not come, with their doors.
func (r *Report) unseen() (all []string) {
	for _, p := range r.Unseen {
		all = append(all, printable.Escape(p.Name+" ("+strings.Join(p.Doors, ", ")+")"))
	}
	return all
}

func escaped(names []string) (all []string) {
	for _, name := range names {
		all = append(all, printable.Escape(name))
	}
	return all
}

// maxListed is how many names a sentence lists.
const maxListed = 100

func listed(names []string) string {
	if len(names) > maxListed {
		return strings.Join(names[:maxListed], ", ") + fmt.Sprintf(" and %d more", len(names)-maxListed)
	}
	return strings.Join(names, ", ")
}

// table writes rows of cells below each other. The first column and those that may be cut are
// text, the others numbers. If the lines are too long, it cuts off cells in the columns that
// may be cut, the longest first. below is a line below each row, or "".
func (t *text) table(rows [][]string, below []string, cuttable ...int) {
	const margin, gap = 2, 2
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable.Escape(cell)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	total := margin - gap
	for _, w := range widths {
		total += gap + w
	}
	for ; total > t.columns; total-- {
		longest := cuttable[0]
		for _, i := range cuttable {
			if widths[i] > widths[longest] {
				longest = i
			}
		}
		if widths[longest] <= len("DOOR") {
			break
		}
		widths[longest]--
	}
	for i, row := range rows {
		var b strings.Builder
		for j, cell := range row {
			if j == 0 {
				b.WriteString(strings.Repeat(" ", margin))
			} else {
				b.WriteString(strings.Repeat(" ", gap))
			}
			cell = printable.Cut(cell, widths[j])
			blanks := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if j == 0 || slices.Contains(cuttable, j) {
				b.WriteString(cell + blanks)
			} else {
				b.WriteString(blanks + cell)
			}
		}
		fmt.Fprintln(t, strings.TrimRight(b.String(), " "))
		if below != nil && below[i] != "" {
			t.say("    %s", printable.Escape(below[i]))
		}
	}
}
