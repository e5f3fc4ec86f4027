package main

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// Percentiles are of the nearest rank.
func TestSamplesAreSummedUp(t *testing.T) {
	var s samples
	for i := range 200 {
		s = append(s, time.Duration(200-i)*time.Millisecond)
	}
	want := report.Cell{System: "knockd", N: 200, Median: 100, P95: 190, P99: 198}
	if diff := cmp.Diff(want, s.cell("knockd", time.Millisecond)); diff != "" {
		t.Error(diff)
	}
	want = report.Cell{System: "knockd", N: 1, Median: 7, P95: 7, P99: 7}
	if diff := cmp.Diff(want, samples{7 * time.Microsecond}.cell("knockd", time.Microsecond)); diff != "" {
		t.Error(diff)
	}
}

func TestCountsHaveCommas(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 12345.6: "12,346", 1e6: "1,000,000"} {
		if got := count(n); got != want {
			t.Errorf("%f is written %s, want %s", n, got, want)
		}
	}
}

func TestRowsAreChosen(t *testing.T) {
	for _, c := range []struct {
		arguments []string
		want      []string // nil: an error
	}{
		{nil, allRows},
		{[]string{"--quick"}, quickRows},
		{[]string{"--quick", "--only", "cpu,memory"}, []string{"cpu", "memory"}},
		{[]string{"--only", "cpu,speed"}, nil},
		{[]string{"cpu"}, nil},
	} {
		o, err := parse(c.arguments)
		if (err != nil) != (c.want == nil) || err == nil && !slices.Equal(o.only, c.want) {
			t.Errorf("%q: rows %q, error %v; want %q", c.arguments, o.only, err, c.want)
		}
	}
}
