package sequence

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// The limits of what a Tracker follows. MaxSteps is knockd's own limit; a
// step of an attempt is a bit of a word here.
const (
	MaxSteps   = 32
	MaxTimeout = time.Hour
)

// Lock is a sequence that opens or closes a door. A door may have several, which
// have nothing to do with each other.
type Lock struct {
	Steps   []packet.Port // the knocks, in order: up to MaxSteps of them; none: nothing undoes it
	Timeout time.Duration // first knock to last, up to MaxTimeout
	Prefix  packet.SourcePrefix
	Room    int // for how many steps there is room at least, where others may replace them
	// Strict: only neighbours may be swapped, as where the same knocks in another order
	// mean something else.
	Strict bool
}

// Progress says what a knock did to its source's attempt at a lock.
type Progress uint8

const (
	// Nothing: a retransmission, a re-dialled step, a knock that no attempt begins
	// with, or no knock of the lock.
	Nothing Progress = iota
	// Early: a later knock than the one that is due, which counts if what is missing
	// follows at once.
	Early
	// Advanced: the next step is taken.
	Advanced
	// Completed: the last step is taken, the lock is undone.
	Completed
)

// Reason says why an attempt is over before it was complete.
type Reason uint8

const (
	NotEnded Reason = iota
	// WrongOrder: a knock came that two streams do not bring, or what was missing before
	// an early one did not follow.
	WrongOrder
	// TooLate: the sequence was not complete in time.
	TooLate
)

func (r Reason) String() string {
	switch r {
	case WrongOrder:
		return "wrong order"
	case TooLate:
		return "too late"
	}
	return ""
}

// Outcome is what one knock led to.
type Outcome struct {
	Progress Progress
	Step     int    // steps taken by now
	Ended    Reason // of the attempt that this knock ended, or found ended, or could not begin
	EndedAt  int    // steps that attempt had taken
}

// Attempt is one source's way through one lock's sequence.
type Attempt struct {
	Lock    int
	Source  packet.Source
	Step    int // steps taken
	Started time.Time
	Strayed bool // a knock after the one that is due has come, and that one has not
	Doubted bool // see [Tracker.Doubt]
}

// Reason says why the attempt is over when its time is up.
func (a Attempt) Reason() Reason {
	if a.Strayed {
		return WrongOrder
	}
	return TooLate
}

// Tracker follows the attempts of all sources at all locks.
//
// Knocks that were sent one after the other may overtake each other on their way, as
// several processors receive. They are heard in the order of two streams, as two CPUs
// receive: each is in order, and how they are merged is open. So a later knock than the
// one that is due is early, and counts, if it is later in the sequence than all that
// were early before it, and if what is missing follows soon. Three knocks are heard in
// all orders but 321, as [Orders] counts them. Any other knock is a wrong one at once,
// as more orders would make a sequence easier to guess.
//
// Where a port comes more than once, a knock at it is the step that is due, or else the
// one just taken, dialled again, or else the next at which it may be early.
//
// A packet that was heard before, for a step that was taken or is early, is nothing.
// Of each step the packet that it was taken with is known, and the latest three with
// which it was dialled again, by [fingerprint].
//
// When it is full, an attempt gives way to the next one: of those that have taken
// no step, or a single one, or all of them, the one that has been so for longest.
// Those that have taken two steps or more, and are not complete, give way only when
// there is none of the former, the oldest first.
//
// Of an attempt that gives way after a single step so much is remembered that it
// goes on when its source knocks again, as if nothing had been; only what it has
// heard early is forgotten, and when it was dialled again more than once, all but the
// latest. So a flood of first knocks from forged addresses does not
// end the attempts of others. There is room for 16 of these for each attempt that
// can be followed, and for a million at most.
//
// Its memory is fixed when it is made, and touched as it fills: up to 80 bytes, and
// 20 more for each step of the longest sequence, an attempt. What is remembered of
// those that gave way takes 256 bytes an attempt more (and up to twice that if
// their number is not a power of two), but 16 MiB at most, in one piece that is there
// from when the first gives way. For 65,536 attempts at sequences of up to 5 knocks that is 12 MiB,
// of which 4 MiB are touched only as steps are dialled again, and then 16 MiB more.
type Tracker struct {
	locks    []Lock
	replaced []uint32 // how often each lock was
	reorder  time.Duration
	epoch    time.Time
	seed     maphash.Seed

	attempts []attempt
	heard    []hearing // for the first step of each attempt, then for the second of each, and so on
	again    []again   // likewise
	buckets  []int32   // heads of the chains of attempts, by hash of their key
	lists    [2]ends
	free     int32 // head of the chain of unused attempts that were used before
	used     int32 // attempts that were ever used
	count    int
	evicted  uint64

	victims []victimBucket // first knocks whose attempts gave way; nil until one does
}

