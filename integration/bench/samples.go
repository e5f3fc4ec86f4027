package main

import (
	"slices"
	"time"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// samples has the times that one system took, one for each try.
type samples []time.Duration

// cell summarizes the samples in a unit of time. A percentile is the sample of the nearest
// rank: the smallest that at least so many percent of the samples do not exceed.
func (s samples) cell(system string, unit time.Duration) report.Cell {
	slices.Sort(s)
	at := func(percent int) float64 { return float64(s[(len(s)*percent+99)/100-1]) / float64(unit) }
	return report.Cell{System: system, N: len(s), Median: at(50), P95: at(95), P99: at(99)}
}
