// Package effective has what is true of a configuration at a time and on a host, where the
// rule files say only how to find it out: a rolling sequence has other knocks with each
// step, a list of one-time sequences with each that is used, and traps are where no program
// listens.
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

// Config is what a configuration comes to, by [Resolve].
type Config struct {
	Written *ruleset.Config
	Wall    *ruleset.Wall // the written one's
	Doors   []Door        // in the order in which they are written
	Host    Host          // that the doors are on

	index index
}

// Door is a door as it is written, with what is true of it.
type Door struct {
	*ruleset.Door
	States    []method.State     // of its Methods
	Sequences [][]packet.Port    // each opens the door; they are those of one method
	ToIsHere  bool               // some of the addresses that are guarded are the host's own
	Traps     []packet.PortRange // who tries them cannot knock for the Penalty
}

// Host is what a wall has to know of the host that it stands on.
type Host struct {
	Served    map[packet.Port]bool // ports at which programs listen, at whatever address
	Uplinks   map[uint32]string    // names of the interfaces that have a default route, by index
	Addresses map[netip.Addr]bool  // its own
}

// Resolve returns what a configuration comes to at a time and on a host: the sequences that
// are good then, and the traps, none of which is a port that something listens on. The
// error says which doors' sequences cannot be had; nobody can open them in the Config that
// comes with it.
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

// kindOf names what does not open a door.
func kindOf(m method.Method) string {
	if _, ok := m.(method.Sequences); ok {
		return "sequence"
	}
	return "datagram (" + m.Name() + ")"
}

// Knocks returns the knocks that open a door at a time, in order. The error says why there
// are none.
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

// Door returns the door of a name, or nil.
func (c *Config) Door(name string) *Door {
	if i := c.Index(name); i >= 0 {
		return &c.Doors[i]
	}
	return nil
}

// NamedPorts returns the ports that the doors guard or are opened at, sorted and apart.
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

// AllKnocks returns the door's knocks, those that close it among them.
func (d *Door) AllKnocks() []packet.Port {
	return append(slices.Concat(d.Sequences...), d.CloseSequence...)
}

// Knocks reports whether a port is one of the door's knocks, those that close it among
// them.
func (d *Door) Knocks(p packet.Port) bool { return slices.Contains(d.AllKnocks(), p) }

// Steps returns how many knocks open the door, and 0 if none do.
func (d *Door) Steps() int {
	if len(d.Sequences) == 0 {
		return 0
	}
	return len(d.Sequences[0])
}

// Datagrams returns the datagrams that open the door, or close it.
func (d *Door) Datagrams() (all []method.Datagram) {
	for i := range d.States {
		all = append(all, d.States[i].Datagrams...)
	}
	return all
}

// Stock returns what the door's method with knocks can still use up, or nil if that is not
// limited, or not known.
func (d *Door) Stock() *method.Stock {
	if at := d.Knocking(); at >= 0 {
		return d.States[at].Stock
	}
	return nil
}

// Expires returns when [Resolve] comes to something else for the passing of time, and
// false if it does not.
func (c *Config) Expires(now time.Time) (next time.Time, ok bool) {
	for _, s := range c.states() {
		if at := s.Until; !at.IsZero() && (!ok || at.Before(next)) {
			next, ok = at, true
		}
	}
	return next, ok
}

// IsOf reports whether the Config is of a time, as far as time decides that.
func (c *Config) IsOf(now time.Time) bool {
	for _, s := range c.states() {
		if !s.IsOf(now) {
			return false
		}
	}
	return true
}

// HasUnread reports whether there is a file that could not be read.
func (c *Config) HasUnread() bool {
	for _, s := range c.states() {
		if s.Unread {
			return true
		}
	}
	return false
}

// Readable reports whether a file can be read now which could not be read before.
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

// IsOn reports whether the Config is of a host that differs from another, if at all, in
// what a table that stands can be told.
func (c *Config) IsOn(host Host) bool {
	return !slices.ContainsFunc(c.Doors, func(d Door) bool { return d.ToIsHere != host.has(d.To) })
}

// Same reports whether a wall knows the same of two hosts.
func (h Host) Same(other Host) bool {
	return maps.Equal(h.Served, other.Served) && maps.Equal(h.Uplinks, other.Uplinks)
}

// has reports whether any of its addresses is among the prefixes.
func (h Host) has(prefixes []netip.Prefix) bool {
	for a := range h.Addresses {
		if packet.Among(a, prefixes) {
			return true
		}
	}
	return false
}
