package report_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// checkText returns the report as text, and checks that no line has more than 100 columns.
func checkText(t *testing.T, r *report.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("%d columns: %q", n, line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("space at the end: %q", line)
		}
	}
	return b.String()
}

// checkSVG returns the report as a plot, and checks that it is XML, is self-contained, and
// shows its figures inside the picture.
func checkSVG(t *testing.T, r *report.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(b.Bytes()))
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		element, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch element.Name.Local {
		case "svg", "style", "title", "g", "rect", "line", "text":
		default:
			t.Errorf("there is a %s", element.Name.Local)
		}
		for _, a := range element.Attr {
			if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") || a.Name.Local == "width" && a.Value[0] == '-' {
				t.Errorf("%s %s=%q", element.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
}

// odd is a report with the longest and strangest possible texts and figures.
func odd() *report.Report {
	long := strings.Repeat("a word and ", 30) + strings.Repeat("x", 300)
	strange := "\x1b[2J<script>&\x00\"'\n\t\u202e" + long
	return &report.Report{
		Commit:  long,
		Machine: report.Machine{CPU: strange, Kernel: long, System: long, Go: long, Programs: map[string]string{strange: long}},
		Rows: []report.Row{
			{
				ID: strange, Title: strange, Unit: long,
				Cells: []report.Cell{
					{System: "knockwall", N: math.MaxInt / 8, Median: 5e-324, P95: 1e300, P99: 1e300, Done: math.MaxInt / 8, Of: math.MaxInt / 4, Note: strange},
					{System: strange, N: 1, Median: 123456789, P95: 5e-324, Note: long},
				},
				Goals: []report.Goal{{Text: strange, Against: strange, AtMost: 1}, {Text: long, AtMost: 1}, {Text: long}},
			},
			{ID: "clients", Cells: []report.Cell{{System: "knockwall", Done: math.MaxInt / 8, Of: math.MaxInt / 4, Note: strange}}},
			{ID: "nothing"},
		},
	}
}

func TestOddReportsCanBeShown(t *testing.T) {
	for name, r := range map[string]*report.Report{"odd": odd(), "made": made(), "empty": {}} {
		t.Run(name, func(t *testing.T) {
			text := checkText(t, r)
			if strings.ContainsAny(text, "\x1b\x00\u202e") {
				t.Error("the text has what moves a cursor")
			}
			if svg := checkSVG(t, r); strings.Contains(svg, "<script") || strings.ContainsAny(svg, "\x1b\x00") {
				t.Error("the plot has what was in a text")
			}
		})
	}
}

func TestLongNotesAreWhole(t *testing.T) {
	note := strings.Repeat("fourteen words of a note that somebody was at pains to put down here. ", 5)
	r := &report.Report{Rows: []report.Row{{ID: "flood", Cells: []report.Cell{{System: "knockwall", Done: 1, Of: 1, Note: note}}}}}
	if text := strings.Join(strings.Fields(checkText(t, r)), " "); !strings.Contains(text, strings.TrimSpace(note)) {
		t.Error(text)
	}
}

func TestTheWholeRangeOfFiguresIsShort(t *testing.T) {
	for v, want := range map[float64]string{
		0.00001: "1.00e-05", 0.0001234: "0.000123", 0.0312: "0.0312", 0.09996: "0.100", 1: "1.00", 4.5: "4.50",
		9.996: "10.0", 99.96: "100", 140: "140", 1000: "1000", 20518: "20518", 9999999: "1.00e+07", 12345678: "1.23e+07",
	} {
		r := &report.Report{Rows: []report.Row{{ID: "r", Cells: []report.Cell{{System: "knockwall", N: 1, Median: v}}}}}
		fields := strings.Fields(checkText(t, r))
		// n, median, p95, p99 of the only line of the only table
		if got := fields[len(fields)-3]; got != want {
			t.Errorf("%v is %s, not %s", v, got, want)
		}
	}
}

func TestOnlyAllAreAHundredPercent(t *testing.T) {
	for done, want := range map[int]string{3000: ">100%<", 2999: ">99.9%<", 1000: ">33.3%<", 0: ">0%<"} {
		r := &report.Report{Rows: []report.Row{{ID: "r", Cells: []report.Cell{{System: "knockwall", Done: done, Of: 3000}}}}}
		svg := checkSVG(t, r)
		if _, beside, _ := strings.Cut(svg, "/3000<"); !strings.Contains(beside, want) {
			t.Errorf("%d of 3000 is not %s:\n%s", done, want, svg)
		}
	}
}
