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

// Style is how a text is written.
type Style struct {
	Columns int  // of a line
	ASCII   bool // without the characters for bars and ellipses, which not every terminal has
}

// WriteText writes the report in a style. origin says where the events are from.
func (r *Report) WriteText(w io.Writer, style Style, origin string) error {
	t := &text{Writer: bufio.NewWriter(w), columns: style.Columns, signs: unicodeSigns, zone: r.Until.Location()}
	if style.ASCII {
		t.signs = asciiSigns
	}
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
	signs
	zone *time.Location
}

// signs are what texts in ASCII have other characters for.
type signs struct {
	bars      []rune // from the lowest to the highest
	none      rune   // instead of a bar
	scale     string // what the highest bar is, and one half as high
	cutOff    string // in place of the rest of a cell, one character
	andOthers string // before the number of rows that are left out
}

var (
	unicodeSigns = signs{[]rune("▁▂▃▄▅▆▇█"), '·', "A full bar is %s in an hour, and half a bar a quarter of that.", "…", "…"}
	asciiSigns   = signs{[]rune("12345678"), '.', "An 8 is %s in an hour, and a 4 a quarter of that.", "~", "..."}
)

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
	if r.Unconfirmed > 0 {
		all = append(all, fmt.Sprintf("The former rules have returned after a trial that nobody confirmed, %s.", printable.Count(r.Unconfirmed, "time")))
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
		rows = append(rows, []string{moment(g.Last, t.zone), g.Who(), g.Door, g.By(), number(g.Opened), g.connections()})
		from := ""
		if g.Name != "" {
			from = "from " + g.from(3)
		}
		below = append(below, from)
	}
	t.table(rows, below, layout{who: 1, cut: []int{2, 3}, spare: []int{3, 4, 5}})
	t.more(len(r.Guests), r.MoreGuests)
	if s := r.aboutTrusted(); s != "" {
		t.say("  %s", s)
	}
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
		t.say("  %s and others, too many to keep.", t.andOthers)
	case rows > textRows:
		t.say("  %s and %s more.", t.andOthers, number(rows-textRows))
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
		fmt.Fprintf(t, "  %10s  %s  %s\n", d.Date.Format("Mon 2 Jan"), t.drawn(d.Hours[:], most), number(d.Total()))
	}
	shown := Calendar{Days: days}
	if before := c.Total() - shown.Total(); before > 0 {
		t.say("  %s and %s before.", t.andOthers, number(before))
	}
	t.say("  %s in all. "+t.scale, number(c.Total()), number(most))
}

// scaled returns how high a number is on a scale of square roots: 1 for most. An hour with a
// scan has many times the packets of others, which would vanish on a linear scale.
func scaled(n, most int) float64 { return math.Sqrt(float64(n) / float64(most)) }

// drawn draws each number as a bar, whose height is in eighths of a line, and 0 as a dot.
func (s *signs) drawn(numbers []int, most int) string {
	var b strings.Builder
	for _, n := range numbers {
		if n == 0 {
			b.WriteRune(s.none)
			continue
		}
		b.WriteRune(s.bars[max(0, int(math.Ceil(8*scaled(n, most)))-1)])
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
	t.table(rows, nil, layout{who: 1, cut: []int{2, 3}, spare: []int{3, 4}})
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
	}
	if len(r.Idle) > 0 {
		t.say("  Opened by hand, without a connection: %s.", listed(r.idle()))
	}
	if len(r.Unused) > 0 {
		t.say("  Doors that nobody opened: %s.%s", listed(escaped(r.Unused)), r.aboutUnused())
	}
	if len(r.Unseen) > 0 {
		t.say("  People who did not come: %s.", listed(r.unseen()))
	}
}

// idle returns the sources for which a door was opened by hand in vain, with the door.
func (r *Report) idle() (all []string) {
	for _, g := range r.Idle {
		all = append(all, printable.Escape(g.Who()+" ("+g.Door+")"))
	}
	return all
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

// layout says which columns of a table are what. The first column and those below are text,
// the others numbers.
type layout struct {
	who   int   // whom the row is about: it is the last that is cut off
	cut   []int // may be cut off
	spare []int // are left out where there is no room, in this order
}

// table writes rows of cells below each other. If the lines are too long, it leaves out columns
// until there is room for all of who, and cuts off cells, those of the widest column first.
// below is a line below each row, or "".
func (t *text) table(rows [][]string, below []string, l layout) {
	const margin, gap, narrowest = 2, 2, len("DOOR")
	widths := make([]int, len(rows[0]))
	shown := make([]int, len(rows[0]))
	for i := range shown {
		shown[i] = i
	}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable.Escape(cell)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	// length is that of a line, where the columns in at have their smallest widths.
	length := func(at []int) int {
		n := margin - gap
		for _, i := range shown {
			if slices.Contains(at, i) {
				n += gap + min(widths[i], narrowest)
			} else {
				n += gap + widths[i]
			}
		}
		return n
	}
	for _, spare := range l.spare {
		if length(l.cut) > t.columns {
			shown = slices.DeleteFunc(shown, func(i int) bool { return i == spare })
		}
	}
	for _, cuttable := range [][]int{l.cut, {l.who}} {
		cuttable = slices.DeleteFunc(slices.Clone(cuttable), func(i int) bool { return !slices.Contains(shown, i) })
		for length(nil) > t.columns {
			widest := slices.MaxFunc(cuttable, func(a, b int) int { return widths[a] - widths[b] })
			if widths[widest] <= narrowest {
				break
			}
			widths[widest]--
		}
	}
	for i, row := range rows {
		var b strings.Builder
		between := margin
		for _, j := range shown {
			b.WriteString(strings.Repeat(" ", between))
			between = gap
			cell := printable.Cut(row[j], widths[j])
			if cell != row[j] {
				cell = strings.TrimSuffix(cell, "…") + t.cutOff
			}
			blanks := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if j == 0 || j == l.who || slices.Contains(l.cut, j) {
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
