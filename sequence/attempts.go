package sequence

import (
	"iter"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// What can be asked of the attempts that a [Tracker] follows.

// All iterates over the attempts that are under way, the newest first. Those that are
// doubted, or gave way, are not among them; one that went on after that is as new as if it had
// begun then.
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

// Of returns a source's attempt at a lock, if one is remembered: one that is
// complete, or too late, or gave way after its first step, may be.
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

// Forget ends a source's attempt at a lock, and returns what [Tracker.Of] does.
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

// Doubt notes that a source's attempt at a lock may not have been meant: that its knocks
// were those of another lock. It is not doubted any more once the next step comes, or the
// first is dialled again. But while it is, no knock overtakes another, its end is not
// told, as that of a complete one is not, and it is not among [Tracker.All].
func (t *Tracker) Doubt(lock int, source packet.Source) {
	k := keyOf(lock, source)
	if i := t.find(k, t.hash(k)); i != none {
		t.attempts[i].doubted = true
	}
}

// Swapped returns how many pairs of knocks of a source's attempt came in the other order
// than the lock has them: 0 if none has overtaken another. One that is early makes a pair
// with each that is missing before it.
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

// Len returns how many attempts are followed, complete ones among them. Those that
// gave way are not.
func (t *Tracker) Len() int { return t.count }

// Evicted returns how many attempts have given way to newer ones so far. Those that
// were gone on with count, too, once for each time.
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
