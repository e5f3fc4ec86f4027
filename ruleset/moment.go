package ruleset

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// What a configuration comes to at a time: a rolling sequence has other knocks with
// each step, a list of one-time sequences with each that is used, and traps are
// where no program listens now.

// At returns the configuration as it is at a time and on a host: with the sequences that
// are good then, and with the traps, none of which is a port that something listens on.
// The error says which doors' sequences cannot be had; nobody can open them in the
// configuration that comes with it.
func (c *Config) At(now time.Time, host Host) (*Config, error) {
	at := &Config{Wall: c.Wall, Doors: slices.Clone(c.Doors), Host: host}
	var errs []error
	for i := range at.Doors {
		d := &at.Doors[i]
		switch {
		case d.Rolling != nil && !d.Rolling.Secret.IsSet():
			d.Sequences = nil
			errs = append(errs, fmt.Errorf("nobody can open the door %s by a sequence: %w", d.Name, errNoSecret))
		case d.Rolling != nil:
			d.Step = d.Rolling.sequence().StepAt(now)
			d.Sequences = d.Rolling.around(d.Step)
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
	for _, r := range at.named() {
		for n := int(r.First); n <= int(r.Last); n++ {
			named[packet.Port{Number: uint16(n), Protocol: r.Protocol}] = true
		}
	}
	for i := range at.Doors {
		d := &at.Doors[i]
		d.ToIsHere = host.has(d.To)
		d.Traps = d.choose(func(p packet.Port) bool { return named[p] || host.Served[p] })
	}
	return at, errors.Join(errs...)
}

// errNoSecret is why there are no knocks for who has reviewed rule files.
var errNoSecret = errors.New("its secret cannot be read")

// Present returns the knocks that open the door at a time, in order. The error says
// why there are none.
func (d *Door) Present(now time.Time) ([]packet.Port, error) {
	switch {
	case d.Rolling != nil && !d.Rolling.Secret.IsSet():
		return nil, fmt.Errorf("the door %s: %w", d.Name, errNoSecret)
	case d.Rolling != nil:
		s := d.Rolling.sequence()
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

// named returns the ports that the doors guard or are opened at, sorted and apart.
func (c *Config) named() []packet.PortRange {
	var all []packet.PortRange
	for i := range c.Doors {
		d := &c.Doors[i]
		all = append(all, d.Ports...)
		all = append(all, single(d.allKnocks())...)
		if d.OTP != nil {
			all = append(all, single([]packet.Port{d.OTP.Port})...)
		}
	}
	return merge(all)
}

func single(ports []packet.Port) []packet.PortRange {
	var ranges []packet.PortRange
	for _, p := range ports {
		ranges = append(ranges, packet.PortRange{First: p.Number, Last: p.Number, Protocol: p.Protocol})
	}
	return ranges
}

// Turns returns when [Config.At] comes to something else for the passing of time,
// and false if it does not.
func (c *Config) Turns(now time.Time) (next time.Time, ok bool) {
	for _, d := range c.Doors {
		if d.Rolling == nil || !d.Rolling.Secret.IsSet() {
			continue
		}
		s := d.Rolling.sequence()
		if at := s.Begins(s.StepAt(now) + 1); !ok || at.Before(next) {
			next, ok = at, true
		}
	}
	return next, ok
}

// IsOf reports whether [Config.At] has come to this configuration in the steps that a
// time is in.
func (c *Config) IsOf(now time.Time) bool {
	return !slices.ContainsFunc(c.Doors, func(d Door) bool {
		return d.Rolling != nil && d.Rolling.Secret.IsSet() && d.Rolling.sequence().StepAt(now) != d.Step
	})
}

// HasUnread reports whether there is a list that could not be read when [Config.At]
// came to this configuration.
func (c *Config) HasUnread() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.Unread })
}

// Readable reports whether a list can be read which could not when [Config.At] came to
// this configuration.
func (c *Config) Readable() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool {
		if !d.Unread {
			return false
		}
		_, _, err := d.OneTime.Next()
		return err == nil
	})
}

// IsOn reports whether [Config.At] has come to this configuration on a host that differs
// from another, if at all, in what [Kernel.Describe] can change.
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
		if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return true
		}
	}
	return false
}

// stepsAtOnce is how many steps of a rolling sequence are good at a time: the one
// that it is, and for clients whose clocks are off the one before and the one after.
const stepsAtOnce = 3

// around returns the knocks of a step and of those beside it, each at the place where
// it is as long as it is good.
func (r *Rolling) around(step int64) [][]packet.Port {
	s := r.sequence()
	all := make([][]packet.Port, stepsAtOnce)
	for n := step - 1; n <= step+1; n++ {
		all[place(n)] = s.Knocks(n)
	}
	return all
}

func place(step int64) int { return int((step%stepsAtOnce + stepsAtOnce) % stepsAtOnce) }

// StepOf returns when the step begins whose knocks are at a place of the Sequences
// of a door with a rolling sequence, and whether that is the one which is present.
func (d *Door) StepOf(i int) (begins time.Time, present bool) {
	step := d.Step - 1
	for place(step) != i {
		step++
	}
	return d.Rolling.sequence().Begins(step), step == d.Step
}
