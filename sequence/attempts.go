package sequence

import (
	"iter"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// This file has the queries about the attempts that a [Tracker] follows.

// All returns an iterator over the attempts that are under way, the newest first. It
// leaves out doubted, complete, late and evicted ones. An attempt that went on after it
// was evicted is as new as if it had begun then.
func (t *Tracker) All(now time.Time) iter.Seq[Attempt] {
	at := now.Sub(t.epoch)
	return func(yield func(Attempt) bool) {
		for i := t.lists[byAge].newest; i != none; i = t.attempts[i].links[byAge].older {
			a := &t.attempts[i]
			l := &t.locks[a.key.at]
			over := a.doubted || at-a.started > l.Timeout || int(a.taken) == len(l.Steps)
			if !over && !yield(t.attempt(i)) {
				return
			}
		}
	}
}

// Of returns a source's attempt at a lock, if one is remembered. That may be an attempt
// that is complete or too late, or a victim that was evicted after its first step.
func (t *Tracker) Of(lock int, source packet.Source) (Attempt, bool) {
	k := keyOf(lock, source)
	hash := t.hash(k)
	if i := t.find(k, hash); i != none {
		return t.attempt(i), true
	}
	if f := t.victimWith(hash); f != nil {
		return Attempt{Lock: lock, Source: source, Step: 1, Started: t.epoch.Add(f.started())}, true
	}
	return Attempt{}, false
}

// Forget ends a source's attempt at a lock, and returns what [Tracker.Of] returned
// before.
func (t *Tracker) Forget(lock int, source packet.Source) (Attempt, bool) {
	a, ok := t.Of(lock, source)
	k := keyOf(lock, source)
	hash := t.hash(k)
	if i := t.find(k, hash); i != none {
		t.remove(i)
	} else if f := t.victimWith(hash); f != nil {
		*f = victim{}
	}
	return a, ok
}

// Doubt records that a source may not have meant its attempt at a lock, because its
// knocks were those of another lock. The doubt ends when the next step comes, or the
// first is dialled again. While an attempt is doubted, no knock may overtake another in
// it, [Tracker.All] leaves it out, and its end is not reported, as that of a complete
// attempt is not.
func (t *Tracker) Doubt(lock int, source packet.Source) {
	k := keyOf(lock, source)
	if i := t.find(k, t.hash(k)); i != none {
		t.attempts[i].doubted = true
	}
}

// Swapped returns how many pairs of knocks of a source's attempt came in the reverse of
// the lock's order: 0 if no knock has overtaken another, or if there is no attempt. An
// early knock makes a pair with each knock that is missing before it.
func (t *Tracker) Swapped(lock int, source packet.Source) (n int) {
	k := keyOf(lock, source)
	i := t.find(k, t.hash(k))
	if i == none {
		return 0
	}
	a := &t.attempts[i]
	n = int(a.swapped)
	missing := 0
	for step := int(a.taken); step <= a.latest(); step++ {
		if a.early>>step&1 != 0 {
			n += missing
		} else {
			missing++
		}
	}
	return n
}

// Len returns how many attempts are followed, complete ones included, victims not.
func (t *Tracker) Len() int { return t.count }

// Evicted returns how many attempts were evicted so far. An attempt that went on and was
// evicted again counts each time.
func (t *Tracker) Evicted() uint64 { return t.evicted }

func (t *Tracker) attempt(i int32) Attempt {
	a := &t.attempts[i]
	return Attempt{
		Lock:    int(a.key.at),
		Source:  a.key.sourceOf(),
		Step:    int(a.taken),
		Started: t.epoch.Add(a.started),
		Strayed: a.early != 0,
		Doubted: a.doubted,
	}
}