// none ends every chain of attempts.
const none = -1

// attempt refers to others by index and not by pointer, so that the garbage
// collector has nothing to follow in a hundred thousand of them.
type attempt struct {
	key    key
	taken  uint8
	yields bool // it is on the list of those that give way first
	// maybe: so it seems, the step after the one that is due was heard, but it may also
	// be no more than the step just taken, dialled again; after the last step, the second
	// of a new attempt, or the last again.
	maybe   bool
	doubted bool   // see Doubt
	again   uint32 // steps that were dialled again: bit i is step i
	chain   int32  // next of the same bucket, or next free
	started time.Duration
	hash    uint64 // of the key
	links   [2]links
	early   uint32 // steps after the one that is due that were heard for certain: bit i is step i
	swapped uint16 // pairs of steps taken, or one taken and one early, of which the later was heard first
}

// latest returns the early step that was heard last, which is the latest of them, or a
// negative number if there is none.
func (a *attempt) latest() int { return bits.Len32(a.early) - 1 }

// key tells attempts apart, and windows: the source's address, masked, and at which
// lock or door.
type key struct {
	source [16]byte
	bits   uint8
	is4    bool
	at     uint16
}

// hearing is a knock that was heard for a step: enough to know it again.
type hearing struct {
	packet fingerprint
	at     uint32 // in microseconds since the attempt started
}

// NewTracker makes a Tracker for locks, which later calls name by their index.
// Knocks may overtake others by up to reorder. At most maxAttempts are
// followed at once; epoch is any time not after the first knock.
func NewTracker(locks []Lock, reorder time.Duration, maxAttempts int, epoch time.Time) *Tracker {
	steps := 1
	for _, l := range locks {
		steps = max(steps, len(l.Steps), l.Room)
	}
	t := &Tracker{
		locks:    slices.Clone(locks),
		replaced: make([]uint32, len(locks)),
		reorder:  reorder,
		epoch:    epoch,
		seed:     maphash.MakeSeed(),
		attempts: make([]attempt, maxAttempts),
		heard:    make([]hearing, maxAttempts*steps),
		again:    make([]again, maxAttempts*steps),
		buckets:  make([]int32, 1<<bits.Len(uint(maxAttempts))),
		lists:    [2]ends{{none, none}, {none, none}},
		free:     none,
	}
	for i := range t.buckets {
		t.buckets[i] = none
	}
	return t
}

