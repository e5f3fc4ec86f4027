package report

import "slices"

// Summarize makes a system's cell of its samples, which may be in any order and stay
// in it. With no samples, the cell has no median.
//
// Percentiles are by nearest rank: the p-th is the least sample that at least p of a
// hundred samples do not exceed. So each is a sample that was really taken, never
// one between two; the median of an even number is the lower of the two in the
// middle, and P99 of fewer than a hundred is the worst of all.
func Summarize(system string, samples []float64) Cell {
	c := Cell{System: system, N: len(samples)}
	if c.N == 0 {
		return c
	}
	sorted := slices.Sorted(slices.Values(samples))
	c.Median = percentile(sorted, 50)
	c.P95 = percentile(sorted, 95)
	c.P99 = percentile(sorted, 99)
	return c
}

// percentile returns the p-th percentile of samples that are sorted, at least one.
// It counts in whole numbers: 95 % of 20 in floating point may be 19.000000000000004,
// whose rank would be 20.
func percentile(sorted []float64, p int) float64 {
	rank := (p*len(sorted) + 99) / 100
	return sorted[rank-1]
}
