package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// table has the figures, with the commit, date and machine of the measurement.
type table struct {
	commit, date, machine string
	figures               []figure
}

const preamble = `# Benchmark results

` + "`integration/bench/compare.sh --update`" + ` writes this table. Without --update it measures
again and reports which figures are worse. A ratio is knockwall's median divided by the
median of the other system, which did the same work in the same run: less is better.

`

// The lines before the table, and its head.
const (
	commitLine  = "- commit: "
	dateLine    = "- date: "
	machineLine = "- machine: "
	headLine    = "| name | unit | value |"
	ruleLine    = "|---|---|---:|"
)

// markdown returns the table in the form that parseTable parses. It returns an error if
// parseTable could not parse it, for example if a name contains a bar or occurs twice.
func (t table) markdown() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(preamble)
	fmt.Fprintf(&b, "%s%s\n%s%s\n%s%s\n\n%s\n%s\n",
		commitLine, t.commit, dateLine, t.date, machineLine, t.machine, headLine, ruleLine)
	for _, f := range t.figures {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.name, f.unit, f.text())
	}
	if _, err := parseTable(b.String()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// parseTable parses a table. It ignores the text around it, as people may have added notes.
func parseTable(text string) (table, error) {
	var t table
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == headLine || line == ruleLine {
			continue
		}
		if cells, ok := strings.CutPrefix(line, "|"); ok {
			f, err := parseLine(cells)
			if err == nil && seen[f.name+"|"+f.unit] {
				err = fmt.Errorf("%s is there twice", f.name)
			}
			if err != nil {
				return t, fmt.Errorf("line %d: %w", number, err)
			}
			seen[f.name+"|"+f.unit] = true
			t.figures = append(t.figures, f)
			continue
		}
		for prefix, to := range map[string]*string{commitLine: &t.commit, dateLine: &t.date, machineLine: &t.machine} {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				*to = rest
			}
		}
	}
	if len(t.figures) == 0 {
		return t, errors.New("there is no figure in it")
	}
	if t.commit == "" {
		return t, fmt.Errorf("it does not say on which commit it was measured: %q is missing", commitLine)
	}
	return t, nil
}

// parseLine parses a line without its first bar.
func parseLine(line string) (figure, error) {
	cells := strings.Split(line, "|")
	if len(cells) != 4 || cells[3] != "" {
		return figure{}, fmt.Errorf("not a line like %s", headLine)
	}
	return parseFigure(strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2]))
}
