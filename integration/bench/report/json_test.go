package report_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/integration/bench/report"
)

func written(t testing.TB, r *report.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadReturnsWhatWasWritten(t *testing.T) {
	got, err := report.Read(strings.NewReader(written(t, made())))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made(), got); diff != "" {
		t.Errorf("-written +read:\n%s", diff)
	}
}

// replaced returns the JSON of the made report with one text replaced by another.
func replaced(t testing.TB, was, is string) string {
	t.Helper()
	all := written(t, made())
	if !strings.Contains(all, was) {
		t.Fatalf("there is no %s", was)
	}
	return strings.Replace(all, was, is, 1)
}

func refused(t testing.TB) map[string]string {
	all := written(t, made())
	return map[string]string{
		"nothing":             "",
		"null":                "null",
		"no rows":             `{"commit": "0a1b2c3", "rows": []}`,
		"cut short":           all[:len(all)/2],
		"an unknown field":    replaced(t, `"commit"`, `"mood": "good", "commit"`),
		"an unknown in a row": replaced(t, `"unit"`, `"units"`),
		"more after it":       all + "{}",
		"garbage after it":    all + "]",
		"too much":            all + strings.Repeat(" ", 1<<20),
		"too much in it":      replaced(t, "0a1b2c3", strings.Repeat("x", 1<<20)),
		"NaN":                 replaced(t, `"median": 0.314`, `"median": NaN`),
		"an infinity":         replaced(t, `"median": 0.314`, `"median": 1e999`),
		"text for a number":   replaced(t, `"median": 0.314`, `"median": "0.314"`),
		"a median below 0":    replaced(t, `"median": 0.314`, `"median": -0.314`),
		"more than all":       replaced(t, `"done": 121`, `"done": 201`),
		"a system twice":      replaced(t, `"system": "knockd"`, `"system": "knockwall"`),
		"no system":           replaced(t, `"system": "knockd"`, `"system": ""`),
		"a row twice":         replaced(t, `"id": "connect"`, `"id": "last-knock"`),
		"no row":              replaced(t, `"id": "connect"`, `"id": ""`),
		"a goal below 0":      replaced(t, `"at_most": 3`, `"at_most": -3`),
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range refused(t) {
		if _, err := report.Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestWhatIsNoNumberIsNotWritten(t *testing.T) {
	r := made()
	r.Rows[0].Cells[0].Median = math.NaN()
	if err := r.WriteJSON(new(bytes.Buffer)); err == nil {
		t.Error("no error")
	}
}

// FuzzRead reads any input as a report. It writes an accepted report in every format, and
// checks that its JSON reads back as the same report.
func FuzzRead(f *testing.F) {
	f.Add(written(f, made()))
	for _, text := range refused(f) {
		if len(text) < 1<<16 {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := report.Read(strings.NewReader(text))
		if err != nil {
			return
		}
		again, err := report.Read(strings.NewReader(written(t, r)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(written(t, r), written(t, again)); diff != "" {
			t.Errorf("-once +twice:\n%s", diff)
		}
		checkText(t, r)
		checkSVG(t, r)
	})
}
