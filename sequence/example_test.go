package sequence_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/knockwall/knockwall/sequence"
)

// A client knocks at three ports, and the second and third knock overtake each other.
func ExampleTracker() {
	lock := sequence.Lock{
		Steps: []sequence.Port{
			{Number: 7000, Protocol: sequence.TCP},
			{Number: 8000, Protocol: sequence.TCP},
			{Number: 9000, Protocol: sequence.TCP},
		},
		Timeout: 10 * time.Second,
		Prefix:  sequence.SourcePrefix{IPv4: 32, IPv6: 64},
	}
	now := time.Unix(1700000000, 0)
	const reorder, maxAttempts = 250 * time.Millisecond, 1024
	tracker := sequence.NewTracker([]sequence.Lock{lock}, reorder, maxAttempts, now)

	for i, step := range []int{0, 2, 1} {
		outcome := tracker.Knock(0, sequence.Packet{
			Source:     netip.MustParseAddr("192.0.2.1"),
			SourcePort: uint16(40000 + i),
			Port:       lock.Steps[step],
		}, now.Add(time.Duration(i)*time.Millisecond))
		fmt.Println(lock.Steps[step], outcome.Step, outcome.Progress == sequence.Completed)
	}
	// Output:
	// 7000/tcp 1 false
	// 9000/tcp 1 false
	// 8000/tcp 3 true
}

// How many packets an attacker needs to guess a sequence of knocks at any of the 65,535
// TCP ports, if a single sequence opens the door.
func ExampleGuesses() {
	for knocks := 2; knocks <= 4; knocks++ {
		fmt.Printf("%d knocks: %.1e packets\n", knocks, sequence.Guesses(65535, knocks, 1))
	}
	// Output:
	// 2 knocks: 2.1e+09 packets
	// 3 knocks: 5.6e+13 packets
	// 4 knocks: 1.3e+18 packets
}
