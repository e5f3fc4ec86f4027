package sequence

import (
	"iter"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// What can be asked of the attempts that a [Tracker] follows.

// All iterates over the attempts that are under way, the newest first.
func (t *Tracker) All(now time.Time) iter.Seq[Attempt] {
	at := now.Sub(t.epoch)
	return func(yield func(Attempt) bool) {
		for i := t.newest; i != none; i = t.attempts[i].older {
			a := &t.attempts[i]
			l := &t.locks[a.key.at]
			over := at-a.started > l.Timeout || int(a.taken) == len(l.Steps)
			if !over && !yield(t.attempt(i)) {
				return
			}
		}
	}
}

// Of returns a source's attempt at a lock, if one is remembered: one that is
// complete, or too late, may be.
func (t *Tracker) Of(lock int, source packet.Source) (Attempt, bool) {
	i := t.find(keyOf(lock, source))
	if i == none {
		return Attempt{}, false
	}
	return t.attempt(i), true
}

// Forget ends a source's attempt at a lock, and returns it, if there was one. It
// may have been complete, or too late.
func (t *Tracker) Forget(lock int, source packet.Source) (Attempt, bool) {
	i := t.find(keyOf(lock, source))
	if i == none {
		return Attempt{}, false
	}
	a := t.attempt(i)
	t.remove(i)
	return a, true
}

// Swapped returns how many pairs of knocks of a source's complete attempt came in
// the other order than the lock has them: 0 if none has overtaken another.
func (t *Tracker) Swapped(lock int, source packet.Source) (n int) {
	i := t.find(keyOf(lock, source))
	if i == none {
		return 0
	}
	heard := t.hearings(i)[:len(t.locks[lock].Steps)]
	for s := range heard {
		for _, later := range heard[s+1:] {
			if int16(later.order-heard[s].order) < 0 {
				n++
			}
		}
	}
	return n
}

// Len returns how many attempts are remembered, complete ones among them.
func (t *Tracker) Len() int { return t.count }

// Evicted returns how many attempts have given way to newer ones so far.
func (t *Tracker) Evicted() uint64 { return t.evicted }

func (t *Tracker) attempt(i int32) Attempt {
	a := &t.attempts[i]
	return Attempt{
		Lock:    int(a.key.at),
		Source:  a.key.sourceOf(),
		Step:    int(a.taken),
		Started: t.epoch.Add(a.started),
		Strayed: a.early&^a.redialled != 0,
	}
}
