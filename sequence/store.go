package sequence

import (
	"encoding/binary"
	"hash/maphash"
	"time"
)

// How a [Tracker] keeps its attempts: in one piece of memory that never grows, found
// by key through chains of a hash table, and in a list by age, so that the oldest
// gives way.

func (t *Tracker) bucket(k key) *int32 {
	var b [20]byte
	copy(b[:], k.source[:])
	binary.NativeEndian.PutUint16(b[16:], k.at)
	b[18] = k.bits
	if k.is4 {
		b[19] = 1
	}
	return &t.buckets[maphash.Bytes(t.seed, b[:])&uint64(len(t.buckets)-1)]
}

func (t *Tracker) find(k key) int32 {
	i := *t.bucket(k)
	for i != none && t.attempts[i].key != k {
		i = t.attempts[i].chain
	}
	return i
}

// add takes an unused attempt, or the oldest, for a new key.
func (t *Tracker) add(k key, at time.Duration) int32 {
	i := t.free
	switch {
	case i != none:
		t.free = t.attempts[i].chain
	case int(t.used) < len(t.attempts):
		i = t.used
		t.used++
	default:
		t.evicted++
		i = t.oldest
		t.remove(i)
		t.free = t.attempts[i].chain
	}
	b := t.bucket(k)
	t.attempts[i] = attempt{key: k, started: at, chain: *b}
	*b = i
	t.list(i)
	t.count++
	return i
}

func (t *Tracker) remove(i int32) {
	link := t.bucket(t.attempts[i].key)
	for *link != i {
		link = &t.attempts[*link].chain
	}
	*link = t.attempts[i].chain
	t.unlist(i)
	t.attempts[i].chain = t.free
	t.free = i
	t.count--
}

// list puts an attempt at the new end of the list of all.
func (t *Tracker) list(i int32) {
	a := &t.attempts[i]
	a.older, a.newer = t.newest, none
	if t.newest != none {
		t.attempts[t.newest].newer = i
	} else {
		t.oldest = i
	}
	t.newest = i
}

func (t *Tracker) unlist(i int32) {
	a := &t.attempts[i]
	if a.older != none {
		t.attempts[a.older].newer = a.newer
	} else {
		t.oldest = a.newer
	}
	if a.newer != none {
		t.attempts[a.newer].older = a.older
	} else {
		t.newest = a.older
	}
}
