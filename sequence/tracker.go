package sequence

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// The limits of a [Lock]. MaxSteps is the limit of knockd, too; a Tracker keeps one bit
// of a 32-bit word for each step. [NewTracker] does not check them.
const (
	MaxSteps   = 32
	MaxTimeout = time.Hour
)

// Lock is a sequence that opens or closes a door. A door may have several locks, which
// are independent of each other.
type Lock struct {
	Steps   []packet.Port       // the knocks, in order, at most MaxSteps; a lock without steps is never completed
	Timeout time.Duration       // from the first knock to the last, at most MaxTimeout
	Prefix  packet.SourcePrefix // how many leading bits of an address tell sources apart
	Room    int                 // the most steps that [Tracker.Replace] may give the lock, if more than len(Steps)
	// Strict allows only neighbours to be swapped. Set it where the same knocks in
	// another order mean something else.
	Strict bool
}

// Progress says what a knock did to its source's attempt at a lock.
type Progress uint8

const (
	// Nothing: the knock is a retransmission or a redialled step, or begins no attempt,
	// or is no knock of the lock.
	Nothing Progress = iota
	// Early: the knock is later in the sequence than the step that is due. It counts if
	// the missing knocks follow in time.
	Early
	// Advanced: the next step is taken.
	Advanced
	// Completed: the last step is taken. The sequence is complete.
	Completed
)

// Reason says why an attempt ended before it was complete.
type Reason uint8

const (
	NotEnded Reason = iota
	// WrongOrder: a knock came that two streams cannot bring in this order, or the knocks
	// missing before an early one did not follow in time.
	WrongOrder
	// TooLate: the sequence was not complete within the lock's timeout.
	TooLate
)

// String returns "wrong order" or "too late", and "" for NotEnded.
func (r Reason) String() string {
	switch r {
	case WrongOrder:
		return "wrong order"
	case TooLate:
		return "too late"
	}
	return ""
}

// Outcome is the result of one knock.
type Outcome struct {
	Progress Progress
	Step     int    // steps taken so far
	Ended    Reason // why an attempt ended: by this knock, or before it, or because this knock could not begin it
	EndedAt  int    // how many steps the ended attempt had taken
}

// Attempt is the progress of one source through one lock's sequence.
type Attempt struct {
	Lock    int // index of the lock
	Source  packet.Source
	Step    int // steps taken
	Started time.Time
	Strayed bool // a later knock than the one that is due has come, and that one has not
	Doubted bool // see [Tracker.Doubt]
}

// Reason returns why the attempt ends when its time is up: WrongOrder if a later knock
// came before the one that was due, TooLate otherwise.
func (a Attempt) Reason() Reason {
	if a.Strayed {
		return WrongOrder
	}
	return TooLate
}

// Tracker follows the attempts of all sources at all locks.
//
// Knocks that a client sends one after the other may overtake each other, because several
// CPUs receive them. A Tracker accepts them in any order that two CPUs can produce: two
// streams, each in order, merged in any way. So a later knock than the one that is due is
// early. It counts if it is later in the sequence than all that were early before it, and
// if the missing knocks follow within the reorder time. Three knocks are accepted in all
// orders but 321; see [Orders] for the numbers. Any other knock is wrong at once, because
// more orders would make a sequence easier to guess.
//
// If a port comes more than once in a sequence, a knock at it counts as the step that is
// due; or else as the step just taken, dialled again; or else as the next step at which
// it may be early.
//
// A packet that was heard before, for a step that is taken or early, changes nothing. For
// each step the Tracker remembers the packet that took it and the
// latest three packets that dialled it again.
//
// When the Tracker is full, a new attempt evicts an old one. Attempts that have taken no
// step, a single step or all steps go first, the one that has been so for longest before
// the others. Attempts that have taken two steps or more, and are not complete, go only
// if there are none of the former, the oldest first.
//
// An attempt that is evicted after a single step is remembered as a victim. It goes on
// when its source knocks again, as if nothing had happened, with two exceptions: early
// knocks are forgotten, and of several redials only the latest is kept. So a flood of
// first knocks from forged addresses does not end the attempts of others. There is room
// for 16 victims for each attempt that can be followed, and for 2^20 at most.
//
// The memory of a Tracker is fixed when it is made, and touched as it fills. Each attempt
// takes up to 80 bytes, and 20 more for each step of the longest sequence. The victims
// take 256 bytes more for each attempt (up to twice that if the number of attempts is not
// a power of two), but at most 16 MiB, in one piece that is allocated when the first
// attempt is evicted. For 65,536 attempts at sequences of up to 5 knocks that is 12 MiB,
// of which 4 MiB are touched only as steps are dialled again, and then 16 MiB for the
// victims.
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

	victims []victimBucket // first knocks of evicted attempts; nil until one is evicted
}

// none marks the end of a chain or list of attempts.
const none = -1