// Knock takes note of a knock at a lock.
func (t *Tracker) Knock(lock int, p packet.Packet, now time.Time) Outcome {
	l := &t.locks[lock]
	at := now.Sub(t.epoch)
	k := keyOf(lock, l.Prefix.Of(p.Source))
	hash := t.hash(k)
	i := t.find(k, hash)
	if i == none {
		i = t.restoreVictim(k, hash, at)
	}

	var out Outcome
	if i != none {
		i, out.Ended, out.EndedAt = t.lapse(i, at)
	}
	if i == none {
		return t.begin(k, hash, p, at, out)
	}

	a := &t.attempts[i]
	out.Step = int(a.taken)
	packet := fingerprintOf(p)
	for s, step := range l.Steps {
		if step == p.Port && t.isHeard(i, s) && t.knows(i, s, packet) {
			return out // the same packet again
		}
	}
	steps, taken := len(l.Steps), int(a.taken)
	complete := taken == steps
	switch {
	case !complete && l.Steps[taken] == p.Port:
		t.hear(i, taken, packet, at)
		a.swapped += uint16(bits.OnesCount32(a.early))
		a.taken++
		if a.maybe {
			a.swapped++
			a.taken++
			a.maybe = false
		}
		for a.early>>a.taken&1 != 0 {
			a.early &^= 1 << a.taken
			a.taken++
		}
		a.doubted = false
		t.rank(i)
		out.Step = int(a.taken)
		out.Progress = Advanced
		if int(a.taken) == steps {
			out.Progress = Completed
		}
		return out
	case taken > 0 && l.Steps[taken-1] == p.Port && !(complete && l.Steps[0] == p.Port):
		t.redial(i, packet, at)
		return out
	case !complete && !a.doubted:
		after := max(a.latest(), taken) + 1
		if n := slices.Index(l.Steps[after:], p.Port); n >= 0 && (!l.Strict || a.early == 0 && n == 0) {
			t.hear(i, after+n, packet, at)
			a.early |= 1 << (after + n)
			out.Progress = Early
			return out
		}
		out.Ended, out.EndedAt = WrongOrder, taken
	case complete && a.maybe && l.Steps[0] == p.Port && at-a.started-t.hearing(i, steps-1).since() <= t.reorder:
		// What was heard after the last step was the second of a new attempt, and has
		// overtaken this one.
		t.beginAnew(i, steps-1, 1)
		a.taken, a.early = 0, 1<<1
		return t.Knock(lock, p, now)
	}

	if t.beginAgain(i) {
		// Wrong was the knock before already, and it was a first one.
		ended := out
		out = t.Knock(lock, p, now)
		if ended.Ended != NotEnded {
			out.Ended, out.EndedAt = ended.Ended, ended.EndedAt
		}
		return out
	}
	t.remove(i)
	return t.begin(k, hash, p, at, out)
}

// begin starts an attempt with a knock: its first step, or a later one that has
// overtaken it. With what is no knock of the lock none begins.
func (t *Tracker) begin(k key, hash uint64, p packet.Packet, at time.Duration, out Outcome) Outcome {
	out.Step = 0
	steps := t.locks[k.at].Steps
	step := slices.Index(steps, p.Port)
	if step < 0 {
		return out
	}
	if t.locks[k.at].Strict && step > 1 {
		if out.Ended == NotEnded {
			out.Ended = WrongOrder
		}
		return out
	}
	i := t.add(k, hash, at)
	t.hear(i, step, fingerprintOf(p), at)
	a := &t.attempts[i]
	if step > 0 {
		a.early = 1 << step
		out.Progress = Early
		return out
	}
	a.taken = 1
	out.Step, out.Progress = 1, Advanced
	if len(steps) == 1 {
		out.Progress = Completed
	}
	return out
}

// redial takes note of the step just taken, from a new connection. It is nothing, but
// for three cases. The time of the first step begins anew: who dials it again may have
// begun again. Where the same port comes once more after the step that is due, it may
// also be that one, overtaking another, if none was early before it. And after the last step it may be the second of
// a new attempt, likewise.
func (t *Tracker) redial(i int32, packet fingerprint, at time.Duration) {
	a := &t.attempts[i]
	steps := t.locks[a.key.at].Steps
	taken := int(a.taken)
	last := taken - 1
	if taken == len(steps) && last > 0 && steps[1] == steps[last] {
		// The newest stands in the place of the one before, as it matters when it came.
		before := t.hearing(i, last).packet
		t.hear(i, last, packet, at)
		t.note(i, last, before)
		a.maybe = true
		return
	}
	t.note(i, last, packet)
	if taken == 1 && a.early == 0 && len(steps) > 1 {
		a.started = at
		a.doubted = false
		t.renew(i)
	}
	if a.early == 0 && taken+1 < len(steps) && steps[taken+1] == steps[last] {
		t.hear(i, taken+1, packet, at)
		a.maybe = true
	}
}

