// Package report sums up what happened at the doors in a period, for the owner of a host:
// who came in, when, by which way and from where; what was refused; and what was not used.
//
// A [Collector] takes any number of events and keeps a limited number of sums. A [Report] is
// written as text, or as a page in HTML that needs no other file.
package report

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

// The limits of what a Collector keeps. Whoever can knock can do so from many addresses, and
// anybody can be trapped with any number of addresses.
const (
	maxGuests  = 4000
	maxTrapped = 4000
	maxDoors   = 1000
	maxPeople  = 1 << 17
	maxSources = 16 // for each guest
)

// MaxDays is the longest period of a Collector, in days.
const MaxDays = 366

// slots is in how many parts a period is divided to show when a guest came.
const slots = 168

// Guest is a person or, where nobody is named, a source that came in at a door.
type Guest struct {
	Name        string // of the person; "" for a source
	Door        string
	Ways        []audit.Code // by which the door was opened; empty if that was before the period
	Sources     []string     // where the guest came from, the latest last
	MoreSources bool         // there were others before them
	Last        time.Time
	Opened      int  // how often the guest has opened the door, or kept it open
	Connections int  // that were let in, as far as they are counted
	Trusted     bool // none was counted, as the guest need not knock: such connections are not counted
	Active      [slots]bool
}

// Who returns the person's name or the source.
func (g *Guest) Who() string {
	if g.Name != "" {
		return g.Name
	}
	return g.Sources[len(g.Sources)-1]
}

// Trapped is a source that was trapped at a door.
type Trapped struct {
	Source, Door string
	Code         audit.Code
	Last         time.Time
	Count        int
}

// Door is the sums of a door.
type Door struct {
	Name                                  string
	Opened, Connections, Refused, Trapped int
}

// Known is the doors and people of the rule files.
type Known struct {
	Doors   []string
	People  []Person
	Trusted map[string][]netip.Prefix // the sources that need not knock, by door
}

// Person is a person who may open doors.
type Person struct {
	Name  string
	Doors []string
}

// Report is what happened in a period.
type Report struct {
	From, Until time.Time
	Events      int // number of events, where several may be summed up in one
	First       time.Time

	Guests     []Guest  // the latest first
	MoreGuests bool     // there were others, too many to keep
	Refusals   Calendar // refused connections
	// Trapped are the sources that were trapped, the most frequent first. TrappedElsewhere
	// is how many packets to traps came from sources that are not known.
	Trapped          []Trapped
	MoreTrapped      bool
	TrappedElsewhere int
	Doors            []Door // by name; those of the events and those of the rule files

	Compared bool     // the rule files were read
	Idle     []Guest  // for whom a door was opened by hand, and who have not connected; the latest first
	Unused   []string // doors of the rule files that nobody has opened
	Needless bool     // some of the unused doors have clients that need not open them
	Unseen   []Person // people of the rule files who have not opened a door

	Failed      int  // events of something that failed
	Unconfirmed int  // trials that nobody has confirmed in time
	Lossy       bool // events or packets were lost, so the numbers are too low
}

// Collector makes a report of events. It is not safe for concurrent use.
type Collector struct {
	r       Report
	guests  leading[guestKey, Guest]
	trapped leading[trappedKey, Trapped]
	doors   leading[string, Door]
	// seen says when each person has last opened each door.
	seen leading[personKey, time.Time]
}

type guestKey struct{ who, door string }
type trappedKey struct{ source, door string }
type personKey struct{ name, door string }

// NewCollector returns a Collector for a period of at most MaxDays.
func NewCollector(from, until time.Time) *Collector {
	c := &Collector{}
	c.r.From, c.r.Until = from, until
	c.r.Refusals = newCalendar(from, until)
	c.guests = newLeading[guestKey](maxGuests, func(a, b *Guest) int {
		return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(b.Door, a.Door), cmp.Compare(b.Who(), a.Who()))
	})
	c.trapped = newLeading[trappedKey](maxTrapped, func(a, b *Trapped) int {
		return cmp.Or(cmp.Compare(a.Count, b.Count), a.Last.Compare(b.Last), cmp.Compare(b.Source, a.Source), cmp.Compare(b.Door, a.Door))
	})
	c.doors = newLeading[string](maxDoors, func(a, b *Door) int { return cmp.Compare(a.Opened, b.Opened) })
	c.seen = newLeading[personKey](maxPeople, func(a, b *time.Time) int { return a.Compare(*b) })
	return c
}

