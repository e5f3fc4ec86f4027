package report

import (
	"math"
	"strconv"
)

// scale maps values to positions in a panel.
type scale struct {
	name  string
	x     func(value float64) float64
	ticks []tick
}

type tick struct {
	at    float64
	label string
}

// mostTicks is the maximum number of ticks: more labels do not fit.
const mostTicks = 7

// scale returns the row's scale and the heading of the column of values.
func (r Row) scale() (s scale, unit string) {
	if r.timed() {
		return r.logarithmic(), r.Unit
	}
	s = scale{name: "let in, of all who knocked", x: func(share float64) float64 {
		return barsFrom + share*(barsTo-barsFrom)
	}}
	for percent := 0; percent <= 100; percent += 25 {
		s.ticks = append(s.ticks, tick{float64(percent) / 100, strconv.Itoa(percent) + "%"})
	}
	return s, "clients"
}

// logarithmic returns a scale of whole powers of ten on which the smallest median of the row
// still has a visible bar.
func (r Row) logarithmic() scale {
	least, most := math.Inf(1), 0.0
	for _, c := range r.Cells {
		if c.Median > 0 {
			least = min(least, c.Median)
			most = max(most, c.Median, c.P95, c.P99)
		}
	}
	from := math.Floor(math.Log10(least) - 0.3)
	to := math.Ceil(math.Log10(most))
	s := scale{name: "median, logarithmic", x: func(value float64) float64 {
		share := (math.Log10(value) - from) / (to - from)
		return barsFrom + max(share, 0)*(barsTo-barsFrom)
	}}
	for power := from; power <= to; power += math.Ceil((to - from + 1) / mostTicks) {
		s.ticks = append(s.ticks, tick{math.Pow(10, power), decade(int(power))})
	}
	return s
}

// decade returns a short label for a power of ten.
func decade(power int) string {
	switch {
	case power < -3 || power > 8:
		return "1e" + strconv.Itoa(power)
	case power >= 6:
		return strconv.Itoa(int(math.Pow10(power-6))) + "M"
	case power >= 4:
		return strconv.Itoa(int(math.Pow10(power-3))) + "k"
	}
	return strconv.FormatFloat(math.Pow10(power), 'f', -1, 64)
}
