package wall

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/sequence"
)

// policy decides about packets: a configuration, as it is effective at a time, with the
// attempts at its doors. A reload makes a new policy. When only the
// sequences change with time, the new policy shares everything else with the former one.
type policy struct {
	packets *packets
	config  *effective.Config
	reasons map[string]nft.LogReason
	ids     []int // by door
	locks   []lock
	locksOf [][]int // by door: indexes in locks

	// Guarded by the mu of packets.
	stale     bool                // installing the configuration has failed; to be retried
	tracker   *sequence.Tracker   // its locks have the indexes of locks
	verifiers [][]method.Verifier // by door and method; nil where a method takes no datagrams
}

// lock is a sequence that opens or closes a door.
type lock struct {
	door   int
	closes bool
	place  int // index in the door's Sequences, if it opens
	steps  []packet.Port
}

// newPolicy returns the policy for a configuration that is effective at now.
func (ps *packets) newPolicy(c *effective.Config, now time.Time) *policy {
	f := &policy{
		packets:   ps,
		config:    c,
		reasons:   nft.LogReasons(c),
		verifiers: make([][]method.Verifier, len(c.Doors)),
	}
	f.locks, f.locksOf = locksOf(c)
	tracked := make([]sequence.Lock, len(f.locks))
	for i, l := range f.locks {
		d := &c.Doors[l.door]
		tracked[i] = sequence.Lock{Steps: l.steps, Timeout: d.SequenceTimeout, Prefix: d.SourcePrefix, Strict: len(d.CloseSequence) > 0}
		if !l.closes && d.Methods[d.Knocking()].Traits().Consumes { // the next sequence may be longer
			tracked[i].Room = sequence.MaxSteps
		}
	}
	f.tracker = sequence.NewTracker(tracked, c.Wall.Reorder, c.Wall.MaxSources, now)
	for i, d := range c.Doors {
		for _, m := range d.Methods {
			var v method.Verifier
			if listener, ok := m.(method.Listener); ok {
				v = listener.Verifier()
			}
			f.verifiers[i] = append(f.verifiers[i], v)
		}
	}
	for _, d := range c.Doors {
		f.ids = append(f.ids, ps.doors.id(d.Name))
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.tallies = append(ps.tallies, make([]tally, ps.doors.len()-len(ps.tallies))...)
	return f
}

// tally returns the counters of a door. It is called with the mu of packets held.
func (f *policy) tally(door int) *tally { return &f.packets.tallies[f.ids[door]] }

// doorIDs numbers the names of doors. A door keeps its id across reloads, also when it is gone
// for a while. Other locks may be held when its lock is taken.
type doorIDs struct {
	mu    sync.Mutex
	names []string // by id
	ids   map[string]int
}

// id returns the id of the door of that name. A new name gets the next id.
func (n *doorIDs) id(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, ok := n.ids[name]
	if !ok {
		id = len(n.names)
		n.names = append(n.names, name)
		n.ids[name] = id
	}
	return id
}

// maxDoorIDs is how many names can have an id: the records of windows have 16 bits for it.
const maxDoorIDs = 1 << 16

// hasRoom reports whether there are ids for the doors of a configuration. Beyond maxDoorIDs two
// doors would share their windows.
func (n *doorIDs) hasRoom(c *effective.Config) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	ids := len(n.names)
	for i := range c.Doors {
		if _, ok := n.ids[c.Doors[i].Name]; !ok {
			ids++
		}
	}
	return ids <= maxDoorIDs
}

// name returns the name of the door with that id.
func (n *doorIDs) name(id int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[id]
}

// len returns how many ids there are.
func (n *doorIDs) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.names)
}

// locksOf returns the locks of all doors, and the indexes of those of each door.
func locksOf(c *effective.Config) (locks []lock, of [][]int) {
	of = make([][]int, len(c.Doors))
	add := func(l lock) {
		of[l.door] = append(of[l.door], len(locks))
		locks = append(locks, l)
	}
	for i, d := range c.Doors {
		for place, steps := range d.Sequences {
			add(lock{door: i, place: place, steps: steps})
		}
		if len(d.CloseSequence) > 0 {
			add(lock{door: i, closes: true, steps: d.CloseSequence})
		}
	}
	return locks, of
}

