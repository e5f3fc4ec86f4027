package report_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/integration/bench/report"
)

func TestSummarize(t *testing.T) {
	upTo := func(n int) (samples []float64) {
		for i := n; i > 0; i-- { // the greatest first
			samples = append(samples, float64(i))
		}
		return samples
	}
	for _, tt := range []struct {
		samples          []float64
		median, p95, p99 float64
	}{
		{nil, 0, 0, 0},
		{[]float64{7}, 7, 7, 7},
		{[]float64{9, 3}, 3, 9, 9},
		{[]float64{5, 1, 3}, 3, 5, 5},
		{upTo(4), 2, 4, 4},
		{upTo(19), 10, 19, 19},
		{upTo(20), 10, 19, 20},
		{upTo(21), 11, 20, 21},
		{upTo(99), 50, 95, 99},
		{upTo(100), 50, 95, 99},
		{upTo(101), 51, 96, 100},
		{upTo(200), 100, 190, 198},
		{upTo(1000), 500, 950, 990},
		{[]float64{2, 2, 2, 2}, 2, 2, 2},
	} {
		before := slices.Clone(tt.samples)
		got := report.Summarize("knockd", tt.samples)
		want := report.Cell{System: "knockd", N: len(tt.samples), Median: tt.median, P95: tt.p95, P99: tt.p99}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d samples (-want +got):\n%s", len(tt.samples), diff)
		}
		if !slices.Equal(before, tt.samples) {
			t.Errorf("%d samples have changed places", len(tt.samples))
		}
	}
}
