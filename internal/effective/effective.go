// Package effective has what is true of a configuration at a time and on a host, where the
// rule files say only how to find it out: a rolling sequence has other knocks with each
// step, a list of one-time sequences with each that is used, and traps are where no program
// listens.
package effective

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Config is what a configuration comes to, by [Resolve].
type Config struct {
	Written *ruleset.Config
	Wall    *ruleset.Wall // the written one's
	Doors   []Door        // in the order in which they are written
	Host    Host          // that the doors are on
}

// Door is a door as it is written, with what is true of it.
type Door struct {
	*ruleset.Door
	Sequences [][]packet.Port    // each opens the door
	Line      onetime.Line       // of a list of one-time sequences, that is good
	LinesLeft int                // with it
	Unread    bool               // the list could not be read
	Step      int64              // of a rolling sequence
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
		d.Sequences = d.Door.Sequences
		switch {
		case d.Rolling != nil && !d.Rolling.Secret.IsSet():
			d.Sequences = nil
			errs = append(errs, fmt.Errorf("nobody can open the door %s by a sequence: %w", d.Name, errNoSecret))
		case d.Rolling != nil:
			d.Step = d.Rolling.Sequence().StepAt(now)
			d.Sequences = around(d.Rolling, d.Step)
		case d.OneTime != nil:
			var err error
			d.Line, d.LinesLeft, err = d.OneTime.Next()
			if d.Unread = err != nil; d.Unread {
				errs = append(errs, fmt.Errorf("nobody can open the door %s by a sequence: %w", d.Name, err))
			}
			d.Sequences = [][]packet.Port{d.Line.Steps}
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
	return c, errors.Join(errs...)
}

// errNoSecret is why there are no knocks for who has reviewed rule files.
var errNoSecret = errors.New("its secret cannot be read")

// Knocks returns the knocks that open a door at a time, in order. The error says why there
// are none.
func Knocks(d *ruleset.Door, now time.Time) ([]packet.Port, error) {
	switch {
	case d.Rolling != nil && !d.Rolling.Secret.IsSet():
		return nil, fmt.Errorf("the door %s: %w", d.Name, errNoSecret)
	case d.Rolling != nil:
		s := d.Rolling.Sequence()
		return s.Knocks(s.StepAt(now)), nil
	case d.OneTime != nil:
		line, _, err := d.OneTime.Next()
		if err == nil && line.IsZero() {
			err = fmt.Errorf("all one-time sequences of the door %s are used", d.Name)
		}
		return line.Steps, err
	case len(d.Sequences) == 0:
		return nil, fmt.Errorf("the door %s has no knocks: it is opened by one-time passwords", d.Name)
	}
	return d.Sequences[0], nil
}

// Door returns the door of a name, or nil.
func (c *Config) Door(name string) *Door {
	i := slices.IndexFunc(c.Doors, func(d Door) bool { return d.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Doors[i]
}

// NamedPorts returns the ports that the doors guard or are opened at, sorted and apart.
func (c *Config) NamedPorts() []packet.PortRange {
	var all []packet.PortRange
	for i := range c.Doors {
		d := &c.Doors[i]
		all = append(all, d.Ports...)
		all = append(all, packet.Ranges(d.AllKnocks())...)
		if d.OTP != nil {
			all = append(all, packet.Ranges([]packet.Port{d.OTP.Port})...)
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

// Expires returns when [Resolve] comes to something else for the passing of time, and
// false if it does not.
func (c *Config) Expires(now time.Time) (next time.Time, ok bool) {
	for _, d := range c.Doors {
		if d.Rolling == nil || !d.Rolling.Secret.IsSet() {
			continue
		}
		s := d.Rolling.Sequence()
		if at := s.Begins(s.StepAt(now) + 1); !ok || at.Before(next) {
			next, ok = at, true
		}
	}
	return next, ok
}

// IsOf reports whether the Config is of the steps that a time is in.
func (c *Config) IsOf(now time.Time) bool {
	return !slices.ContainsFunc(c.Doors, func(d Door) bool {
		return d.Rolling != nil && d.Rolling.Secret.IsSet() && d.Rolling.Sequence().StepAt(now) != d.Step
	})
}

// HasUnread reports whether there was a list that could not be read.
func (c *Config) HasUnread() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.Unread })
}

// Readable reports whether a list can be read now which could not be read before.
func (c *Config) Readable() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool {
		if !d.Unread {
			return false
		}
		_, _, err := d.OneTime.Next()
		return err == nil
	})
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

// around returns the knocks of a step and of those beside it, each at the place where
// it is as long as it is good.
func around(r *ruleset.Rolling, step int64) [][]packet.Port {
	s := r.Sequence()
	all := make([][]packet.Port, ruleset.StepsAtOnce)
	for n := step - 1; n <= step+1; n++ {
		all[place(n)] = s.Knocks(n)
	}
	return all
}

func place(step int64) int {
	return int((step%ruleset.StepsAtOnce + ruleset.StepsAtOnce) % ruleset.StepsAtOnce)
}

// StepOf returns when the step begins whose knocks are at a place of the Sequences
// of a door with a rolling sequence, and whether that is the one which is present.
func (d *Door) StepOf(i int) (begins time.Time, present bool) {
	step := d.Step - 1
	for place(step) != i {
		step++
	}
	return d.Rolling.Sequence().Begins(step), step == d.Step
}
