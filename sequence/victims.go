package sequence

import (
	"math/bits"
	"time"
)

// What a [Tracker] remembers of attempts that gave way after their first step: just
// enough for them to go on. It is a hash table that never grows and is never
// cleared. A key has its place on either of two shelves, and what is oldest on both
// makes room. With two to choose from, few are forgotten long before their time: in
// the midst of a flood, 99 % of the others go on after 8 first knocks for each
// attempt that can be followed, 9 of 10 after 11, and more than half after 15. With
// one shelf it would be 87 % after 8. Where 65,536 are followed, that is 400,000
// first knocks a second for 1.3 seconds.
//
// Keys are told apart by 32 bits of their hash, besides those that tell the shelves.
// So somebody who has not knocked is taken for somebody who has with a probability
// of 8 in 2^32 a knock at most, and cannot know from which address, as the hash has
// a secret seed.

// How many are remembered for each attempt that can be followed, and in all: 16 MiB.
const (
	displacedPerAttempt = 16
	maxDisplaced        = 1 << 20
)

// victimBucket is as long as a line of most processors' caches.
type victimBucket [4]victim

// victim is an attempt's only step. The zero one is none.
type victim struct {
	tag uint32 // of the key's hash
	// packets are the fingerprints of the packet that the step was taken with, in the
	// lower bits, and of the latest with which it was dialled again: the lower 8 bits
	// of that here, and its others in the lower 16 of stamp. They are the same if it
	// was not dialled again.
	packets uint32
	// stamp is when the attempt was started, in microseconds after the epoch and
	// plus one, in the upper 48 bits. That is enough for almost nine years: what gives
	// way later looks too old, and does not go on.
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

// fingerprints returns those of the first packet and of the latest dialled again.
func (f *victim) fingerprints() (first, again fingerprint) {
	const there = 1 << fingerprintBits
	first = there | fingerprint(f.packets)&(there-1)
	again = there | fingerprint(f.stamp&(1<<16-1)<<8) | fingerprint(f.packets>>fingerprintBits)
	return first, again
}

func (f *victim) started() time.Duration {
	return time.Duration(f.stamp>>16-1) * time.Microsecond
}

// victimBucketsFor returns how many shelves there are for a number of attempts. It is a
// power of two.
func victimBucketsFor(attempts int) int {
	n := min(attempts*displacedPerAttempt, maxDisplaced) / len(victimBucket{})
	return 1 << bits.Len(uint(n-1))
}

// moveToVictims remembers an attempt that gives way, if it has taken a single step.
// Knocks that came early are forgotten. Of is the Tracker that has it, at i.
func (t *Tracker) moveToVictims(a *attempt, of *Tracker, i int32) {
	if a.taken != 1 {
		return
	}
	if t.victims == nil {
		// Not before, as nearly all Trackers are never full. It is the only time
		// that a knock takes memory.
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

// restoreVictim goes on with an attempt that gave way, if that is remembered and it is
// not too late. It returns none otherwise.
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

// victimWith returns what is remembered of a key with that hash, or nil.
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

// victimBucketsOf returns the two shelves for a hash. Neither says anything of the tag.
func victimBucketsOf(hash uint64, victimBuckets int) (one, other int) {
	mask := uint64(victimBuckets - 1)
	return int(hash >> 32 & mask), int((hash>>32 ^ hash) & mask)
}

// find returns what has a tag, or nil.
func (s *victimBucket) find(tag uint32) *victim {
	for i := range s {
		if s[i].tag == tag && s[i].stamp != 0 {
			return &s[i]
		}
	}
	return nil
}

// oldest returns the place that is filled next: an empty one, if there is any.
func (s *victimBucket) oldest() *victim {
	oldest := &s[0]
	for i := range s {
		if s[i].stamp>>16 < oldest.stamp>>16 {
			oldest = &s[i]
		}
	}
	return oldest
}
