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
	MaxLocks   = 1 << 16
)

// Lock is a sequence that opens or closes a door. A door may have several, which
// have nothing to do with each other.
type Lock struct {
	Steps   []packet.Port // the knocks, in order: up to MaxSteps of them; none: nothing undoes it
	Timeout time.Duration // first knock to last, up to MaxTimeout
	Prefix  packet.SourcePrefix
	Room    int // for how many steps there is room at least, where others may replace them
}

// Progress says what a knock did to its source's attempt at a lock.
type Progress uint8

const (
	// Nothing: a retransmission, a re-dialled step, or no knock of the lock.
	Nothing Progress = iota
	// Early: a later step's knock that counts if the missing ones follow at once.
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
	// WrongOrder: another knock of the lock came than the one that was due.
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
	Ended    Reason // of the attempt that this knock ended, or found ended
	EndedAt  int    // steps that attempt had taken
}

// Attempt is one source's way through one lock's sequence.
type Attempt struct {
	Lock    int
	Source  packet.Source
	Step    int // steps taken
	Started time.Time
	Strayed bool // a later knock has come than the one that is due
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
// When it is full, an attempt gives way to the next one: of those that have taken
// no step, or a single one, or all of them, the one that has been so for longest.
// Those that have taken two steps or more, and are not complete, give way only when
// there is none of the former, the oldest first.
//
// Of an attempt that gives way after a single step so much is remembered that it
// goes on when its source knocks again, as if nothing had been; only what it has
// heard early is forgotten. So a flood of first knocks from forged addresses does not
// end the attempts of others. There is room for 16 of these for each attempt that
// can be followed, and for a million at most.
//
// Its memory is fixed when it is made, and touched as it fills: up to 80 bytes, and
// 12 more for each step of the longest sequence, an attempt. What is remembered of
// those that gave way takes 256 bytes an attempt more (and up to twice that if
// their number is not a power of two), but 16 MiB at most, in one piece that is there
// from when the first gives way. For 65,536 attempts at sequences of up to 5 knocks that is 9 MiB,
// and then 16 MiB more.
type Tracker struct {
	locks    []Lock
	replaced []uint32 // how often each lock was
	reorder  time.Duration
	epoch    time.Time
	seed     maphash.Seed

	attempts []attempt
	heard    []hearing // for the first step of each attempt, then for the second of each, and so on
	buckets  []int32   // heads of the chains of attempts, by hash of their key
	lists    [2]ends
	free     int32 // head of the chain of unused attempts that were used before
	used     int32 // attempts that were ever used
	count    int
	evicted  uint64

	displaced []shelf // first knocks whose attempts gave way; nil until one does
}

// none ends every chain of attempts.
const none = -1

// attempt refers to others by index and not by pointer, so that the garbage
// collector has nothing to follow in a hundred thousand of them.
type attempt struct {
	key       key
	taken     uint8
	yields    bool   // it is on the list of those that give way first
	hearings  uint16 // so far; it wraps
	early     uint32 // steps heard before their turn: bit i is step i
	redialled uint32 // those of early, or the last one of all, that may be no more than the step just taken again
	chain     int32  // next of the same bucket, or next free
	started   time.Duration
	hash      uint64 // of the key
	links     [2]links
}

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
	sequence uint32
	port     uint16 // that it was sent from
	order    uint16 // of the attempt's hearings
	at       uint32 // in microseconds since the attempt started
}

