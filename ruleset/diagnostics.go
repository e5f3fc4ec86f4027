package ruleset

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/printable"
)

// The limits of the text of one diagnostic, in columns.
const (
	minWidth   = 40
	maxContext = 60
	gutter     = len("   1: ")
)

// The same warning about more than alike places is shown once, with the first of these
// places. Of the others, at most listed are named.
const (
	alike  = 3
	listed = 20
)

// textWriter writes diagnostics as text. HCL's own writer marks the place within the line
// by colour only, and shows the whole line, however long it is.
type textWriter struct {
	b     strings.Builder
	l     *Loaded
	width int
	color bool
}

// WriteText writes the diagnostics as text, wrapped at width columns, but at least 40.
// Each has its source line, with carets under the place. A warning that is the same at many
// places is one text, with a list of the places.
func (l *Loaded) WriteText(w io.Writer, width uint, color bool) error {
	t := textWriter{l: l, width: max(int(width), minWidth), color: color}
	type text struct{ summary, detail string }
	same := map[text][]*hcl.Diagnostic{}
	for _, d := range l.Diagnostics {
		if d.Severity == hcl.DiagWarning && d.Subject != nil {
			same[text{d.Summary, d.Detail}] = append(same[text{d.Summary, d.Detail}], d)
		}
	}
	for _, d := range l.Diagnostics {
		all := same[text{d.Summary, d.Detail}]
		switch {
		case d.Severity != hcl.DiagWarning || len(all) <= alike:
			t.diagnostic(d)
		case d == all[0]:
			t.diagnostic(d)
			t.also(all[1:])
		}
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

// also names other places of the same warning.
func (t *textWriter) also(others []*hcl.Diagnostic) {
	var places []string
	for _, d := range others[:min(len(others), listed)] {
		places = append(places, fmt.Sprintf("%s line %d%s", printable.Columns(d.Subject.Filename), d.Subject.Start.Line, t.inBlock(d.Subject)))
	}
	text := fmt.Sprintf("The same holds for %d more: ", len(others)) + strings.Join(places, "; ")
	if more := len(others) - listed; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	fmt.Fprintf(&t.b, "%s.\n\n", strings.Join(printable.Wrap(text, t.width-1), "\n"))
}

func (t *textWriter) diagnostic(d *hcl.Diagnostic) {
	severity, colour := "Error", "\x1b[1;31m"
	if d.Severity == hcl.DiagWarning {
		severity, colour = "Warning", "\x1b[1;33m"
	}
	fmt.Fprintf(&t.b, "%s: %s\n\n", t.paint(colour, severity), printable.Columns(d.Summary))
	if d.Subject != nil {
		t.place(d.Subject, colour)
	}
	if d.Detail != "" {
		fmt.Fprintf(&t.b, "%s\n\n", wrap(d.Detail, t.width))
	}
}

func (t *textWriter) paint(colour, s string) string {
	if !t.color {
		return s
	}
	return colour + s + "\x1b[0m"
}

// place shows the source line of a diagnostic. If the diagnostic is about all of a file that a
// rule file names, place shows the name of that file.
func (t *textWriter) place(at *hcl.Range, colour string) {
	if t.l.named[at.Filename] && at.Empty() {
		fmt.Fprintf(&t.b, "  on %s\n\n", printable.Columns(at.Filename))
		return
	}
	fmt.Fprintf(&t.b, "  on %s line %d", printable.Columns(at.Filename), at.Start.Line)
	if file := t.file(at); file == nil || at.Start.Byte > len(file.Bytes) {
		t.b.WriteString("\n\n")
		return
	}
	fmt.Fprintf(&t.b, "%s:\n", t.inBlock(at))
	source, before, marked := excerpt(t.l.shownText(at.Filename), at.Start.Byte, at.End.Byte, t.width-gutter)
	fmt.Fprintf(&t.b, "%4d: %s\n", at.Start.Line, source)
	fmt.Fprintf(&t.b, "%*s%s\n\n", gutter+before, "", t.paint(colour, strings.Repeat("^", marked)))
}

// file returns the file of a place, or nil.
func (t *textWriter) file(at *hcl.Range) *hcl.File {
	file := t.l.files[at.Filename]
	if file == nil && t.l.named[at.Filename] {
		file = &hcl.File{Bytes: t.l.shown[at.Filename]}
	}
	return file
}

// inBlock says in which block a place is, behind a comma, if it is in one.
func (t *textWriter) inBlock(at *hcl.Range) string {
	file := t.file(at)
	if file == nil || at.Start.Byte > len(file.Bytes) {
		return ""
	}
	if nav, ok := file.Nav.(interface{ ContextString(offset int) string }); ok {
		if in := nav.ContextString(at.Start.Byte); in != "" {
			return ", in " + printable.Cut(printable.Columns(t.l.words.withoutLabels(in)), maxContext)
		}
	}
	return ""
}

// withoutLabels removes the labels from the header of a block within another. They may be
// secrets.
func (w *words) withoutLabels(header string) string {
	if kind, _, labelled := strings.Cut(header, " "); labelled && !w.top[kind] {
		return kind
	}
	return header
}

// excerpt returns the line of text with the byte at start, or the part of it that fits
// into the columns. before is the number of columns before the bytes from start to end, and
// marked is the number of columns that these take. Bytes beyond the line do not count.
func excerpt(text []byte, start, end, columns int) (line string, before, marked int) {
	reach := utf8.UTFMax * (columns + 1) // more than fits, however long the line is
	first := max(0, start-reach)
	for first < start && !utf8.RuneStart(text[first]) {
		first++
	}
	first += bytes.LastIndexByte(text[first:start], '\n') + 1
	last := min(len(text), max(start, end)+reach)
	if i := bytes.IndexByte(text[start:last], '\n'); i >= 0 {
		last = start + i
	}
	end = max(start, min(end, last, start+reach))
	last = min(last, end+reach)

	head := []rune(printable.Columns(string(text[first:start])))
	middle := []rune(printable.Columns(string(text[start:end])))
	tail := []rune(printable.Columns(string(text[end:last])))
	tail = []rune(strings.TrimRight(string(tail), " "))
	if len(tail) == 0 {
		middle = []rune(strings.TrimRight(string(middle), " "))
	}
	if most := columns / 2; len(head)+len(middle) > columns && len(head) > most {
		head = append([]rune("…"), head[len(head)-most+1:]...)
	}
	middle = []rune(printable.Cut(string(middle), columns-len(head)))
	return string(head) + string(middle) + printable.Cut(string(tail), columns-len(head)-len(middle)), len(head), max(len(middle), 1)
}

// wrap breaks the lines of text between words.
func wrap(text string, width int) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		lines = append(lines, printable.Wrap(printable.Columns(line), width)...)
	}
	return strings.Join(lines, "\n")
}
