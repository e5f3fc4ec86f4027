package lease

import (
	"errors"
	"slices"
	"time"

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
	maxEntries = 1 << 16 // doors and sources
	maxPerHost = 1 << 13 // of which one host has told first
	maxLeases  = 8       // of different hosts at one door and source
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
	ErrFull      = errors.New("the host tells of more windows than one host may")
	ErrUsedAhead = errors.New("the time of a used knock is far ahead of this host's clock")
	ErrUsedFull  = errors.New("the host tells of more used knocks than one host may")
	ErrNotShared = errors.New("this host does not share the door")
)

// table is what a host knows of the leases and closings in its group.
type table struct {
	name    string // of this host, whose own windows have no limits
	entries map[Key]*entry
	byHost  map[string]int // entries by the host that told of them first
}

type entry struct {
	first  string // the host that told of it first
	leases []lease
	closed int64  // stamp of the last closing; 0: none
	by     string // who told of that
	forget time.Time
	raised time.Time // when this host last heard of a later stamp than all before
}

type lease struct {
	host, from string // where it was opened, and who told of it
	stamp      int64
	begun, end time.Time
	person     Person
}

func newTable(name string) *table { return &table{name, map[Key]*entry{}, map[string]int{}} }

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
	at := now.Add(-age)
	stamp := at.UnixMilli()
	if e := t.entries[k]; e != nil && !e.raised.After(at) { // it was known then
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
	k := s.key()
	e := t.entries[k]
	if e == nil {
		if !s.Closed && s.Left <= 0 {
			return false, nil
		}
		if from != t.name && (t.byHost[from] >= maxPerHost || len(t.entries)-t.byHost[t.name] >= maxEntries) {
			return false, ErrFull
		}
		e = &entry{first: from}
		t.entries[k] = e
		t.byHost[from]++
	}
	before := e.latest()
	if s.Closed {
		changed = e.close(from, s, now, most)
	} else {
		changed = e.open(t.name, from, s, now)
	}
	if s.Stamp > before {
		e.raised = now
	}
	return changed, nil
}

func (e *entry) close(from string, s *Statement, now time.Time, most time.Duration) bool {
	if s.Stamp <= e.closed {
		return false
	}
	e.closed, e.by, e.forget = s.Stamp, from, now.Add(max(remembered, 2*most))
	e.leases = slices.DeleteFunc(e.leases, func(l lease) bool {
		if l.stamp <= e.closed && l.end.After(e.forget) {
			e.forget = l.end
		}
		return l.stamp <= e.closed
	})
	return true
}

func (e *entry) open(name, from string, s *Statement, now time.Time) bool {
	l := lease{host: s.Host, from: from, stamp: s.Stamp, person: s.Person, begun: now.Add(-inWindow(s.Age)), end: now.Add(inWindow(s.Left))}
	if l.stamp <= e.closed || !l.end.After(now) {
		return false
	}
	for i := range e.leases {
		known := &e.leases[i]
		switch {
		case known.host != l.host:
			continue
		// A host whose companion was started anew may not know of its lease that has ended,
		// and so make an earlier stamp.
		case l.stamp > known.stamp, l.stamp < known.stamp && !known.end.After(now):
			*known = l
			return true
		case l.stamp == known.stamp && known.from != name: // nobody knows this host's windows better
			known.begun, known.end = earlier(known.begun, l.begun), earlier(known.end, l.end)
		}
		return false
	}
	if len(e.leases) >= maxLeases && from != name {
		i := e.soonest(name)
		if !e.leases[i].end.Before(l.end) {
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

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// soonest returns the index of the lease that ends first, of those that others have told of.
func (e *entry) soonest(name string) (at int) {
	at = -1
	for i := range e.leases {
		if e.leases[i].from != name && (at < 0 || e.leases[i].end.Before(e.leases[at].end)) {
			at = i
		}
	}
	return at
}

// window returns the lease that ends last at the host of that name, if any has not ended.
// What others have told of lasts no longer there than the door's window, counted from when
// it began.
func (e *entry) window(name string, most time.Duration, now time.Time) (l lease, ok bool) {
	for _, other := range e.leases {
		if other.from != name {
			other.end = earlier(other.end, other.begun.Add(most))
		}
		if other.end.After(now) && (!ok || other.end.After(l.end)) {
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

// expire forgets what is over.
func (t *table) expire(now time.Time) {
	for k, e := range t.entries {
		e.leases = slices.DeleteFunc(e.leases, func(l lease) bool { return !l.end.Add(late).After(now) })
		if !e.forget.After(now) {
			e.closed = 0
		}
		if len(e.leases) > 0 || e.closed != 0 {
			continue
		}
		delete(t.entries, k)
		if t.byHost[e.first]--; t.byHost[e.first] == 0 {
			delete(t.byHost, e.first)
		}
	}
}

// statements returns what is known: all of it, or what happened at one host.
func (t *table) statements(now time.Time, of string) (all []Statement) {
	for k, e := range t.entries {
		for _, l := range e.leases {
			if left := l.end.Sub(now).Milliseconds(); left > 0 && (of == "" || l.host == of) {
				all = append(all, Statement{Door: k.Door, Source: k.Source, Host: l.host, Stamp: l.stamp, Left: left, Age: now.Sub(l.begun).Milliseconds(), Person: l.person})
			}
		}
		if e.closed != 0 && (of == "" || e.by == of) {
			all = append(all, Statement{Door: k.Door, Source: k.Source, Host: e.by, Stamp: e.closed, Closed: true})
		}
	}
	return all
}
