// Package effective resolves a configuration for a time and a host. The knocks of a rolling
// sequence change with each step, those of a list of one-time sequences with each use, and
// traps are only at ports where no program listens.
package effective

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Config is a configuration that [Resolve] has resolved.
type Config struct {
	Written *ruleset.Config
	Wall    *ruleset.Wall // that of Written
	Doors   []Door        // in the order of the rule files
	Host    Host          // the host of the doors

	index index
}

// Door is a door of the rule files with its resolved state.
type Door struct {
	*ruleset.Door
	States    []method.State     // of its Methods
	Sequences [][]packet.Port    // each opens the door; all are of the method with knocks
	ToIsHere  bool               // some of the addresses in To are the host's own
	Traps     []packet.PortRange // a source that tries one cannot knock for the Penalty
}

// Host is what the wall needs to know of its host.
type Host struct {
	Served    map[packet.Port]bool // ports at which programs listen, at any address
	Uplinks   map[uint32]string    // names of the interfaces with a default route, by index
	Addresses map[netip.Addr]bool  // the host's own addresses
}

// Resolve resolves a configuration for a time and a host. It determines the valid
// sequences, and traps at ports where nothing listens. The error says which doors have a
// method whose state cannot be determined. Nobody can open these doors by that method in
// the returned Config.
func Resolve(written *ruleset.Config, now time.Time, host Host) (*Config, error) {
	c := &Config{Written: written, Wall: &written.Wall, Doors: make([]Door, len(written.Doors)), Host: host}
	var errs []error
	for i := range c.Doors {
		d := &c.Doors[i]
		d.Door = &written.Doors[i]
		for _, m := range d.Methods {
			state, err := m.Resolve(now)
			if err != nil {
				errs = append(errs, fmt.Errorf("nobody can open the door %s by a %s: %w", d.Name, kindOf(m), err))
			}
			d.States = append(d.States, state)
		}
		if at := d.Knocking(); at >= 0 {
			d.Sequences = d.States[at].Sequences
		}
	}
	named := map[packet.Port]bool{}
	for _, r := range c.NamedPorts() {
		for n := int(r.First); n <= int(r.Last); n++ {
			named[packet.Port{Number: uint16(n), Protocol: r.Protocol}] = true
		}
	}
	for i := range c.Doors {
		d := &c.Doors[i]
		d.ToIsHere = host.has(d.To)
		d.Traps = d.choose(func(p packet.Port) bool { return named[p] || host.Served[p] })
	}
	c.index = newIndex(c.Doors)
	return c, errors.Join(errs...)
}

// kindOf returns the name of a method's kind for an error text.
func kindOf(m method.Method) string {
	if _, ok := m.(method.Sequences); ok {
		return "sequence"
	}
	return "datagram (" + m.Name() + ")"
}

// Knocks returns the knocks that open a door at a time, in order. The error says why the
// door has none.
func Knocks(d *ruleset.Door, now time.Time) ([]packet.Port, error) {
	at := d.Knocking()
	if at < 0 {
		return nil, fmt.Errorf("the door %s has no knocks: %s opens it", d.Name, d.Methods[0].Describe(d.SequenceTimeout))
	}
	state, err := d.Methods[at].Resolve(now)
	if err != nil {
		return nil, fmt.Errorf("the door %s: %w", d.Name, err)
	}
	if state.Stock != nil && state.Stock.Left == 0 {
		return nil, fmt.Errorf("all one-time sequences of the door %s are used", d.Name)
	}
	return state.Sequences[state.Present], nil
}

// NamedPorts returns the guarded ports, the knocks and the ports of datagrams of all doors,
// sorted and without overlaps.
func (c *Config) NamedPorts() []packet.PortRange {
	var all []packet.PortRange
	for i := range c.Doors {
		d := &c.Doors[i]
		all = append(all, d.Ports...)
		all = append(all, packet.Ranges(d.AllKnocks())...)
		for _, dg := range d.Datagrams() {
			all = append(all, packet.Ranges([]packet.Port{dg.Port})...)
		}
	}
	return packet.MergeRanges(all)
}

// AllKnocks returns the knocks that open or close the door.
func (d *Door) AllKnocks() []packet.Port {
	return append(slices.Concat(d.Sequences...), d.CloseSequence...)
}

// Knocks reports whether a knock at a port is part of opening or closing the door.
func (d *Door) Knocks(p packet.Port) bool { return slices.Contains(d.AllKnocks(), p) }

// Steps returns the number of knocks that open the door, or 0 if it has no sequence.
func (d *Door) Steps() int {
	if len(d.Sequences) == 0 {
		return 0
	}
	return len(d.Sequences[0])
}

// Datagrams returns the kinds of datagrams that open or close the door.
func (d *Door) Datagrams() (all []method.Datagram) {
	for i := range d.States {
		all = append(all, d.States[i].Datagrams...)
	}
	return all
}

// Stock returns the remaining uses of the door's method with knocks, or nil if they are
// unlimited or not known.
func (d *Door) Stock() *method.Stock {
	if at := d.Knocking(); at >= 0 {
		return d.States[at].Stock
	}
	return nil
}

// Expires returns the earliest time after which a state is no longer valid, and false if no
// state depends on the time.
func (c *Config) Expires() (next time.Time, ok bool) {
	for _, s := range c.states() {
		if at := s.Until; !at.IsZero() && (!ok || at.Before(next)) {
			next, ok = at, true
		}
	}
	return next, ok
}

// IsOf reports whether the states of all methods are valid at a time.
func (c *Config) IsOf(now time.Time) bool {
	for _, s := range c.states() {
		if !s.IsOf(now) {
			return false
		}
	}
	return true
}

// HasUnread reports whether a file could not be read.
func (c *Config) HasUnread() bool {
	for _, s := range c.states() {
		if s.Unread {
			return true
		}
	}
	return false
}

// Readable reports whether a file that could not be read before can be read now.
func (c *Config) Readable(now time.Time) bool {
	for m, s := range c.states() {
		if !s.Unread {
			continue
		}
		if again, err := m.Resolve(now); err == nil && !again.Unread {
			return true
		}
	}
	return false
}

// states yields the state of each method at each door.
func (c *Config) states() iter.Seq2[method.Method, *method.State] {
	return func(yield func(method.Method, *method.State) bool) {
		for i := range c.Doors {
			d := &c.Doors[i]
			for j := range d.States {
				if !yield(d.Methods[j], &d.States[j]) {
					return
				}
			}
		}
	}
}

// IsOn reports whether the table for this Config also fits a host. Only ToIsHere needs a
// new table. The daemon can update the rest in the table.
func (c *Config) IsOn(host Host) bool {
	return !slices.ContainsFunc(c.Doors, func(d Door) bool { return d.ToIsHere != host.has(d.To) })
}

// Same reports whether two hosts have the same served ports and uplinks.
func (h Host) Same(other Host) bool {
	return maps.Equal(h.Served, other.Served) && maps.Equal(h.Uplinks, other.Uplinks)
}

// has reports whether any of the host's addresses is in the prefixes.
func (h Host) has(prefixes []netip.Prefix) bool {
	for a := range h.Addresses {
		if packet.Among(a, prefixes) {
			return true
		}
	}
	return false
}
