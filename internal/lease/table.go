package lease

import (
	"errors"
	"math"
	"slices"
	"time"
	"unique"

	"github.com/knockwall/knockwall/ruleset"
)

// Key identifies a window in a group.
type Key struct{ Door, Source string }

// Person is who has opened a window, as the daemons tell it.
type Person struct {
	Name  string `json:"person,omitempty"`
	Key   string `json:"key,omitempty"`
	Grant string `json:"grant,omitempty"`
}

// Statement is a lease or a closing, as hosts tell it.
type Statement struct {
	Door   string `json:"door"`
	Source string `json:"source"`
	Host   string `json:"host"`  // where it happened
	Stamp  int64  `json:"stamp"` // when
	Closed bool   `json:"closed,omitempty"`
	// Left is the time that a lease has left, and Age how long ago it began, in milliseconds.
	Left int64 `json:"left,omitempty"`
	Age  int64 `json:"age,omitempty"`
	Person
}

func (s *Statement) key() Key { return Key{s.Door, s.Source} }

// The limits of what other hosts can make this one remember.
const (
	// MaxEntries is the greatest limit of doors and sources, whatever the doors allow. So
	// many take about 400 MB, and telling a host all of them takes as much again for a moment.
	// The limit of the unit leaves room for that.
	MaxEntries = 1 << 20
	maxLeases  = 8 // of different hosts at one door and source
	// Used knocks are remembered by their keys, and those that one host has told of.
	maxUsed        = 1 << 16
	maxUsedPerHost = 1 << 13
	// maxAhead is how far a stamp may be ahead of this host's clock. Else a host could make
	// stamps that no other can follow. No knock that opens a door is further ahead, either.
	maxAhead = time.Hour
	// remembered is how long a closing is remembered at least.
	remembered = 10 * time.Minute
	// late is how long a lease is remembered after its end. An account of it that comes late,
	// by at most that, does not begin it again.
	late = 10 * time.Second
)

// Errors of statements that are not taken.
var (
	ErrStamp     = errors.New("its stamp is far ahead of this host's clock")
	ErrFull      = errors.New("the host tells of more windows than there is room for. If they are true, write a larger max_windows into the wall block")
	ErrUsedAhead = errors.New("the time of a used knock is far ahead of this host's clock")
	ErrUsedFull  = errors.New("the host tells of more used knocks than one host may")
	ErrNotShared = errors.New("this host does not share the door")
)

// table is what a host knows of the leases and closings in its group. There may be many of
// them, so their records are small: names and persons that come often are stored once, and
// times are counted from when the table was made.
type table struct {
	name    host // of this host, whose own windows have no limits
	start   time.Time
	limit   int // of entries that others have told of
	entries map[Key]*entry
	byHost  map[host]int // entries by the host that told of them first
	// due has the entries by the second, counted from start, in which something of them may
	// be forgotten. Each is there once. So nobody looks through all of them all the time.
	due     map[int64][]Key
	expired int64 // the last second of due that is done
}

// host is the name of a host.
type host = unique.Handle[string]

// moment is a time since the table was made.
type moment time.Duration

func (m moment) add(d time.Duration) moment     { return m + moment(d) }
func (m moment) sub(other moment) time.Duration { return time.Duration(m - other) }
func (m moment) second() int64                  { return int64(m / moment(time.Second)) }

type entry struct {
	first  host // that told of it first
	leases []lease
	closed int64 // stamp of the last closing; 0: none
	by     host  // who told of that
	forget moment
	raised moment // when this host last heard of a later stamp than all before
}

type lease struct {
	host, from host // where it was opened, and who told of it
	stamp      int64
	begun, end moment
	person     unique.Handle[Person]
}

func newTable(name string, now time.Time) *table {
	return &table{name: unique.Make(name), start: now, limit: MaxEntries, entries: map[Key]*entry{}, byHost: map[host]int{}, due: map[int64][]Key{}}
}

func (t *table) at(now time.Time) moment { return moment(now.Sub(t.start)) }

// hasRoom reports whether a host may tell of one more door and source. It may if it has told
// of no more than others still can. So one host gets half of the room at most, two get a third
// each, and no number of hosts that tell of everything takes all from one that tells of little.
func (t *table) hasRoom(from host) bool {
	if from == t.name {
		return true
	}
	others := len(t.entries) - t.byHost[t.name]
	return t.byHost[from] < t.limit-others
}

// latest returns the latest stamp.
func (e *entry) latest() int64 {
	latest := e.closed
	for _, l := range e.leases {
		latest = max(latest, l.stamp)
	}
	return latest
}

// stamp returns the stamp of what happens here, age ago.
func (t *table) stamp(k Key, now time.Time, age time.Duration) int64 {
	stamp := now.Add(-age).UnixMilli()
	if e := t.entries[k]; e != nil && e.raised <= t.at(now).add(-age) { // it was known then
		stamp = max(stamp, e.latest()+1)
	}
	return stamp
}

// merge adds a statement that a host makes about a door whose window is most. changed says
// that it was news.
func (t *table) merge(from string, s *Statement, now time.Time, most time.Duration) (changed bool, err error) {
	if s.Stamp > now.Add(maxAhead).UnixMilli() {
		return false, ErrStamp
	}
	k, teller, at := s.key(), unique.Make(from), t.at(now)
	e := t.entries[k]
	isNew := e == nil
	if isNew {
		if !s.Closed && s.Left <= 0 {
			return false, nil
		}
		if !t.hasRoom(teller) {
			return false, ErrFull
		}
		e = &entry{first: teller}
		k.Door = unique.Make(k.Door).Value() // the text of a message is not kept
		t.entries[k] = e
		t.byHost[teller]++
	}
	before := e.latest()
	if s.Closed {
		changed = e.close(teller, s, at, most)
	} else {
		changed = e.open(t.name, teller, s, at)
	}
	if isNew {
		t.remind(k, e)
	}
	if s.Stamp > before {
		e.raised = at
	}
	return changed, nil
}

