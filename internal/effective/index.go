package effective

import (
	"slices"

	"github.com/knockwall/knockwall/internal/packet"
)

// index finds doors by name and by port, without looking at each.
type index struct {
	byName map[string]int
	byPort map[packet.Protocol][]span
}

// span is a run of ports that the same doors guard. It ends where the next one begins.
type span struct {
	first uint16
	doors []int
}

func newIndex(doors []Door) index {
	x := index{byName: make(map[string]int, len(doors)), byPort: map[packet.Protocol][]span{}}
	firsts := map[packet.Protocol][]uint16{}
	for i := range doors {
		x.byName[doors[i].Name] = i
		for _, r := range doors[i].Ports {
			firsts[r.Protocol] = append(firsts[r.Protocol], r.First)
			if r.Last < 65535 {
				firsts[r.Protocol] = append(firsts[r.Protocol], r.Last+1)
			}
		}
	}
	for protocol, ports := range firsts {
		slices.Sort(ports)
		for _, first := range slices.Compact(ports) {
			x.byPort[protocol] = append(x.byPort[protocol], span{first: first})
		}
	}
	for i := range doors {
		for _, r := range doors[i].Ports {
			spans := x.byPort[r.Protocol]
			for at, _ := find(spans, r.First); at < len(spans) && spans[at].first <= r.Last; at++ {
				if s := &spans[at]; len(s.doors) == 0 || s.doors[len(s.doors)-1] != i {
					s.doors = append(s.doors, i)
				}
			}
		}
	}
	return x
}

// find returns the index of the span that begins at a port, or else where it would be.
func find(spans []span, port uint16) (at int, found bool) {
	return slices.BinarySearchFunc(spans, port, func(s span, port uint16) int { return int(s.first) - int(port) })
}

// Index returns the index of the door of a name, and -1 if there is none.
func (c *Config) Index(name string) int {
	if i, ok := c.index.byName[name]; ok {
		return i
	}
	return -1
}

// At returns the indexes of the doors that guard a port, in order.
func (c *Config) At(p packet.Port) []int {
	spans := c.index.byPort[p.Protocol]
	at, found := find(spans, p.Number)
	if !found {
		at--
	}
	if at < 0 {
		return nil
	}
	return spans[at].doors
}
