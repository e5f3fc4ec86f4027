package sequence

import "math"

// Orders returns in how many orders a [Tracker] accepts a sequence of 1 to [MaxSteps]
// knocks: all that result from merging two streams, each in order, as two CPUs receive.
// No three of the knocks are then in reverse order. These are the Catalan numbers: 1, 2,
// 5, 14, 42.
func Orders(knocks int) int64 {
	orders := int64(1)
	for n := range int64(knocks) {
		orders = orders * 2 * (2*n + 1) / (n + 2)
	}
	return orders
}

// Guesses returns the expected number of packets that an attacker has to send until they
// contain a sequence that he does not know. He sends each to one of so many ports, drawn
// at random. A sequence has so many knocks, from 1 to [MaxSteps], and so many sequences
// open the door at a time. All three are 1 or more.
//
// Guesses assumes that the knocks have to follow each other directly, because any other
// packet of a source ends its attempt. So every packet is the last one of a try. The
// number of source addresses does not matter.
func Guesses(ports, knocks, sequences int) float64 {
	return math.Pow(float64(ports), float64(knocks)) / (float64(Orders(knocks)) * float64(sequences))
}
