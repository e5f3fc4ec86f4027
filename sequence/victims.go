package sequence

import (
	"math/bits"
	"time"
)

// This file stores the victims of a [Tracker]: attempts that were evicted after their
// first step, with just enough to go on. The store is a hash table that never grows and
// is never cleared. A key has a place in either of two buckets, and a new victim
// overwrites the oldest one of both. With two buckets to choose from, few victims are
// forgotten long before their time. In a flood, 99 % of the other clients' attempts go on
// after 8 first knocks for each attempt that can be followed, 9 of 10 after 11, and more
// than half after 15. With one bucket it would be 87 % after 8. Where 65,536 attempts are
// followed, 8 first knocks each are 400,000 a second for 1.3 seconds.
//
// Keys are told apart by 32 bits of their hash, besides the bits that select the buckets.
// So a source that has not knocked is taken for one that has with a probability of at
// most 8 in 2^32 a knock. An attacker cannot know from which address, because the hash
// has a secret seed.

// How many victims are remembered for each attempt that can be followed, and in all: 16
// MiB.
const (
	victimsPerAttempt = 16
	maxVictims        = 1 << 20
)

// victimBucket is as long as a cache line of most CPUs.
type victimBucket [4]victim

// victim is the only step of an evicted attempt. The zero value means none.
type victim struct {
	tag uint32 // the lower 32 bits of the key's hash
	// packets holds the fingerprint of the packet that took the step, in the lower 24
	// bits, and the lower 8 bits of the fingerprint of its latest redial. The other 16
	// bits of that are the lower ones of stamp. Both fingerprints are the same if there
	// was no redial.
	packets uint32
	// stamp holds the start of the attempt in its upper 48 bits, in microseconds after
	// the epoch plus one. That is enough for almost nine years: a later victim looks too
	// old, and does not go on.
	stamp uint64
}

func victimOf(tag uint32, started time.Duration, first, again fingerprint) victim {
	const bits = 1<<fingerprintBits - 1
	return victim{
		tag:     tag,
		packets: uint32(first&bits | again<<fingerprintBits),
		stamp:   uint64(started/time.Microsecond+1)<<16 | uint64(again&bits)>>8,
	}
}

// fingerprints returns the fingerprints of the first packet and of its latest redial.
func (f *victim) fingerprints() (first, again fingerprint) {
	const there = 1 << fingerprintBits
	first = there | fingerprint(f.packets)&(there-1)
	again = there | fingerprint(f.stamp&(1<<16-1)<<8) | fingerprint(f.packets>>fingerprintBits)
	return first, again
}

func (f *victim) started() time.Duration {
	return time.Duration(f.stamp>>16-1) * time.Microsecond
}

// victimBucketsFor returns the number of buckets for a number of attempts. It is a power
// of two.
func victimBucketsFor(attempts int) int {
	n := min(attempts*victimsPerAttempt, maxVictims) / len(victimBucket{})
	return 1 << bits.Len(uint(n-1))
}

// moveToVictims remembers an attempt that is evicted, if it has taken a single step. Its
// early knocks are forgotten. The attempt is the i-th of the Tracker named of.
func (t *Tracker) moveToVictims(a *attempt, of *Tracker, i int32) {
	if a.taken != 1 {
		return
	}
	if t.victims == nil {
		// The table is allocated only here, because nearly all Trackers are never full.
		// No other knock allocates memory.
		t.victims = make([]victimBucket, victimBucketsFor(len(t.attempts)))
	}
	one, other := victimBucketsOf(a.hash, len(t.victims))
	place, second := t.victims[one].oldest(), t.victims[other].oldest()
	if second.stamp>>16 < place.stamp>>16 {
		place = second
	}
	first := of.hearing(i, 0).packet
	again := first
	if a.again&1 != 0 {
		again = of.dialled(i, 0)[0]
	}
	*place = victimOf(uint32(a.hash), a.started, first, again)
}

// restoreVictim goes on with an attempt that was evicted, if it is remembered and not too
// late. Otherwise it returns none.
func (t *Tracker) restoreVictim(k key, hash uint64, at time.Duration) int32 {
	f := t.victimWith(hash)
	if f == nil {
		return none
	}
	first := *f
	*f = victim{}
	if at-first.started() > t.locks[k.at].Timeout {
		return none
	}
	i := t.add(k, hash, first.started())
	t.attempts[i].taken = 1
	packet, again := first.fingerprints()
	*t.hearing(i, 0) = hearing{packet: packet}
	if again != packet {
		t.note(i, 0, again)
	}
	return i
}

// victimWith returns the victim whose key has that hash, or nil.
func (t *Tracker) victimWith(hash uint64) *victim {
	if t.victims == nil {
		return nil
	}
	one, other := victimBucketsOf(hash, len(t.victims))
	if f := t.victims[one].find(uint32(hash)); f != nil {
		return f
	}
	return t.victims[other].find(uint32(hash))
}

// victimBucketsOf returns the two buckets for a hash. Each is independent of the tag.
func victimBucketsOf(hash uint64, victimBuckets int) (one, other int) {
	mask := uint64(victimBuckets - 1)
	return int(hash >> 32 & mask), int((hash>>32 ^ hash) & mask)
}

// find returns the victim with a tag, or nil.
func (s *victimBucket) find(tag uint32) *victim {
	for i := range s {
		if s[i].tag == tag && s[i].stamp != 0 {
			return &s[i]
		}
	}
	return nil
}

// oldest returns the place to fill next: an empty one, if there is any.
func (s *victimBucket) oldest() *victim {
	oldest := &s[0]
	for i := range s {
		if s[i].stamp>>16 < oldest.stamp>>16 {
			oldest = &s[i]
		}
	}
	return oldest
}
