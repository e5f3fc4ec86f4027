package sequence

import "math"

// Orders returns in how many orders a [Tracker] hears so many knocks, 1 to [MaxSteps]:
// those of two streams, each in order, merged, as two CPUs receive. No three of the
// knocks are then the other way round. They are Catalan's numbers: 1, 2, 5, 14, 42.
func Orders(knocks int) int64 {
	orders := int64(1)
	for n := range int64(knocks) {
		orders = orders * 2 * (2*n + 1) / (n + 2)
	}
	return orders
}

// Guesses returns how many packets somebody has to send, in expectation, until they
// contain a sequence that he does not know: packets to ports that he draws from as many
// as there are, where a sequence has so many knocks, and so many of them open the door
// at a time. All three are 1 or more.
//
// It takes for granted that the knocks have to come right after one another, as they
// have where whatever else a source sends ends its attempt; so every packet is the last
// of a try. From how many addresses they come does not matter.
func Guesses(ports, knocks, sequences int) float64 {
	return math.Pow(float64(ports), float64(knocks)) / (float64(Orders(knocks)) * float64(sequences))
}
