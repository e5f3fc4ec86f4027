package effective

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// The index finds what a search through all doors finds.
func TestTheIndexFindsTheDoorsOfAPort(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		doors := make([]Door, random.IntN(20))
		edges := []uint16{0, 1, 65534, 65535}
		for i := range doors {
			d := &ruleset.Door{Name: fmt.Sprint("d", i)}
			for range random.IntN(5) {
				first := uint16(1 + random.IntN(65535))
				last := first + uint16(random.IntN(65536-int(first)))
				d.Ports = append(d.Ports, packet.PortRange{First: first, Last: last, Protocol: []packet.Protocol{packet.TCP, packet.UDP}[random.IntN(2)]})
				edges = append(edges, first-1, first, last, last+1)
			}
			doors[i].Door = d
		}
		c := &Config{Doors: doors, index: newIndex(doors)}
		for _, protocol := range []packet.Protocol{packet.TCP, packet.UDP} {
			for _, n := range edges {
				p := packet.Port{Number: n, Protocol: protocol}
				var want []int
				for i := range doors {
					if doors[i].Guards(p) {
						want = append(want, i)
					}
				}
				if got := c.At(p); !slices.Equal(got, want) {
					t.Fatalf("%s is guarded by %v, want %v", p, got, want)
				}
			}
		}
		for i := range doors {
			if got := c.Index(doors[i].Name); got != i {
				t.Errorf("the door %s is %d, want %d", doors[i].Name, got, i)
			}
		}
		if c.Index("none") != -1 {
			t.Error("a door that is not there is found")
		}
	}
}
