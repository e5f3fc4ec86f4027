package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tableOf returns a table with these lines.
func tableOf(t *testing.T, lines ...string) table {
	t.Helper()
	parsed, err := parseTable(textOf(lines...))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func textOf(lines ...string) string {
	return strings.Join(append([]string{"- commit: 0a1b2c3", headLine, ruleLine}, lines...), "\n")
}

func TestComparison(t *testing.T) {
	const other = "| other | allocs/op | 0 |" // so that one figure can be compared
	for _, tt := range []struct {
		name      string
		then, now string
		want      verdict
		worse     bool
	}{
		{"as many allocations", "| x | allocs/op | 2 |", "| x | allocs/op | 2 |", same, false},
		{"one allocation more", "| x | allocs/op | 0 |", "| x | allocs/op | 1 |", worse, true},
		{"one allocation less", "| x | allocs/op | 2 |", "| x | allocs/op | 1 |", better, false},
		{"ratio within the noise", "| x | ratio | 0.01 |", "| x | ratio | 0.0149 |", same, false},
		{"ratio at the noise", "| x | ratio | 2 |", "| x | ratio | 3 |", same, false},
		{"ratio beyond the noise", "| x | ratio | 0.01 |", "| x | ratio | 0.0151 |", worse, true},
		{"ratio less, within the noise", "| x | ratio | 0.01 |", "| x | ratio | 0.0067 |", same, false},
		{"ratio less, beyond the noise", "| x | ratio | 0.01 |", "| x | ratio | 0.0066 |", better, false},
		{"memory beyond the noise", "| x | MiB | 80 |", "| x | MiB | 121 |", worse, true},
		{"memory within the noise", "| x | MiB | 80 |", "| x | MiB | 119 |", same, false},
		{"all let in", "| x | let in | 20/20 |", "| x | let in | 20/20 |", same, false},
		{"one less let in", "| x | let in | 200/200 |", "| x | let in | 199/200 |", worse, true},
		{"more let in", "| x | let in | 3/20 |", "| x | let in | 4/20 |", better, false},
		{"all of fewer let in", "| x | let in | 200/200 |", "| x | let in | 20/20 |", same, false},
		{"less of more let in", "| x | let in | 10/20 |", "| x | let in | 99/200 |", worse, true},
		{"no other system", "| x | ratio | 0.01 |", "", absent, false},
		{"no benchmark", "| x | allocs/op | 0 |", "", gone, true},
		{"no clients", "| x | let in | 20/20 |", "", gone, true},
		{"no memory", "| x | MiB | 80 |", "", gone, true},
		{"new", "", "| x | ratio | 0.01 |", added, false},
		{"another unit", "| x | allocs/op | 0 |", "| x | ratio | 0.01 |", gone, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			got, err := writeComparison(&out, tableOf(t, other, tt.then), tableOf(t, other, tt.now))
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.worse {
				t.Errorf("worse: %v\n%s", got, &out)
			}
			for line := range strings.Lines(out.String()) {
				if strings.HasPrefix(line, "x ") {
					if !strings.HasSuffix(strings.TrimRight(line, " \n"), string(tt.want)) {
						t.Errorf("not %q: %s", tt.want, line)
					}
					break
				}
			}
		})
	}
}

func TestNothingInCommonIsNoComparison(t *testing.T) {
	_, err := writeComparison(new(bytes.Buffer), tableOf(t, "| x | ratio | 1 |"), tableOf(t, "| y | ratio | 1 |"))
	if err == nil {
		t.Error("no error")
	}
}

