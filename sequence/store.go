package sequence

import (
	"encoding/binary"
	"hash/maphash"
	"time"
)

// This file stores the attempts of a [Tracker]: in one piece of memory that never grows.
// A hash table with chains finds them by key, and lists by age tell which one to evict.

// The lists of attempts.
const (
	byAge    = iota // all attempts
	yielding        // attempts that are evicted first
)

// ends are the two ends of a list, and links are the neighbours of an attempt in it.
type (
	ends  struct{ oldest, newest int32 }
	links struct{ older, newer int32 }
)

// hash returns the hash of a key and of how often its lock was replaced, so that victims
// from before the last replacement are not found again.
func (t *Tracker) hash(k key) uint64 {
	var b [24]byte
	of := k.bytes()
	copy(b[:], of[:])
	binary.NativeEndian.PutUint32(b[20:], t.replaced[k.at])
	return maphash.Bytes(t.seed, b[:])
}

func (t *Tracker) bucket(hash uint64) *int32 {
	return &t.buckets[hash&uint64(len(t.buckets)-1)]
}

func (t *Tracker) find(k key, hash uint64) int32 {
	i := *t.bucket(hash)
	for i != none && t.attempts[i].key != k {
		i = t.attempts[i].chain
	}
	return i
}

// add takes an unused attempt, or evicts one, for a new key.
func (t *Tracker) add(k key, hash uint64, at time.Duration) int32 {
	if t.count == len(t.attempts) {
		t.giveWay()
	}
	i := t.free
	if i != none {
		t.free = t.attempts[i].chain
	} else {
		i = t.used
		t.used++
	}
	b := t.bucket(hash)
	t.attempts[i] = attempt{key: k, hash: hash, started: at, chain: *b, yields: true}
	*b = i
	t.list(byAge, i)
	t.list(yielding, i)
	t.count++
	return i
}

// giveWay evicts the attempt that is worth least.
func (t *Tracker) giveWay() {
	i := t.lists[yielding].oldest
	if i == none {
		i = t.lists[byAge].oldest
	}
	t.evicted++
	t.moveToVictims(&t.attempts[i], t, i)
	t.remove(i)
}

func (t *Tracker) remove(i int32) {
	a := &t.attempts[i]
	link := t.bucket(a.hash)
	for *link != i {
		link = &t.attempts[*link].chain
	}
	*link = a.chain
	t.unlist(byAge, i)
	if a.yields {
		t.unlist(yielding, i)
	}
	a.chain = t.free
	t.free = i
	t.count--
}

// rank puts an attempt on the list of those that are evicted first, or takes it off,
// after it has taken a step. A complete attempt is worth no more than one that has just
// begun: it is kept only to recognize its knocks when they come again.
func (t *Tracker) rank(i int32) {
	a := &t.attempts[i]
	yields := a.taken < 2 || int(a.taken) == len(t.locks[a.key.at].Steps)
	switch {
	case yields && !a.yields:
		t.list(yielding, i)
	case !yields && a.yields:
		t.unlist(yielding, i)
	}
	a.yields = yields
}

// renew makes an attempt that begins again the newest.
func (t *Tracker) renew(i int32) {
	t.unlist(byAge, i)
	t.list(byAge, i)
	if t.attempts[i].yields {
		t.unlist(yielding, i)
	}
	t.list(yielding, i)
	t.attempts[i].yields = true
}

// list appends an attempt to a list, as its newest.
func (t *Tracker) list(which int, i int32) {
	l := &t.lists[which]
	t.attempts[i].links[which] = links{older: l.newest, newer: none}
	if l.newest != none {
		t.attempts[l.newest].links[which].newer = i
	} else {
		l.oldest = i
	}
	l.newest = i
}

func (t *Tracker) unlist(which int, i int32) {
	l := &t.lists[which]
	at := t.attempts[i].links[which]
	if at.older != none {
		t.attempts[at.older].links[which].newer = at.newer
	} else {
		l.oldest = at.newer
	}
	if at.newer != none {
		t.attempts[at.newer].links[which].older = at.older
	} else {
		l.newest = at.older
	}
}
