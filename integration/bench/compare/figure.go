package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// figure is one line of the table.
type figure struct {
	name  string
	unit  string
	value float64
	of    int // number of clients; value of them were let in
}

// The units of figures.
const (
	allocations = "allocs/op"
	ratio       = "ratio" // knockwall's median divided by another system's
	memory      = "MiB"
	letIn       = "let in" // done/of
)

// noise is the factor by which a ratio or memory may grow before it counts as worse. It is
// large because a quick run has few samples, and because other load on the machine does not
// affect all systems of a row alike: one that sleeps and wakes for each packet waits for the
// scheduler, another for a disk. People soon ignore a check with false alarms. The goals of
// a full run find what this check misses.
const noise = 1.5

// parseFigure parses the cells of a line.
func parseFigure(name, unit, value string) (figure, error) {
	f := figure{name: name, unit: unit}
	if name == "" {
		return f, errors.New("a figure has no name")
	}
	switch unit {
	case allocations:
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return f, fmt.Errorf("%s: %q is not a number of allocations", name, value)
		}
		f.value = float64(n)
	case ratio, memory:
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || !(v > 0) || math.IsInf(v, 0) {
			return f, fmt.Errorf("%s: %q is not a number above 0", name, value)
		}
		f.value = v
	case letIn:
		done, of, _ := strings.Cut(value, "/")
		n, err := strconv.ParseUint(done, 10, 31)
		all, err2 := strconv.ParseUint(of, 10, 31)
		if err != nil || err2 != nil || all == 0 || n > all {
			return f, fmt.Errorf("%s: %q is not how many of how many, as 49/50 is", name, value)
		}
		f.value, f.of = float64(n), int(all)
	default:
		return f, fmt.Errorf("%s: there is no unit %q", name, unit)
	}
	return f, nil
}

// text returns the figure's value in the form that parseFigure parses.
func (f figure) text() string {
	switch f.unit {
	case letIn:
		return fmt.Sprintf("%.0f/%d", f.value, f.of)
	case allocations:
		return fmt.Sprintf("%.0f", f.value)
	}
	return strconv.FormatFloat(f.value, 'g', 3, 64)
}

// share returns the share of the clients that were let in, from 0 to 1.
func (f figure) share() float64 { return f.value / float64(f.of) }

// needsOthers reports whether the figure needs another system.
func (f figure) needsOthers() bool { return f.unit == ratio }
