package ruleset

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

func (l *Loaded) check(raw *rawConfig) *Config {
	c := &Config{Wall: defaultWall}
	c.Wall.IdentityPath = DefaultIdentity(l.path)
	l.identity.wall = &c.Wall
	l.checkWalls(raw.Walls, &c.Wall)
	if len(raw.Doors) > maxDoors {
		l.fail("Too many doors", fmt.Sprintf("The rule files have %d doors. At most %d are allowed.", len(raw.Doors), maxDoors), &raw.Doors[maxDoors].Range)
		raw.Doors = raw.Doors[:maxDoors]
	}
	first := map[string]hcl.Range{}
	numbers := map[uint32]string{}
	for i := range raw.Doors {
		r := &raw.Doors[i]
		if at, ok := first[r.Name]; ok {
			l.fail("Two doors of one name", fmt.Sprintf("The door %q is already defined at %s. Give this one another name.", r.Name, fileLine(at)), &r.NameRange)
		} else {
			first[r.Name] = r.NameRange
			if other, ok := numbers[DoorNumber(r.Name)]; ok {
				l.fail("Two doors of one number", fmt.Sprintf("The door %q has the same number in the nftables table as the door %q, by chance. Give one of them another name.", r.Name, other), &r.NameRange)
			}
			numbers[DoorNumber(r.Name)] = r.Name
		}
		c.Doors = append(c.Doors, l.checkDoor(r, &c.Wall))
		l.checkAgreement(c.Doors, raw)
	}
	l.doorsAt = first
	c.Share = l.checkShare(raw)
	l.advise(raw, c)
	return c
}

// DoorAt returns the file and the line of a door.
func (l *Loaded) DoorAt(name string) string { return fileLine(l.doorsAt[name]) }

func fileLine(at hcl.Range) string { return fmt.Sprintf("%s line %d", at.Filename, at.Start.Line) }

var doorName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

// IsDoorName reports whether a door can have a name.
func IsDoorName(name string) bool { return doorName.MatchString(name) }

// checkAgreement reports an error if the last door and an earlier one guard the same port,
// but answer sources without a window there in different ways.
func (l *Loaded) checkAgreement(doors []Door, raw *rawConfig) {
	d := &doors[len(doors)-1]
	r := &raw.Doors[len(doors)-1]
	for i := range doors[:len(doors)-1] {
		other := &doors[i]
		if (d.Closed != other.Closed || d.OnFailure != other.OnFailure) && d.meets(other) {
			l.fail("Doors that disagree", fmt.Sprintf("The door %q guards one of these ports, too, but has another closed or on_failure. "+
				"Give both doors the same values.", other.Name), &r.Range)
			return
		}
	}
}

// meets reports whether both doors may guard the same packet.
func (d *Door) meets(other *Door) bool {
	apart := len(d.Interfaces) > 0 && len(other.Interfaces) > 0 &&
		!slices.ContainsFunc(d.Interfaces, func(p string) bool {
			return slices.ContainsFunc(other.Interfaces, func(q string) bool { return interfacesMeet(p, q) })
		})
	apart = apart || len(d.To) > 0 && len(other.To) > 0 &&
		!slices.ContainsFunc(d.To, func(p netip.Prefix) bool { return slices.ContainsFunc(other.To, p.Overlaps) })
	return !apart && slices.ContainsFunc(d.Ports, func(p packet.PortRange) bool {
		return slices.ContainsFunc(other.Ports, p.Overlaps)
	})
}

func (l *Loaded) checkDoor(r *rawDoor, w *Wall) Door {
	d := defaultDoor
	d.Name = r.Name
	if !IsDoorName(d.Name) {
		l.fail("Not a door name", "A door's name is a letter, then up to 31 letters, digits, hyphens and underscores.", &r.NameRange)
	}
	d.Ports = l.ports(r)
	d.To = l.addresses(r.To, "The door would guard nothing. Leave \"to\" out to guard this host's own addresses.")
	l.methods(r, &d)
	l.duration(r.SequenceTimeout, &d.SequenceTimeout, 100*time.Millisecond, sequence.MaxTimeout)
	l.duration(r.Window, &d.Window, MinWindow, MaxWindow)
	l.flags(r.Flags, &d.Flags)
	number(l, r.MaxConnections, &d.MaxConnections, 1, 1000, "The number of connections per window is a whole number from %d to %d. Leave max_connections out for no limit.")
	choose(l, r.Closed, &d.Closed, Drop, Reject)
	choose(l, r.OnFailure, &d.OnFailure, FailClosed, FailOpen)
	d.Interfaces = l.interfaces(r.Interfaces)
	if absent(r.Interfaces) {
		d.Interfaces = w.Interfaces
	}
	d.Trusted = l.addresses(r.Trusted, "")
	l.sourcePrefix(r.SourcePrefix, &d.SourcePrefix)
	l.penaltyPrefix(r.PenaltyPrefix, &d)
	l.duration(r.UDPTimeout, &d.UDPTimeout, MinUDPTimeout, MaxUDPTimeout)
	l.traps(r.Traps, &d)
	l.duration(r.Penalty, &d.Penalty, time.Second, MaxWindow)
	d.OnOpen, d.OnClose = l.command(r.OnOpen), l.command(r.OnClose)
	return d
}
