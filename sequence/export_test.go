package sequence

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/knockwall/knockwall/internal/packet"
)

// The sizes from which the documentation of a Tracker follows.
const (
	SizeOfAttempt    = unsafe.Sizeof(attempt{})
	SizeOfHearing    = unsafe.Sizeof(hearing{})
	SizeOfAgain      = unsafe.Sizeof(again{})
	SizeOfFirstKnock = unsafe.Sizeof(victim{})
	SizeOfShelf      = unsafe.Sizeof(victimBucket{})
)

// Len returns how many windows are open.
func (w *Windows) Len() int { return len(w.order) }

// All returns the open windows, which are read in parts of that many records.
func (w *Windows) All(most int) (all []Window) {
	for next := 0; ; {
		next = w.Part(next, most, func(win Window) { all = append(all, win) })
		if next == 0 {
			return all
		}
	}
}

// Check reports what is wrong inside: each record is free, or in the heap and in the index.
func (w *Windows) Check() error {
	inUse := 0
	for i := range int32(w.records.used) {
		r := w.records.at(i)
		if r.place == none {
			continue
		}
		inUse++
		if w.order[r.place] != i || w.find(r.key) != i {
			return fmt.Errorf("window %d is at place %d of the heap, where %d is, and found as %d", i, r.place, w.order[r.place], w.find(r.key))
		}
		if parent := (r.place - 1) / 2; r.place > 0 && w.records.at(w.order[parent]).until > r.until {
			return fmt.Errorf("window %d ends before its parent in the heap", i)
		}
	}
	free := 0
	for i := w.records.free; i != none; i = w.records.at(i).chain {
		free++
	}
	if inUse != len(w.order) || inUse+free != w.records.used || len(w.admitted) > inUse {
		return fmt.Errorf("%d windows, %d in the heap, %d free of %d, %d with connections", inUse, len(w.order), free, w.records.used, len(w.admitted))
	}
	return nil
}

// Check reports what is wrong with the lists and chains inside a Tracker: each attempt is
// in one chain and in the list by age, and in the other list if it yields.
func (t *Tracker) Check() error {
	listed := map[int32]bool{}
	if err := t.walk(byAge, func(i int32) error {
		listed[i] = true
		return t.checkAttempt(i)
	}); err != nil {
		return err
	}
	yield := 0
	if err := t.walk(yielding, func(i int32) error {
		if !listed[i] || !t.attempts[i].yields {
			return fmt.Errorf("attempt %d yields, listed by age is %t", i, listed[i])
		}
		yield++
		return nil
	}); err != nil {
		return err
	}
	for i := range listed {
		if t.attempts[i].yields {
			yield--
		}
	}
	if yield != 0 || len(listed) != t.count {
		return fmt.Errorf("%d attempts of %d are listed, and %d too many yield", len(listed), t.count, yield)
	}
	chained := 0
	for _, i := range t.buckets {
		for ; i != none && chained <= t.count; i = t.attempts[i].chain {
			chained++
		}
	}
	free := 0
	for i := t.free; i != none && free <= int(t.used); i = t.attempts[i].chain {
		free++
	}
	if chained != t.count || free != int(t.used)-t.count {
		return fmt.Errorf("of %d used attempts %d are in use: %d are chained, %d are free", t.used, t.count, chained, free)
	}
	return nil
}

// walk calls f with each attempt of a list, the oldest first.
func (t *Tracker) walk(which int, f func(i int32) error) error {
	older, n := int32(none), 0
	for i := t.lists[which].oldest; i != none; i = t.attempts[i].links[which].newer {
		if at := t.attempts[i].links[which]; at.older != older {
			return fmt.Errorf("in list %d attempt %d comes after %d and says after %d", which, i, older, at.older)
		}
		if n++; n > t.count {
			return fmt.Errorf("more than %d attempts are in list %d", t.count, which)
		}
		if err := f(i); err != nil {
			return err
		}
		older = i
	}
	if older != t.lists[which].newest {
		return fmt.Errorf("the newest of list %d is %d, and not %d", which, older, t.lists[which].newest)
	}
	return nil
}

func (t *Tracker) checkAttempt(i int32) error {
	a := &t.attempts[i]
	if found := t.find(a.key, t.hash(a.key)); found != i {
		return fmt.Errorf("attempt %d is found as %d", i, found)
	}
	if t.victimWith(a.hash) != nil {
		return fmt.Errorf("attempt %d is also remembered as a victim", i)
	}
	steps := len(t.locks[a.key.at].Steps)
	if int(a.taken) > steps || a.again>>steps != 0 || int(a.swapped) > steps*steps/4 {
		return fmt.Errorf("attempt %d has taken %d steps of %d, %d pairs swapped, dialled again %b", i, a.taken, steps, a.swapped, a.again)
	}
	if a.early>>steps != 0 || a.early&(1<<(a.taken+1)-1) != 0 || a.maybe && (int(a.taken)+1 == steps || a.early>>(a.taken+1)&1 != 0) {
		return fmt.Errorf("attempt %d has taken %d steps of %d, early are %b, maybe the one after the next: %t", i, a.taken, steps, a.early, a.maybe)
	}
	if yields := a.taken < 2 || int(a.taken) == steps; yields != a.yields {
		return fmt.Errorf("attempt %d has taken %d steps of %d, and yields: %t", i, a.taken, steps, a.yields)
	}
	return nil
}

// ShelvesOf returns the two buckets for the victim of a source at a lock.
func (t *Tracker) ShelvesOf(lock int, source packet.Source) [2]int {
	one, other := victimBucketsOf(t.hash(keyOf(lock, source)), victimBucketsFor(len(t.attempts)))
	return [2]int{one, other}
}

// Displaced returns how many places for victims there are, and how many are taken.
func (t *Tracker) Displaced() (places, taken int) {
	for _, s := range t.victims {
		for _, f := range s {
			if f.stamp != 0 {
				taken++
			}
		}
	}
	return len(t.victims) * len(victimBucket{}), taken
}

// ShelvesFor is victimBucketsFor.
var ShelvesFor = victimBucketsFor

// RoundTrip reports what of a first knock changes when it becomes a victim.
func RoundTrip(started time.Duration, first, again packet.Packet) error {
	f := victimOf(1<<32-1, started, fingerprintOf(first), fingerprintOf(again))
	gotFirst, gotAgain := f.fingerprints()
	if f.started() != started || gotFirst != fingerprintOf(first) || gotAgain != fingerprintOf(again) {
		return fmt.Errorf("%v, %x, %x, want %v, %x, %x", f.started(), gotFirst, gotAgain, started, fingerprintOf(first), fingerprintOf(again))
	}
	return nil
}
