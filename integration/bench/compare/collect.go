package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// modulePath is the prefix that is removed from the names of benchmarks.
const modulePath = "github.com/knockwall/knockwall/"

// fromBenchmarks returns the allocations in the output of `go test -bench`. The flag -cpu 1
// keeps the number of processors out of the names.
func fromBenchmarks(text string) ([]figure, error) {
	var figures []figure
	of := ""
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[0] == "pkg:" {
			of = strings.TrimPrefix(fields[1], modulePath)
		}
		if len(fields) < 2 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil {
			continue // a log line of a benchmark
		}
		f, err := parseFigure(of+" "+fields[0], allocations, before(fields, allocations))
		if err != nil {
			return nil, fmt.Errorf("%w; run with -benchmem", err)
		}
		figures = append(figures, f)
	}
	if len(figures) == 0 {
		return nil, errors.New("there is no benchmark in it")
	}
	return figures, nil
}

// before returns the field before the unit, or "".
func before(fields []string, unit string) string {
	for i, field := range fields[1:] {
		if field == unit {
			return fields[i]
		}
	}
	return ""
}

// fromReport returns the figures of a report that can be compared. For each row these are
// the ratios of knockwall's median to those of the other systems, how many clients knockwall
// has let in, and its memory.
func fromReport(r *report.Report) []figure {
	var figures []figure
	for _, row := range r.Rows {
		for _, c := range row.Cells {
			if c.System != report.Knockwall {
				if by := row.Ratio(c); by > 0 {
					figures = append(figures, figure{name: row.ID + ", knockwall by " + c.System, unit: ratio, value: 1 / by})
				}
				continue
			}
			if c.Of > 0 {
				figures = append(figures, figure{name: row.ID + ", knockwall", unit: letIn, value: float64(c.Done), of: c.Of})
			}
			if row.Unit == memory && c.Median > 0 {
				figures = append(figures, figure{name: row.ID + ", knockwall", unit: memory, value: c.Median})
			}
		}
	}
	return figures
}