// Add takes an event. It ignores events of other times.
func (c *Collector) Add(e audit.Event) {
	if e.Time.Before(c.r.From) || e.Time.After(c.r.Until) {
		return
	}
	c.r.Events++
	if c.r.First.IsZero() || e.Time.Before(c.r.First) {
		c.r.First = e.Time
	}
	n := max(e.Count, 1)
	switch {
	case e.Code == audit.CodeNotConfirmed: // a trial did what it is for
		c.r.Unconfirmed++
		return
	case e.Failed:
		c.r.Failed++
		return
	}
	switch e.Kind {
	case audit.Opened, audit.Refreshed:
		c.door(e.Door).Opened += n
		if g := c.guest(e); g != nil {
			g.Opened += n
			if !slices.Contains(g.Ways, e.Code) && len(g.Ways) < maxSources {
				g.Ways = append(g.Ways, e.Code)
			}
		}
		if e.Person != "" {
			*c.seen.at(personKey{e.Person, e.Door}) = e.Time
		}
	case audit.Accepted:
		c.door(e.Door).Connections += n
		if g := c.guest(e); g != nil {
			g.Connections += n
		}
	case audit.Refused:
		if e.Code == audit.CodeNotShared {
			return // it refuses what another host has told, and no connection
		}
		c.door(e.Door).Refused += n
		c.r.Refusals.add(e.Time, n)
	case audit.Trapped:
		c.door(e.Door).Trapped += n
		if !e.Source.IsValid() {
			c.r.TrappedElsewhere += n
			return
		}
		t := c.trapped.at(trappedKey{e.Source.String(), e.Door})
		t.Source, t.Door, t.Code = e.Source.String(), e.Door, e.Code
		t.Count += n
		t.Last = later(t.Last, e.Time)
	case audit.Overloaded:
		c.r.Lossy = c.r.Lossy || e.Code == audit.CodePacketsLost || e.Code == audit.CodeEventsLost
	}
}

func (c *Collector) door(name string) *Door {
	d := c.doors.at(name)
	d.Name = name
	return d
}

// guest returns the guest of an event, or nil for an event that sums up many.
func (c *Collector) guest(e audit.Event) *Guest {
	if !e.Source.IsValid() {
		return nil
	}
	source := e.Source.String()
	who := cmp.Or(e.Key, e.Person, source) // the name may be cut off in some events
	g := c.guests.at(guestKey{who, e.Door})
	if len(e.Person) > len(g.Name) {
		g.Name = e.Person
	}
	g.Door = e.Door
	if i := slices.Index(g.Sources, source); i >= 0 {
		g.Sources = slices.Delete(g.Sources, i, i+1)
	}
	if len(g.Sources) == maxSources {
		g.Sources, g.MoreSources = g.Sources[1:], true
	}
	g.Sources = append(g.Sources, source)
	g.Last = later(g.Last, e.Time)
	g.Active[c.slot(e.Time)] = true
	return g
}

// slot returns the part of the period that a time is in.
func (c *Collector) slot(t time.Time) int {
	period := c.r.Until.Sub(c.r.From)
	if period <= 0 {
		return 0
	}
	return min(slots-1, int(float64(slots)*float64(t.Sub(c.r.From))/float64(period)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Report returns the report of the events so far. known is what the rule files say, or nil
// if they could not be read.
func (c *Collector) Report(known *Known) *Report {
	r := c.r
	r.Guests, r.MoreGuests = c.guests.sorted(), c.guests.dropped
	r.Trapped, r.MoreTrapped = c.trapped.sorted(), c.trapped.dropped
	doors := map[string]Door{}
	for _, d := range c.doors.sorted() {
		doors[d.Name] = d
	}
	if known != nil {
		r.Compared = true
		for i := range r.Guests {
			g := &r.Guests[i]
			g.Trusted = g.Connections == 0 && slices.ContainsFunc(g.Sources, func(source string) bool {
				s, err := packet.ParseSource(source)
				return err == nil && packet.Among(s.Addr(), known.Trusted[g.Door])
			})
		}
		isIdle := func(g Guest) bool {
			return g.Connections == 0 && !g.Trusted && slices.Equal(g.Ways, []audit.Code{audit.CodeManual})
		}
		for _, g := range r.Guests {
			if isIdle(g) {
				r.Idle = append(r.Idle, g)
			}
		}
		r.Guests = slices.DeleteFunc(r.Guests, isIdle)
		for _, name := range known.Doors {
			d := doors[name]
			d.Name = name
			doors[name] = d
			if d.Opened == 0 && d.Connections == 0 {
				r.Unused = append(r.Unused, name)
				r.Needless = r.Needless || len(known.Trusted[name]) > 0
			}
		}
		for _, p := range known.People {
			never := func(door string) bool { return !c.seen.has(personKey{p.Name, door}) }
			if !slices.ContainsFunc(p.Doors, func(door string) bool { return !never(door) }) {
				r.Unseen = append(r.Unseen, p)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doors)) {
		r.Doors = append(r.Doors, doors[name])
	}
	return &r
}