func TestMalformedTables(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                  "",
		"no figures":               textOf(),
		"no commit":                "| x | ratio | 1 |",
		"no end":                   textOf("| x | ratio | 1"),
		"a cell less":              textOf("| x | ratio |"),
		"a cell more":              textOf("| x | ratio | 1 | 2 |"),
		"no name":                  textOf("| | ratio | 1 |"),
		"an unknown unit":          textOf("| x | ms | 1 |"),
		"no value":                 textOf("| x | ratio | |"),
		"a ratio of 0":             textOf("| x | ratio | 0 |"),
		"a ratio below 0":          textOf("| x | ratio | -1 |"),
		"a ratio that is NaN":      textOf("| x | ratio | NaN |"),
		"a ratio that is infinite": textOf("| x | ratio | Inf |"),
		"a ratio with a sign":      textOf("| x | ratio | 1× |"),
		"half an allocation":       textOf("| x | allocs/op | 0.5 |"),
		"a share of nobody":        textOf("| x | let in | 0/0 |"),
		"more than all":            textOf("| x | let in | 21/20 |"),
		"a share of no number":     textOf("| x | let in | 20 |"),
		"a figure twice":           textOf("| x | ratio | 1 |", "| x | ratio | 1 |"),
	} {
		if _, err := parseTable(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAnErrorNamesItsLine(t *testing.T) {
	_, err := parseTable(textOf("| x | ratio | 1 |", "| y | ratio | much |"))
	if want := `line 5: y: "much" is not a number above 0`; err == nil || err.Error() != want {
		t.Errorf("%v, not %s", err, want)
	}
}

func TestWhatTheTableCannotHoldIsNotWritten(t *testing.T) {
	if _, err := (table{commit: "0a1b2c3", figures: []figure{{name: "a|b", unit: ratio, value: 1}}}).markdown(); err == nil {
		t.Error("no error")
	}
}

func TestBenchmarksThatCannotBeCompared(t *testing.T) {
	for name, text := range map[string]string{
		"none":           "PASS\n",
		"no allocations": "BenchmarkKnock 100 12 ns/op\n",
		"not a number":   "BenchmarkKnock 100 12 ns/op some allocs/op\n",
	} {
		if _, err := fromBenchmarks(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A run writes its figures as a table, and a later run is compared with it.
func TestUpdateAndCompare(t *testing.T) {
	benchmarks, quick := "testdata/benchmarks.txt", "testdata/report.json"
	path := filepath.Join(t.TempDir(), "baseline.md")
	if _, err := run(path, benchmarks, quick, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with no table: %v", err)
	}
	if worse, err := run(path, benchmarks, quick, "89abcde"); worse || err != nil {
		t.Fatal(worse, err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := preamble + `- commit: 89abcde
- date: 2026-03-04
- machine: Some CPU, cores: 2, Linux 6.1.0, go1.26.8

| name | unit | value |
|---|---|---:|
| sequence BenchmarkKnock | allocs/op | 0 |
| sequence BenchmarkKnockWhenFull | allocs/op | 2 |
| internal/packet BenchmarkParse/IPv4_TCP | allocs/op | 0 |
| last-knock, knockwall by knockd | ratio | 0.005 |
| flood-20k, knockwall | let in | 19/20 |
| memory, knockwall | MiB | 80 |
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if worse, err := run(path, benchmarks, quick, ""); worse || err != nil {
		t.Error(worse, err)
	}
	less := strings.Replace(string(got), "| 2 |", "| 1 |", 1)
	if err := os.WriteFile(path, []byte(less), 0o644); err != nil {
		t.Fatal(err)
	}
	if worse, err := run(path, benchmarks, quick, ""); !worse || err != nil {
		t.Error(worse, err)
	}
}

func TestOnlyQuickRunsAreCompared(t *testing.T) {
	text, err := os.ReadFile("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(path, bytes.Replace(text, []byte(`"quick": true`), []byte(`"quick": false`), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := measured("testdata/benchmarks.txt", path); err == nil || !strings.Contains(err.Error(), "--quick") {
		t.Errorf("%v", err)
	}
}

// The table in the repository can be parsed and compared.
func TestTheRepositorysTable(t *testing.T) {
	text, err := os.ReadFile("../baseline.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseTable(string(text)); err != nil {
		t.Error(err)
	}
}