// beginAnew makes of an attempt the one that began with what was heard for a step of
// it, which is another step of the new one.
func (t *Tracker) beginAnew(i int32, step, is int) {
	a := &t.attempts[i]
	first := t.hearing(i, is)
	*first = *t.hearing(i, step)
	a.started += first.since()
	first.at = 0
	*t.dialled(i, is) = *t.dialled(i, step)
	a.again = a.again >> step & 1 << is
	a.taken, a.maybe, a.early, a.swapped, a.doubted = 1, false, 0, 0, false
	t.renew(i)
}

// beginAgain makes of an attempt that is over the one that began with its last knock,
// if that was early and is a first one, and reports whether it was.
func (t *Tracker) beginAgain(i int32) bool {
	a := &t.attempts[i]
	steps, latest := t.locks[a.key.at].Steps, a.latest()
	if latest < 0 || steps[latest] != steps[0] {
		return false
	}
	t.beginAnew(i, latest, 0)
	return true
}

// lapse applies to an attempt what time has done to it, and says how it ended,
// if it did. A knock that came early and was not caught up with in time was a
// wrong one; with the latest of those that were early a new attempt may have begun.
// What is left is returned first, or none.
func (t *Tracker) lapse(i int32, at time.Duration) (left int32, ended Reason, endedAt int) {
	a := &t.attempts[i]
	l := &t.locks[a.key.at]
	taken := int(a.taken)
	silent := a.doubted || taken == len(l.Steps)
	if at-a.started > l.Timeout {
		reason := t.attempt(i).Reason()
		t.remove(i)
		if silent {
			return none, NotEnded, 0
		}
		return none, reason, taken
	}
	late := func(step int) bool { return at-a.started-t.hearing(i, step).since() > t.reorder }
	if a.maybe && taken < len(l.Steps) && late(taken+1) {
		a.maybe = false
	}
	// The earliest of the early steps is the one that was heard first.
	if a.early == 0 || !late(bits.TrailingZeros32(a.early)) {
		return i, NotEnded, 0
	}
	left, ended, endedAt = i, WrongOrder, taken
	if silent {
		ended, endedAt = NotEnded, 0
	}
	if !t.beginAgain(i) {
		t.remove(i)
		left = none
	}
	return left, ended, endedAt
}

// Expire forgets the attempts whose time is up, oldest first, and hands those
// that were neither complete nor doubted to ended. It stops at the first that is still alive: one
// that went on after it gave way is as new as that, and may be ended later than its
// time is up. What gave way and did not go on is not handed over.
func (t *Tracker) Expire(now time.Time, ended func(Attempt)) {
	at := now.Sub(t.epoch)
	for t.lists[byAge].oldest != none {
		i := t.lists[byAge].oldest
		a := &t.attempts[i]
		l := &t.locks[a.key.at]
		if at-a.started <= l.Timeout {
			return
		}
		if int(a.taken) < len(l.Steps) && !a.doubted {
			ended(t.attempt(i))
		}
		t.remove(i)
	}
}

// hear notes the knock that was heard for a step.
func (t *Tracker) hear(i int32, step int, packet fingerprint, at time.Duration) {
	*t.hearing(i, step) = hearing{packet, since(t.attempts[i].started, at)}
}

// hearing returns what was heard for a step. The hearings of many attempts for one
// step are next to each other, so that a flood of first knocks touches no others.
func (t *Tracker) hearing(i int32, step int) *hearing {
	return &t.heard[step*len(t.attempts)+int(i)]
}

// isHeard reports whether a knock was heard for a step.
func (t *Tracker) isHeard(i int32, step int) bool {
	a := &t.attempts[i]
	return step < int(a.taken) || a.early>>step&1 != 0 || a.maybe && step == int(a.taken)+1
}

// since returns how much later a time is than another, as a hearing has it.
func since(started, at time.Duration) uint32 { return uint32((at - started) / time.Microsecond) }

func (h *hearing) since() time.Duration { return time.Duration(h.at) * time.Microsecond }
