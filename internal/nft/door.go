//go:build linux

package nft

import (
	"iter"

	"github.com/knockwall/knockwall/internal/effective"
)

// door is a door of a configuration. Its methods build the rules for it.
type door struct{ *effective.Door }

// doorsOf returns an iterator over the doors of a configuration, in its order.
func doorsOf(c *effective.Config) iter.Seq[door] {
	return func(yield func(door) bool) {
		for i := range c.Doors {
			if !yield(door{&c.Doors[i]}) {
				return
			}
		}
	}
}
