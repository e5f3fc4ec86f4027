package lease

import (
	"errors"
	"slices"
	"time"
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
	// Left is the time that a lease has left, in milliseconds.
	Left int64 `json:"left,omitempty"`
	Person
}

func (s *Statement) key() Key { return Key{s.Door, s.Source} }

// The limits of what other hosts can make this one remember.
const (
	maxEntries = 1 << 18 // doors and sources
	maxPerHost = 1 << 16 // of which one host has told first
	maxLeases  = 16      // of different hosts at one door and source
	maxUsed    = 1 << 16 // keys
	// maxAhead is how far a stamp may be ahead of this host's clock. Else a host could make
	// stamps that no other can follow.
	maxAhead = time.Hour
	// remembered is how long a closing is remembered at least.
	remembered = 10 * time.Minute
)

// Errors of statements that are not taken.
var (
	ErrStamp     = errors.New("its stamp is far ahead of this host's clock")
	ErrFull      = errors.New("the host tells of more windows than one host may")
	ErrNotShared = errors.New("this host does not share the door")
)

// table is what a host knows of the leases and closings in its group.
type table struct {
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
	end        time.Time
	person     Person
}

func newTable() *table { return &table{map[Key]*entry{}, map[string]int{}} }

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

// merge adds a statement that a host makes. changed says that it was news.
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
		if t.byHost[from] >= maxPerHost || len(t.entries) >= maxEntries {
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
		changed = e.open(from, s, now, most)
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

func (e *entry) open(from string, s *Statement, now time.Time, most time.Duration) bool {
	l := lease{host: s.Host, from: from, stamp: s.Stamp, person: s.Person, end: now.Add(most)}
	if left := time.Duration(min(s.Left, most.Milliseconds())) * time.Millisecond; left < most {
		l.end = now.Add(left)
	}
	if l.stamp <= e.closed || !l.end.After(now) {
		return false
	}
	for i := range e.leases {
		known := &e.leases[i]
		switch {
		case known.host != l.host:
			continue
		case l.stamp > known.stamp:
			*known = l
			return true
		case l.stamp == known.stamp && l.end.Before(known.end):
			known.end = l.end
		}
		return false
	}
	if len(e.leases) == maxLeases {
		i := e.soonest()
		if !e.leases[i].end.Before(l.end) {
			return false
		}
		e.leases[i] = l
		return true
	}
	e.leases = append(e.leases, l)
	return true
}

// soonest returns the index of the lease that ends first.
func (e *entry) soonest() (at int) {
	for i := range e.leases {
		if e.leases[i].end.Before(e.leases[at].end) {
			at = i
		}
	}
	return at
}

// window returns the lease that ends last, if any has not ended.
func (e *entry) window(now time.Time) (l lease, ok bool) {
	for _, other := range e.leases {
		if other.end.After(now) && (!ok || other.end.After(l.end)) {
			l, ok = other, true
		}
	}
	return l, ok
}

// own returns the lease of a host.
func (t *table) own(k Key, host string) (lease, bool) {
	if e := t.entries[k]; e != nil {
		for _, l := range e.leases {
			if l.host == host {
				return l, true
			}
		}
	}
	return lease{}, false
}

// expire forgets what is over.
func (t *table) expire(now time.Time) {
	for k, e := range t.entries {
		e.leases = slices.DeleteFunc(e.leases, func(l lease) bool { return !l.end.After(now) })
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
				all = append(all, Statement{Door: k.Door, Source: k.Source, Host: l.host, Stamp: l.stamp, Left: left, Person: l.person})
			}
		}
		if e.closed != 0 && (of == "" || e.by == of) {
			all = append(all, Statement{Door: k.Door, Source: k.Source, Host: e.by, Stamp: e.closed, Closed: true})
		}
	}
	return all
}
