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
// neighbours in its network. While less than half of the total rate is in use, a source may
// use much of it. Otherwise only those may have some that have sent few: so one that sends
// many does not use up the rate of all others.
var (
	totalRate  = rate{2000, 2000}
	sourceRate = rate{100, 400}
	fewRate    = rate{2, 20}
)

const (
	maxVerifications     = 256     // that wait
	verificationSources  = 1 << 14 // sources that are told apart, by a hash
	verificationPrefixV6 = 64      // what belongs to one source: one subscriber has that many addresses
)

// rate is the rate of a token bucket.
type rate struct{ perSecond, burst float32 }

// verifications verifies datagrams that take long to verify, in a goroutine of its own, so
// that the log is read meanwhile. It allocates nothing for a datagram. Those beyond its
// limits are dropped.
type verifications struct {
	packets *packets
	seed    maphash.Seed

	// mu may be taken with the mu of packets held.
	mu      sync.Mutex
	jobs    []verification // a ring; nil before the first job
	first   int            // index of the next job in it
	waiting int            // jobs in it, with the one under way
	done    uint64         // jobs so far
	running bool           // the goroutine runs
	all     bucket
	bySlot  []slot // by the hash of a source
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

// bucket is a token bucket.
type bucket struct {
	tokens float32
	filled int64 // Unix time in nanoseconds; 0: full
}

// slot has what a source has used lately.
type slot struct{ all, few bucket }

// take takes a token from a bucket.
func (b *bucket) take(now time.Time, r rate) bool {
	at := now.UnixNano()
	if b.filled == 0 {
		b.tokens = r.burst
	} else if since := at - b.filled; since > 0 {
		b.tokens = min(r.burst, b.tokens+r.perSecond*float32(time.Duration(since).Seconds()))
	}
	b.filled = at
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func newVerifications(ps *packets) *verifications {
	return &verifications{packets: ps, seed: maphash.MakeSeed()}
}

// add adds a datagram for a door, unless a limit is reached. It is called with the mu of
// packets held.
func (vs *verifications) add(s knocks, f *policy, check method.SlowVerifier, v *decision, source netip.Addr, data []byte) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.jobs == nil { // most walls never need them
		vs.jobs, vs.bySlot = make([]verification, maxVerifications), make([]slot, verificationSources)
	}
	now := v.base.Time
	of := vs.slotOf(source)
	few := of.few.take(now, fewRate)
	scarce := vs.waiting > maxVerifications/2 || vs.all.filled != 0 && vs.all.tokens < totalRate.burst/2
	if !of.all.take(now, sourceRate) || scarce && !few {
		return // this source alone misses it
	}
	if vs.waiting == maxVerifications || !vs.all.take(now, totalRate) {
		vs.packets.losses.add(1)
		return
	}
	j := &vs.jobs[(vs.first+vs.waiting)%maxVerifications]
	j.sockets, j.policy, j.check, j.door, j.base, j.source = s, f, check, v.door, v.base, source
	j.size = copy(j.data[:], data)
	vs.waiting++
	if !vs.running {
		vs.running = true
		go vs.run()
	}
}

// slotOf returns the slot of a source. It is called with mu held.
func (vs *verifications) slotOf(source netip.Addr) *slot {
	a := source.As16()
	if source.Is6() {
		clear(a[verificationPrefixV6/8:])
	}
	return &vs.bySlot[maphash.Bytes(vs.seed, a[:])%verificationSources]
}

// run verifies datagrams until none waits.
func (vs *verifications) run() {
	for {
		vs.mu.Lock()
		if vs.waiting == 0 {
			vs.running = false
			vs.mu.Unlock()
			return
		}
		j := &vs.jobs[vs.first] // stays as it is until the job is removed
		vs.mu.Unlock()
		vs.verify(j)
	}
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
	vs.jobs[vs.first].policy = nil // for the garbage collector
	vs.first = (vs.first + 1) % maxVerifications
	vs.waiting--
	vs.done++
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

// finish waits until the datagrams that wait now have had their effect, but not for ever.
func (vs *verifications) finish() {
	for end := time.Now().Add(retireTimeout); vs.isRunning() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func (vs *verifications) isRunning() bool {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	return vs.running
}