func (e *entry) close(from host, s *Statement, now moment, most time.Duration) bool {
	if s.Stamp <= e.closed {
		return false
	}
	e.closed, e.by, e.forget = s.Stamp, from, now.add(max(remembered, 2*most))
	e.leases = slices.DeleteFunc(e.leases, func(l lease) bool {
		if l.stamp <= e.closed {
			e.forget = max(e.forget, l.end)
		}
		return l.stamp <= e.closed
	})
	return true
}

func (e *entry) open(name, from host, s *Statement, now moment) bool {
	l := lease{host: unique.Make(s.Host), from: from, stamp: s.Stamp, person: unique.Make(s.Person), begun: now.add(-inWindow(s.Age)), end: now.add(inWindow(s.Left))}
	if l.stamp <= e.closed || l.end <= now {
		return false
	}
	for i := range e.leases {
		known := &e.leases[i]
		switch {
		case known.host != l.host:
			continue
		// A host whose companion was started anew may not know of its lease that has ended,
		// and so make an earlier stamp.
		case l.stamp > known.stamp, l.stamp < known.stamp && known.end <= now:
			*known = l
			return true
		case l.stamp == known.stamp && known.from != name: // nobody knows this host's windows better
			known.begun, known.end = min(known.begun, l.begun), min(known.end, l.end)
		}
		return false
	}
	if len(e.leases) >= maxLeases && from != name {
		i := e.soonest(name)
		if e.leases[i].end >= l.end {
			return false
		}
		e.leases[i] = l
		return true
	}
	e.leases = append(e.leases, l)
	return true
}

// inWindow returns the duration of that many milliseconds, but none that no window can have.
func inWindow(ms int64) time.Duration {
	return time.Duration(min(max(0, ms), ruleset.MaxWindow.Milliseconds())) * time.Millisecond
}

// soonest returns the index of the lease that ends first, of those that others have told of.
func (e *entry) soonest(name host) (at int) {
	at = -1
	for i := range e.leases {
		if e.leases[i].from != name && (at < 0 || e.leases[i].end < e.leases[at].end) {
			at = i
		}
	}
	return at
}

// window returns the lease that ends last at the host of that name, if any has not ended.
// What others have told of lasts no longer there than the door's window, counted from when
// it began.
func (e *entry) window(name host, most time.Duration, now moment) (l lease, ok bool) {
	for _, other := range e.leases {
		if other.from != name {
			other.end = min(other.end, other.begun.add(most))
		}
		if other.end > now && (!ok || other.end > l.end) {
			l, ok = other, true
		}
	}
	return l, ok
}

// own returns the lease of this host, or nil.
func (t *table) own(k Key) *lease {
	if e := t.entries[k]; e != nil {
		for i := range e.leases {
			if e.leases[i].host == t.name {
				return &e.leases[i]
			}
		}
	}
	return nil
}

// remind makes expire look at an entry when something of it is over, or later: until then an
// entry may change.
func (t *table) remind(k Key, e *entry) {
	over := moment(math.MaxInt64)
	for _, l := range e.leases {
		over = min(over, l.end.add(late))
	}
	if e.closed != 0 {
		over = min(over, e.forget)
	}
	second := t.expired + 1
	if over != math.MaxInt64 {
		second = max(second, over.second()+1)
	}
	t.due[second] = append(t.due[second], k)
}

// expire forgets what is over for a second.
func (t *table) expire(now moment) {
	for ; t.expired < now.second(); t.expired++ {
		keys := t.due[t.expired+1]
		delete(t.due, t.expired+1)
		for _, k := range keys {
			t.forget(k, now)
		}
	}
}

// forget forgets what is over of an entry.
func (t *table) forget(k Key, now moment) {
	e := t.entries[k]
	e.leases = slices.DeleteFunc(e.leases, func(l lease) bool { return l.end.add(late) <= now })
	if e.forget <= now {
		e.closed = 0
	}
	if len(e.leases) > 0 || e.closed != 0 {
		t.remind(k, e)
		return
	}
	delete(t.entries, k)
	if t.byHost[e.first]--; t.byHost[e.first] == 0 {
		delete(t.byHost, e.first)
	}
}

// statements returns what is known: all of it, or only what happened at this host.
func (t *table) statements(now moment, own bool) (all []Statement) {
	if !own {
		all = make([]Statement, 0, len(t.entries))
	}
	for k, e := range t.entries {
		for _, l := range e.leases {
			if left := l.end.sub(now).Milliseconds(); left > 0 && (!own || l.host == t.name) {
				all = append(all, Statement{Door: k.Door, Source: k.Source, Host: l.host.Value(), Stamp: l.stamp, Left: left, Age: now.sub(l.begun).Milliseconds(), Person: l.person.Value()})
			}
		}
		if e.closed != 0 && (!own || e.by == t.name) {
			all = append(all, Statement{Door: k.Door, Source: k.Source, Host: e.by.Value(), Stamp: e.closed, Closed: true})
		}
	}
	return all
}
