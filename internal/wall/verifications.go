package wall

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
)

// The limits of verifications. One takes about 130 microseconds, so that the total rate is
// a quarter of a CPU. A client needs one, or one for each of its doors, and may have many
// neighbours in its network.
const (
	maxVerifications     = 256  // that wait
	verificationsRate    = 2000 // a second
	verificationsBurst   = 2000
	verificationPrefixV6 = 64 // what belongs to one source: one subscriber has that many addresses
)

// share returns how much of the room, in the queue and in the total rate, a source may find
// taken before it is refused. One that has sent few datagrams lately may use all of it. So
// sources that send many leave room for all others.
func share(lately float32) float32 {
	switch {
	case lately < 1:
		return 1
	case lately < 4:
		return 0.5
	}
	return 0.25
}

// verifications verifies datagrams that take long to verify, in a goroutine of its own, so
// that the log is read meanwhile. It allocates nothing for a datagram. Those beyond its
// limits are dropped.
//
// The goroutine begins with the first datagram and stays until the wall ends. Arithmetic on
// curves needs a deep stack, which would grow step by step in a new goroutine: that takes a
// fifth of the time of a verification.
type verifications struct {
	packets *packets

	// mu may be taken with the mu of packets held.
	mu      sync.Mutex
	jobs    []verification // a ring; nil before the first job
	first   int            // index of the next job in it
	waiting int            // jobs in it, with the one under way
	done    uint64         // jobs so far
	running bool           // the goroutine has something to do
	more    chan struct{}  // wakes the goroutine when it has; nil: there is none yet, or no more
	tokens  float32        // of the total rate
	filled  time.Time
	sources *senders
}

// verification is a datagram to be verified.
type verification struct {
	sockets knocks
	policy  *policy
	check   method.SlowVerifier
	door    int
	base    audit.Event
	source  netip.Addr
	size    int
	data    [packet.MaxPayload]byte
}

// senders counts what each source has sent lately. It is a count-min sketch: a source has
// a counter in each row, by a hash, and its count is the least of them. So a source that
// sends few has little chance to be taken for one that sends many.
type senders struct {
	seed  maphash.Seed
	since time.Time
	rows  [4][1 << senderBits]sender
}

const (
	senderBits = 13
	maxLately  = 8 // up to how many datagrams are counted
)

// sender is a counter that loses one each second.
type sender struct {
	lately float32
	at     uint32 // milliseconds, which may overflow
}

// add counts a datagram, and returns how many the source had sent lately.
func (ss *senders) add(source netip.Addr, now time.Time) float32 {
	a := source.As16()
	if source.Is6() {
		clear(a[verificationPrefixV6/8:])
	}
	hash := maphash.Bytes(ss.seed, a[:])
	ms := uint32(now.Sub(ss.since).Milliseconds())
	least := float32(maxLately)
	for i := range ss.rows {
		c := &ss.rows[i][hash>>(i*senderBits)%(1<<senderBits)]
		passed := max(0, int32(ms-c.at))
		c.lately = max(0, c.lately-float32(passed)/1000)
		least = min(least, c.lately)
		c.lately, c.at = min(maxLately, c.lately+1), ms
	}
	return least
}

func newVerifications(ps *packets) *verifications {
	return &verifications{packets: ps}
}

// add adds a datagram for a door, unless a limit is reached. It is called with the mu of
// packets held.
func (vs *verifications) add(s knocks, f *policy, check method.SlowVerifier, v *decision, source netip.Addr, data []byte) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	now := v.base.Time
	if vs.jobs == nil { // most walls never need them
		vs.jobs, vs.sources = make([]verification, maxVerifications), &senders{seed: maphash.MakeSeed(), since: now}
		vs.tokens, vs.filled = verificationsBurst, now
	}
	if since := now.Sub(vs.filled); since > 0 {
		vs.tokens = min(verificationsBurst, vs.tokens+verificationsRate*float32(since.Seconds()))
	}
	vs.filled = now
	room := share(vs.sources.add(source, now))
	if float32(vs.waiting) >= room*maxVerifications || vs.tokens < (1-room)*verificationsBurst+1 {
		if room == 1 {
			vs.packets.losses.add(1) // else this source alone misses it
		}
		return
	}
	vs.tokens--
	j := &vs.jobs[(vs.first+vs.waiting)%maxVerifications]
	j.sockets, j.policy, j.check, j.door, j.base, j.source = s, f, check, v.door, v.base, source
	j.size = copy(j.data[:], data)
	vs.waiting++
	if vs.running {
		return
	}
	vs.running = true
	if vs.more == nil {
		vs.more = make(chan struct{}, 1) // add sends once for each time that running becomes true
		go vs.run(vs.more)
	}
	vs.more <- struct{}{}
}

// run verifies datagrams until it is told that there will be no more.
func (vs *verifications) run(more chan struct{}) {
	for range more {
		for j := vs.next(); j != nil; j = vs.next() {
			vs.verify(j)
		}
	}
}

// next returns the first job, which stays as it is until it is removed. If there is none, the
// goroutine has nothing to do.
func (vs *verifications) next() *verification {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.running = vs.waiting > 0; !vs.running {
		return nil
	}
	return &vs.jobs[vs.first]
}

// verify verifies a datagram, and removes the job. Then it does what the datagram asks for.
func (vs *verifications) verify(j *verification) {
	meant := j.check.Verify(j.data[:j.size], j.source, j.base.Time)
	s, f, v := j.sockets, j.policy, decision{door: j.door, base: j.base}
	ps := vs.packets
	ps.mu.Lock()
	f.judge(&v, meant)
	if v.opens {
		ps.windows.queue.complete()
	}
	vs.remove()
	ps.mu.Unlock()
	s.carryOut(f, &v)
	if v.n > 0 {
		ps.wake() // refusals may have waited for this
	}
}

// remove removes the first job. It is called with the mu of packets held, so that whoever
// holds it sees a datagram in this queue or in that of the windows until it has its effect.
func (vs *verifications) remove() {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	j := &vs.jobs[vs.first]
	j.sockets, j.policy, j.check = knocks{}, nil, nil // for the garbage collector
	vs.first = (vs.first + 1) % maxVerifications
	vs.waiting--
	vs.done++
	if vs.waiting == 0 {
		vs.first = 0 // what was used last is still in the CPU's cache
	}
}

// waitSince reports whether a datagram waits that arrived before a time.
func (vs *verifications) waitSince(t time.Time) bool {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	return vs.waiting > 0 && vs.jobs[vs.first].base.Time.Before(t)
}

// progress returns what the watchdog compares.
func (vs *verifications) progress() progress.Progress {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	return progress.Progress{Done: vs.done, Idle: vs.waiting == 0}
}

// finish waits until the datagrams that wait now have had their effect, but not for ever, and
// ends the goroutine. If another datagram comes after it, another goroutine begins.
func (vs *verifications) finish() {
	for end := time.Now().Add(retireTimeout); vs.isRunning() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.more != nil && !vs.running {
		close(vs.more)
		vs.more = nil
	}
}

func (vs *verifications) isRunning() bool {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	return vs.running
}
