package report

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/printable"
)

// columns is the maximum width of the text.
const columns = 100

// WriteText writes the report for a terminal: the machine, without which no figure means
// anything, then each row with a line for each system, then the goals.
func (r *Report) WriteText(w io.Writer) error {
	var b bytes.Buffer
	r.writeMachine(&b)
	for _, row := range r.Rows {
		row.writeTable(&b)
	}
	r.writeGoals(&b)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the report as text: %w", err)
	}
	return nil
}

func (r *Report) writeMachine(b *bytes.Buffer) {
	m := r.Machine
	run := fmt.Sprintf("%s, %s, took %s", r.Commit, r.Began.UTC().Format("2006-01-02 15:04 MST"), r.Took.span())
	if r.Quick {
		run += ", quick"
	}
	hang(b, "Commit    ", run)
	hang(b, "Machine   ", fmt.Sprintf("%s, %s, %d MiB", m.CPU, cores(m.Cores), m.MemoryMiB))
	hang(b, "System    ", m.System+", Linux "+m.Kernel)
	hang(b, "Programs  ", m.versions())
	hang(b, "Load      ", fmt.Sprintf("%.2f in the minute before", m.Load))
	b.WriteByte('\n')
	hang(b, "", "× is how many times knockwall's median: above 1×, knockwall does better.")
}

func cores(n int) string {
	if n == 1 {
		return "1 core"
	}
	return fmt.Sprintf("%d cores", n)
}

// versions returns the versions of the measured and used programs, Go first.
func (m Machine) versions() string {
	all := []string{m.Go}
	for _, name := range slices.Sorted(maps.Keys(m.Programs)) {
		all = append(all, name+" "+m.Programs[name])
	}
	return strings.Join(all, ", ")
}

// hang writes a text after its label. Further lines are indented to the start of the text.
func hang(b *bytes.Buffer, label, text string) {
	for _, line := range wrap(text, columns-width(label)) {
		fmt.Fprintln(b, strings.TrimRight(label+line, " "))
		label = strings.Repeat(" ", width(label))
	}
}

// systemWidth is the width of the first column, and idWidth that of a row's ID. Longer texts
// are cut.
const (
	systemWidth = 18
	idWidth     = 14
)

// column is a column in the table of a row.
type column struct {
	head  string
	width int // longer texts are cut
	value func(Row, Cell) string
}

// All columns together leave room for a note.
var (
	timeColumns = []column{
		{"n", 7, func(_ Row, c Cell) string { return whole(c.N) }},
		{"median", 9, func(_ Row, c Cell) string { return known(c.Median) }},
		{"p95", 9, func(_ Row, c Cell) string { return known(c.P95) }},
		{"p99", 9, func(_ Row, c Cell) string { return known(c.P99) }},
		{"ratio", 9, func(r Row, c Cell) string { return r.times(c) }},
	}
	doneColumns = []column{
		{"let in", 16, func(_ Row, c Cell) string {
			if c.Of == 0 {
				return "-"
			}
			return fmt.Sprintf("%d/%d", c.Done, c.Of)
		}},
	}
)

// known formats a figure, or returns - if there is none.
func known(v float64) string {
	if v == 0 {
		return "-"
	}
	return figure(v)
}

// whole formats a count, or returns - if there is none.
func whole(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// writeTable writes the row: its title and a line for each system.
func (r Row) writeTable(b *bytes.Buffer) {
	title := r.Title
	if r.Unit != "" {
		title += ", in " + r.Unit
	}
	b.WriteByte('\n')
	hang(b, printable.Cut(plain(r.ID), idWidth)+": ", title)
	var shown []column
	if r.timed() {
		shown = append(shown, timeColumns...)
	}
	if !r.timed() || r.counted() {
		shown = append(shown, doneColumns...)
	}
	head := strings.Repeat(" ", 2+systemWidth)
	for _, c := range shown {
		head += fmt.Sprintf(" %*s", c.width, c.head)
	}
	fmt.Fprintln(b, head)
	for _, cell := range r.Cells {
		line := fmt.Sprintf("  %-*s", systemWidth, printable.Cut(plain(cell.System), systemWidth))
		for _, c := range shown {
			line += fmt.Sprintf(" %*s", c.width, printable.Cut(c.value(r, cell), c.width))
		}
		hang(b, line+"  ", cell.Note)
	}
}

// timed reports whether the row has medians.
func (r Row) timed() bool {
	return slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Median > 0 })
}

// counted reports whether the row counts the clients that were let in.
func (r Row) counted() bool {
	return slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Of > 0 })
}

func (r *Report) writeGoals(b *bytes.Buffer) {
	headed := false
	for _, row := range r.Rows {
		for _, g := range row.Goals {
			if !headed {
				b.WriteString("\nGoals\n")
				headed = true
			}
			word, got := row.state(g)
			text := g.Text
			if got != "" {
				text += ": " + got
			}
			hang(b, fmt.Sprintf("  %-*s  %-*s  ", width(notMeasured), word, idWidth, printable.Cut(plain(row.ID), idWidth)), text)
		}
	}
}
