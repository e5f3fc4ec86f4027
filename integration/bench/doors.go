package main

import (
	"fmt"
	"strings"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// onlyDoor is the name of a knockwall with one door, beside one with many.
const onlyDoor = "an only door"

// crowded returns a knockwall whose door is the last of many, and one with an only door.
func (b *bench) crowded() []system {
	var others strings.Builder
	for i := range b.pick(1000, 100) - 1 {
		// Ports and knocks that no other door has.
		fmt.Fprintf(&others, "door \"other%d\" {\n  ports    = [%d]\n  sequence = [%d, \"%d/udp\", %d]\n}\n", i, 10000+i, 20001+2*i, 30000+i, 20000+2*i)
	}
	binary := b.programs["knockwall"]
	return []system{
		&knockwall{title: report.Knockwall, binary: binary, more: others.String(), way: plain{}},
		&knockwall{title: onlyDoor, binary: binary, way: plain{}},
	}
}
