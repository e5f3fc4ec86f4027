// Package fwknop is the method of fwknop's clients: fwknop "alice" { key = … }, one block for
// each person. The package of the same name in internal reads and writes their datagrams.
package fwknop

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	wire "github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
)

// Kind reads the blocks.
var Kind = method.Kind{Name: "fwknop", Blocks: read, Label: "person", Fields: raw{}, Shown: []string{"port"}}

// FWKnop is the method: the persons who may open the door by it.
type FWKnop struct {
	People []*Person

	ports []packet.PortRange // that the door guards
	to    []netip.Prefix     // addresses that the door guards; empty: this host's own
}

// Person is a person with the keys of a client.
type Person struct {
	Name string
	Port packet.Port
	// Key and HMACKey are decoded. If one is unset, the person cannot open the door.
	Key, HMACKey secret.Secret
	HMAC         wire.HMAC
	User         string         // the user that the datagram must name; "": any
	Signed       bool           // the datagram must name the address to open for
	From         []netip.Prefix // where the datagram must come from; empty: anywhere
	Expires      time.Time      // when the person can no longer open the door; zero: never

	at    raw
	block hcl.Range
}

func (*FWKnop) Name() string          { return Kind.Name }
func (*FWKnop) Traits() method.Traits { return method.Traits{Replay: true, Clock: true} }

// Describe names the persons, or says how many they are.
func (f *FWKnop) Describe(time.Duration) string {
	const few = 3
	if n := len(f.People); n > few {
		return fmt.Sprintf("an fwknop datagram of one of %d persons", n)
	}
	var names []string
	for _, p := range f.People {
		names = append(names, p.Name)
	}
	return "an fwknop datagram of " + strings.Join(names, " or ")
}

// Changes names the persons.
func (f *FWKnop) Changes(former method.Method) (c method.Changes) {
	was := former.(*FWKnop)
	var listed, gone, changed []string
	for _, p := range f.People {
		switch before := was.person(p.Name); {
		case before == nil:
			listed = append(listed, p.Name)
		case !p.isLike(before):
			changed = append(changed, p.Name)
		}
	}
	for _, p := range was.People {
		if f.person(p.Name) == nil {
			gone = append(gone, p.Name)
		}
	}
	c.Names("fwknop", listed, "has a block", "have blocks")
	c.Names("fwknop", gone, "has no block any more", "have no blocks any more")
	c.Names("fwknop", changed, "has another block", "have other blocks")
	return c
}

// person returns the person of that name, or nil.
func (f *FWKnop) person(name string) *Person {
	for _, p := range f.People {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// isLike reports whether both are the same but for their places in files.
func (p *Person) isLike(o *Person) bool {
	return p.Port == o.Port && p.Key.Equal(o.Key) && p.HMACKey.Equal(o.HMACKey) && p.HMAC == o.HMAC && p.User == o.User &&
		p.Signed == o.Signed && slices.Equal(p.From, o.From) && p.Expires.Equal(o.Expires)
}

func (f *FWKnop) Ports() (fixed, chosen []packet.PortRange) {
	var ports []packet.Port
	for _, p := range f.People {
		ports = append(ports, p.Port)
	}
	return packet.MergeRanges(packet.Ranges(ports)), nil
}

// short is the largest size of a datagram that asks for a few ports. Larger ones cost more
// to check, and have a rate of their own: so they cannot crowd out the others.
const short = 400

// bytesPerHash is how much of a datagram costs about as much as one hash.
const bytesPerHash = 128

// Resolve returns two kinds of datagrams for each port, short and long ones, with the sizes
// that the HMACs of the persons permit. Each may be of any of the persons.
func (f *FWKnop) Resolve(time.Time) (method.State, error) {
	sizes := map[packet.Port][]uint16{}
	for _, p := range f.People {
		sizes[p.Port] = append(sizes[p.Port], p.HMAC.Sizes()...)
	}
	var s method.State
	ports, _ := f.Ports()
	for _, r := range ports {
		for n := int(r.First); n <= int(r.Last); n++ {
			port := packet.Port{Number: uint16(n), Protocol: r.Protocol}
			s.Datagrams = append(s.Datagrams, f.datagrams(port, sizes[port])...)
		}
	}
	return s, nil
}

func (f *FWKnop) datagrams(port packet.Port, sizes []uint16) (all []method.Datagram) {
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	at, _ := slices.BinarySearch(sizes, short)
	for _, class := range [][]uint16{sizes[:at], sizes[at:]} {
		dg := method.Datagram{Port: port, First: []byte(wire.FirstBytes), Cost: len(f.People) * (1 + int(class[len(class)-1])/bytesPerHash)}
		for _, size := range class {
			dg.Sizes = append(dg.Sizes, method.Exactly(size))
		}
		all = append(all, dg)
	}
	return all
}

// Admits reports whether a person still has a block with keys that has not expired. Who came
// with an ssh key is another person, even if the names are the same.
func (f *FWKnop) Admits(who method.Person, now time.Time) bool {
	return who.Key == "" && slices.ContainsFunc(f.People, func(p *Person) bool {
		return p.Name == who.Name && p.isUsable() && !p.hasExpired(now)
	})
}

// Listed returns the names of the persons whose block has keys and has not expired.
func (f *FWKnop) Listed(now time.Time) (names []string) {
	for _, p := range f.People {
		if p.isUsable() && !p.hasExpired(now) {
			names = append(names, p.Name)
		}
	}
	return names
}

func (p *Person) isUsable() bool { return p.Key.IsSet() && p.HMACKey.IsSet() }

func (p *Person) hasExpired(now time.Time) bool { return !p.Expires.IsZero() && !now.Before(p.Expires) }

// Advise warns of keys that can be guessed, and of persons who can no longer come in.
func (f *FWKnop) Advise(r method.Reader, _ []method.Door, _ int) {
	for _, p := range f.People {
		method.AdviseSecret(r, p.at.Key, p.Key)
		method.AdviseSecret(r, p.at.HMACKey, p.HMACKey)
		if p.hasExpired(time.Now()) {
			r.Warn(p.at.Expires, "Expired", "This person can no longer open the door. Remove the block, or write a later date.")
		}
	}
}