// NewTracker makes a Tracker for locks, which later calls name by their index.
// Knocks may overtake each other by up to reorder. At most maxAttempts are
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
		i = t.restore(k, hash, at)
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
	fits := none // the first step, not yet heard, that this knock may be
	for s, step := range l.Steps {
		known := s < int(a.taken) || a.early&(1<<s) != 0
		switch {
		case step != p.Port:
		case known && t.hearing(i, s).is(p):
			return out // the same packet again
		case !known && fits == none:
			fits = s
		}
	}
	complete := int(a.taken) == len(l.Steps)
	switch {
	case fits == int(a.taken):
		t.hear(i, fits, p, at)
		a.taken++
		for a.early&(1<<a.taken) != 0 {
			a.early &^= 1 << a.taken
			a.redialled &^= 1 << a.taken
			a.taken++
		}
		t.rank(i)
		out.Step = int(a.taken)
		out.Progress = Advanced
		if int(a.taken) == len(l.Steps) {
			out.Progress = Completed
		}
		return out
	case a.taken > 0 && l.Steps[a.taken-1] == p.Port && !(complete && l.Steps[0] == p.Port):
		// The step just taken, from a new connection. Where the same port comes
		// once more in the sequence it may also be that step, overtaking another;
		// after the last step it may be the last of a new attempt, likewise.
		switch {
		case fits != none:
			t.hear(i, fits, p, at)
			a.early |= 1 << fits
			a.redialled |= 1 << fits
		case complete:
			t.hear(i, len(l.Steps)-1, p, at)
			a.redialled = 1 << (len(l.Steps) - 1)
		}
		return out
	case fits != none:
		t.hear(i, fits, p, at)
		a.early |= 1 << fits
		out.Progress = Early
		return out
	}
	if last := t.hearing(i, len(l.Steps)-1); complete && a.redialled != 0 && at-a.started-last.since() <= t.reorder {
		// It was the last of a new attempt, and has overtaken this one.
		a.started += last.since()
		last.at = 0
		a.taken, a.early = 0, a.redialled
		t.renew(i)
		return t.Knock(lock, p, now)
	}
	if !complete {
		out.Ended, out.EndedAt = WrongOrder, int(a.taken)
	}
	t.remove(i)
	return t.begin(k, hash, p, at, out)
}

// begin starts an attempt with a knock: its first step, or a later one that
// has overtaken it.
func (t *Tracker) begin(k key, hash uint64, p packet.Packet, at time.Duration, out Outcome) Outcome {
	out.Step = 0
	steps := t.locks[k.at].Steps
	for s, step := range steps {
		if step != p.Port {
			continue
		}
		i := t.add(k, hash, at)
		t.hear(i, s, p, at)
		a := &t.attempts[i]
		if s > 0 {
			a.early = 1 << s
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
	return out
}

// lapse applies to an attempt what time has done to it, and says how it ended,
// if it did. A knock that came early and was not caught up with in time was a
// wrong one, from which a new attempt may have begun. What is left is returned
// first, or none.
func (t *Tracker) lapse(i int32, at time.Duration) (left int32, ended Reason, endedAt int) {
	a := &t.attempts[i]
	l := &t.locks[a.key.at]
	taken := int(a.taken)
	if at-a.started > l.Timeout {
		reason := t.attempt(i).Reason()
		t.remove(i)
		if taken == len(l.Steps) {
			return none, NotEnded, 0
		}
		return none, reason, taken
	}
	restart := none // the wrong knock that was also a first one
	wrong := false
	for early := a.early; early != 0; early &= early - 1 {
		s := bits.TrailingZeros32(early)
		if at-a.started-t.hearing(i, s).since() <= t.reorder {
			continue
		}
		if a.redialled&(1<<s) != 0 {
			a.early &^= 1 << s
			a.redialled &^= 1 << s
			continue
		}
		wrong = true
		if l.Steps[s] == l.Steps[0] {
			restart = s
		}
	}
	if !wrong {
		return i, NotEnded, 0
	}
	if restart == none {
		t.remove(i)
		return none, WrongOrder, taken
	}
	first := t.hearing(i, 0)
	*first = *t.hearing(i, restart)
	a.started += first.since()
	first.at = 0
	a.taken, a.early, a.redialled = 1, 0, 0
	t.renew(i)
	return i, WrongOrder, taken
}

// Expire forgets the attempts whose time is up, oldest first, and hands those
// that were not complete to ended. It stops at the first that is still alive: one
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
		if int(a.taken) < len(l.Steps) {
			ended(t.attempt(i))
		}
		t.remove(i)
	}
}

// hear notes the knock that was heard for a step.
func (t *Tracker) hear(i int32, step int, p packet.Packet, at time.Duration) {
	a := &t.attempts[i]
	a.hearings++
	*t.hearing(i, step) = hearing{
		sequence: p.Sequence,
		port:     p.SourcePort,
		order:    a.hearings,
		at:       uint32((at - a.started) / time.Microsecond),
	}
}

// hearing returns what was heard for a step. The hearings of many attempts for one
// step are next to each other, so that a flood of first knocks touches no others.
func (t *Tracker) hearing(i int32, step int) *hearing {
	return &t.heard[step*len(t.attempts)+int(i)]
}

// is reports whether a packet is the one that was heard.
func (h *hearing) is(p packet.Packet) bool { return h.sequence == p.Sequence && h.port == p.SourcePort }

func (h *hearing) since() time.Duration { return time.Duration(h.at) * time.Microsecond }
