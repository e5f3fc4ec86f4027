package fixed

import (
	"slices"

	"github.com/knockwall/knockwall/internal/packet"
)

// published are the sequences that stand in manuals and examples, this program's own and
// those of other programs, by their port numbers. Whoever guesses tries them first. A test
// finds those that this repository publishes.
var published = [][]uint16{
	{4113, 27911, 1840}, // README.md, manual pages, help texts
	{1840, 27911, 4113},
	{4113, 1840, 9127},
	{26183, 4406, 19537}, // examples
	{21964, 6532, 28417},
	{3928, 16701, 10243},
	{8647, 24031, 2719, 17350},
	{12790, 31255, 5866},
	{18422, 3391, 29760},
	{30117, 2204, 15890},
	{7113, 22640, 11907, 3355},
	{25219, 8876, 14003},
	{31544, 8120, 2907},
	{7000, 8000, 9000}, // knockd(1) and its knockd.conf
	{9000, 8000, 7000},
	{2222, 3333, 4444},
	{12345, 54321, 24680, 13579},
}

// IsPublished reports whether a sequence stands in a manual or an example, whatever its
// protocols are.
func IsPublished(steps []packet.Port) bool {
	return slices.ContainsFunc(published, func(numbers []uint16) bool {
		return slices.EqualFunc(steps, numbers, func(p packet.Port, n uint16) bool { return p.Number == n })
	})
}

// IsPublishedKnock reports whether a port is a knock of such a sequence.
func IsPublishedKnock(number uint16) bool {
	return slices.ContainsFunc(published, func(numbers []uint16) bool { return slices.Contains(numbers, number) })
}
