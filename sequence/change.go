package sequence

import "github.com/knockwall/knockwall/internal/packet"

// This file keeps attempts when locks change: at a reload another [Tracker] inherits
// them, and at a new step of a rolling door the lock gets other steps.

// Inherit takes over the attempts of another Tracker at the locks that both have. lockOf
// maps an index of the former Tracker to the index of the same lock here, or to a
// negative number if there is none. If there is not room for all attempts, the oldest are
// evicted, as they are by knocks.
//
// Inherit also takes the victims away from the former Tracker, if all its locks have the
// same index here and both Trackers were made with the same maxAttempts. Otherwise the
// victims are forgotten.
//
// Call Inherit before the first knock.
func (t *Tracker) Inherit(former *Tracker, lockOf func(lock int) int) {
	t.epoch, t.seed = former.epoch, former.seed
	lock := make([]int, len(former.locks))
	same := len(t.attempts) == len(former.attempts)
	for l := range lock {
		lock[l] = lockOf(l)
		same = same && lock[l] == l
	}
	if same {
		copy(t.replaced, former.replaced)
		t.victims, former.victims = former.victims, nil
	}
	surplus := -len(t.attempts)
	for i := former.lists[byAge].oldest; i != none; i = former.attempts[i].links[byAge].newer {
		if lock[former.attempts[i].key.at] >= 0 {
			surplus++
		}
	}
	for i := former.lists[byAge].oldest; i != none; i = former.attempts[i].links[byAge].newer {
		a := former.attempts[i]
		l := lock[a.key.at]
		if l < 0 {
			continue
		}
		a.key.at = uint16(l)
		a.hash = t.hash(a.key)
		if a.yields && surplus > 0 {
			surplus--
			t.evicted++
			t.moveToVictims(&a, former, i)
			continue
		}
		n := t.adopt(a)
		for step := range t.locks[l].Steps {
			if former.isHeard(i, step) {
				*t.hearing(n, step) = *former.hearing(i, step)
			}
			if a.again&(1<<step) != 0 {
				*t.dialled(n, step) = *former.dialled(i, step)
			}
		}
	}
}

// adopt adds an attempt with the progress it has made.
func (t *Tracker) adopt(a attempt) int32 {
	i := t.add(a.key, a.hash, a.started)
	mine := &t.attempts[i]
	mine.taken, mine.maybe, mine.early = a.taken, a.maybe, a.early
	mine.again, mine.swapped, mine.doubted = a.again, a.swapped, a.doubted
	t.rank(i)
	return i
}

// Replace gives a lock other steps, and forgets all attempts and victims at it. There may
// be as many steps as the lock had when the Tracker was made, or as [Lock.Room] says.
func (t *Tracker) Replace(lock int, steps []packet.Port) {
	for i := t.lists[byAge].oldest; i != none; {
		next := t.attempts[i].links[byAge].newer
		if int(t.attempts[i].key.at) == lock {
			t.remove(i)
		}
		i = next
	}
	t.locks[lock].Steps = steps
	t.replaced[lock]++
}