// attempt refers to other attempts by index and not by pointer, so that the garbage
// collector has no pointers to follow in a hundred thousand of them.
type attempt struct {
	key    key
	taken  uint8
	yields bool // it is on the list of attempts that are evicted first
	// maybe: the step after the one that is due seems to be heard, but the packet may
	// also be a redial of the step just taken. In a complete attempt: the packet may be
	// the second step of a new attempt, or a redial of the last one.
	maybe   bool
	doubted bool   // see [Tracker.Doubt]
	again   uint32 // steps that were dialled again: bit i stands for step i
	chain   int32  // next attempt of the same bucket, or next free one
	started time.Duration
	hash    uint64 // of the key
	links   [2]links
	early   uint32 // later steps than the one that is due that were heard for certain: bit i stands for step i
	swapped uint16 // pairs of steps, both taken or one of them early, of which the later was heard first
}

// latest returns the early step that was heard last, which is also the highest, or a
// negative number if there is none.
func (a *attempt) latest() int { return bits.Len32(a.early) - 1 }

// key identifies an attempt or a window: the masked source address, and the index of the
// lock or door.
type key struct {
	source [16]byte
	bits   uint8
	is4    bool
	at     uint16
}

// hearing is a knock that was heard for a step: enough to recognize its packet.
type hearing struct {
	packet fingerprint
	at     uint32 // in microseconds since the attempt started
}

// NewTracker returns a Tracker for locks. Later calls name a lock by its index, from 0
// on; there may be 65,536 locks at most. A knock may overtake others by up to reorder. At
// most maxAttempts attempts, 1 or more, are followed at once. The epoch is any time not
// after the first knock.
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

// Knock records a knock at a lock, and returns what it led to. A packet whose port is no
// step of the lock counts as a wrong knock: it ends the attempt of its source.
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
			return out // a retransmission
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
		// The packet heard after the last step was the second step of a new attempt, and
		// has overtaken this one, its first.
		t.beginAnew(i, steps-1, 1)
		a.taken, a.early = 0, 1<<1
		return t.Knock(lock, p, now)
	}

	if t.beginAgain(i) {
		// The early knock before this one was already wrong, and is a first step.
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

// begin starts an attempt with a knock: its first step, or a later one that has overtaken
// the first. A packet that is no knock of the lock starts none.
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

// redial records that the step just taken was dialled again, from a new connection. That
// changes nothing, with three exceptions. After a redial of the first step the attempt's
// time starts again, because the client may have begun again. If the port comes once more
// right after the step that is due, and no knock was early before, the packet may be that
// later step, overtaking another. After the last step it may likewise be the second step
// of a new attempt.
func (t *Tracker) redial(i int32, packet fingerprint, at time.Duration) {
	a := &t.attempts[i]
	steps := t.locks[a.key.at].Steps
	taken := int(a.taken)
	last := taken - 1
	if taken == len(steps) && last > 0 && steps[1] == steps[last] {
		// The newest packet takes the place of the one before, because its time matters.
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

// beginAnew turns an attempt into the one that began with the packet heard for the step
// named step. That packet becomes the step named is of the new attempt.
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

// beginAgain turns an attempt that is over into the one that began with its last knock,
// if that was early and is also a first step. It reports whether it was.
func (t *Tracker) beginAgain(i int32) bool {
	a := &t.attempts[i]
	steps, latest := t.locks[a.key.at].Steps, a.latest()
	if latest < 0 || steps[latest] != steps[0] {
		return false
	}
	t.beginAnew(i, latest, 0)
	return true
}

// lapse applies the passing of time to an attempt, and returns why it ended, if it did.
// An early knock whose missing predecessors did not come in time was a wrong one. The
// latest early knock may have begun a new attempt. The first result is the attempt that
// is left, or none.
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
	// The lowest of the early steps is the one that was heard first.
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

// Expire forgets the attempts whose time is up, the oldest first. It calls ended with
// each of them that was neither complete nor doubted. It stops at the first that is still
// alive. An attempt that went on after it was evicted counts as new from then, so that it
// may expire later than its time is up. Victims that did not go on are not passed to
// ended.
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

// hear records the knock that was heard for a step.
func (t *Tracker) hear(i int32, step int, packet fingerprint, at time.Duration) {
	*t.hearing(i, step) = hearing{packet, since(t.attempts[i].started, at)}
}

// hearing returns what was heard for a step. The hearings of one step lie next to each
// other for many attempts, so that a flood of first knocks touches no others.
func (t *Tracker) hearing(i int32, step int) *hearing {
	return &t.heard[step*len(t.attempts)+int(i)]
}

// isHeard reports whether a knock was heard for a step.
func (t *Tracker) isHeard(i int32, step int) bool {
	a := &t.attempts[i]
	return step < int(a.taken) || a.early>>step&1 != 0 || a.maybe && step == int(a.taken)+1
}

// since returns how much later at is than started, in the microseconds of a hearing.
func since(started, at time.Duration) uint32 { return uint32((at - started) / time.Microsecond) }

func (h *hearing) since() time.Duration { return time.Duration(h.at) * time.Microsecond }
