package main

import (
	"testing"
	"time"
)

func TestPercentilesAreOfTheNearestRank(t *testing.T) {
	for n, want := range map[int][3]float64{
		1:   {1, 1, 1},
		2:   {1, 2, 2},
		20:  {10, 19, 20},
		100: {50, 95, 99},
		200: {100, 190, 198},
	} {
		var s samples
		for i := range n {
			s = append(s, time.Duration(n-i)*time.Millisecond)
		}
		if c := s.cell("", time.Millisecond); [3]float64{c.Median, c.P95, c.P99} != want {
			t.Errorf("of %d samples the median, p95 and p99 are %v, %v, %v, want %v", n, c.Median, c.P95, c.P99, want)
		}
	}
}