// inherit takes over the former policy's attempts at locks that are the same.
func (f *policy) inherit(former *policy) {
	f.tracker.Inherit(former.tracker, func(lock int) int {
		was := &former.locks[lock]
		door := &former.config.Doors[was.door]
		i := f.doorNamed(door.Name)
		if i < 0 || f.config.Doors[i].SourcePrefix != door.SourcePrefix {
			return -1
		}
		at := slices.IndexFunc(f.locksOf[i], func(l int) bool {
			is := &f.locks[l]
			return is.closes == was.closes && is.place == was.place && slices.Equal(is.steps, was.steps)
		})
		if at < 0 {
			return -1
		}
		return f.locksOf[i][at]
	})
}

// attemptAt returns a source's furthest attempt to open a door, and the number of steps
// of that sequence. Known is false if there is no attempt.
func (f *policy) attemptAt(door int, source packet.Source) (furthest sequence.Attempt, steps int, known bool) {
	for _, l := range f.locksOf[door] {
		a, ok := f.tracker.Of(l, source)
		if ok && !f.locks[l].closes && (!known || a.Step > furthest.Step) {
			furthest, steps, known = a, len(f.locks[l].steps), true
		}
	}
	return furthest, steps, known
}

// hasSource reports whether there is a door of that name at which source is one source. A
// window stays open only there, so that no source gets the window of another.
func (f *policy) hasSource(door string, source packet.Source) bool {
	i := f.doorNamed(door)
	return i >= 0 && f.config.Doors[i].SourcePrefix.Covers(source) && (source.Link != 0) == isLinkLocal(source.Addr())
}

// dividesAs reports whether there is a door of that name, and divides addresses into sources
// as under a former policy, if it was there.
func (f *policy) dividesAs(former *policy, door string) bool {
	is, was := f.doorNamed(door), former.doorNamed(door)
	return is >= 0 && (was < 0 || f.config.Doors[is].SourcePrefix == former.config.Doors[was].SourcePrefix)
}

// dividesAllAs reports whether that is so for all doors of a former policy.
func (f *policy) dividesAllAs(former *policy) bool {
	return !slices.ContainsFunc(former.config.Doors, func(was effective.Door) bool { return !f.dividesAs(former, was.Name) })
}

// admitsStill reports whether a door admits who has opened it. It admits nobody in
// particular, too. A person who has opened it at another host need not be known to a door
// that knows no persons.
func (f *policy) admitsStill(door string, by method.Opener, now time.Time) bool {
	i := f.doorNamed(door)
	if by.Person.IsZero() || i < 0 {
		return i >= 0
	}
	known := false
	for _, m := range f.config.Doors[i].Methods {
		members, ok := m.(method.Members)
		if ok && members.Admits(by.Person, now) {
			return true
		}
		known = known || ok
	}
	return by.Origin != "" && !known
}

// knowsPersons reports whether any door knows the persons that open it.
func (f *policy) knowsPersons() bool {
	return slices.ContainsFunc(f.config.Doors, func(d effective.Door) bool {
		return slices.ContainsFunc(d.Methods, func(m method.Method) bool { _, ok := m.(method.Members); return ok })
	})
}

// isLinkLocal reports whether an address means another host on each link.
func isLinkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

func (f *policy) doorNamed(name string) int { return f.config.Index(name) }

func (f *policy) guardsAny(s sessions.Session) bool { return len(f.config.At(s.Port)) > 0 }

// guardsDestination reports whether a door that guards a packet's port also guards its
// destination address. A packet does not tell its incoming interface, nor which addresses
// are local to this host.
func guardsDestination(d *effective.Door, p packet.Packet) bool {
	return d.GuardsAt(p.Destination, true)
}

// isGuardedOnce reports whether only one door can have queued a packet.
func (f *policy) isGuardedOnce(p packet.Packet) bool {
	doors := 0
	for _, i := range f.config.At(p.Port) {
		if guardsDestination(&f.config.Doors[i], p) {
			doors++
		}
	}
	return doors == 1
}
