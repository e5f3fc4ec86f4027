//go:build linux

package nft

import (
	"time"

	"github.com/knockwall/knockwall/internal/effective"
)

// This file has the sets that all doors share: of open windows, and of sources that have tried
// a trap. The number of the door is in each key, see [sourceKey.numbered]. The time that a
// transaction takes grows with the number of sets. So does the memory, as the kernel makes room
// for a set's size at once.

func openSet(f family) string    { return "open" + f.suffix }
func trappedSet(f family) string { return "trapped" + f.suffix }

func sharedSets(c *effective.Config) (sets []set) {
	var penalty time.Duration
	trapped := 0
	for d := range doorsOf(c) {
		if d.hasTraps() {
			trapped++
			penalty = max(penalty, d.Penalty)
		}
	}
	for _, f := range families {
		sets = append(sets, set{name: openSet(f), kind: kindOf(f, true), size: roomFor(len(c.Doors), c.Wall.MaxWindows)})
		if trapped > 0 {
			sets = append(sets, set{name: trappedSet(f), kind: kindOf(f, true), dynamic: true, size: roomFor(trapped, c.Wall.MaxSources), timeout: penalty})
		}
	}
	return sets
}

// mostElements is the largest size of a set that doors share, unless one door may have more.
const mostElements = 1 << 20

// roomFor returns the size of a set with at most each elements of a door. A set with another
// size is made anew, so the size seldom changes with the number of doors: it is for 1 door, 4,
// 16, and so on.
func roomFor(doors, each int) uint32 {
	room := 1
	for room < doors && each*room < mostElements {
		room *= 4
	}
	return uint32(max(each, min(each*room, mostElements)))
}
