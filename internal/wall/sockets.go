package wall

import (
	"io"
	"time"

	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/sequence"
)

// sockets are the NFLOG group and the queues that a table uses. A reload with the same
// numbers keeps them, so that no packet in them is lost.
type sockets struct {
	packets *packets
	numbers nft.Numbers

	// Guarded by the mu of packets.
	log                 Log
	admitted, strangers Queue
	excess              Queue
	hold                *sequence.Hold // the packets that wait in the strangers' queue
	former              *sockets       // the sockets that these replaced; nil: none
	refuseAfter         time.Time      // no refusals before that time, because the log was not drained
	backlog             time.Time      // since when the log has not been drained after an early knock
	swept               time.Time      // when due packets of the hold were last refused
	lost                [2]uint64      // each queue's losses at the last check
	stillNamed          bool           // retired, but the rules still use the numbers
	retired             bool           // no rule uses the numbers any more
	closed              bool           // read errors are ignored
}

// The lengths of the queues. In "strangers", packets wait for a knock; it has room for
// what the rate limits of the rules let through meanwhile. In "admitted", packets wait
// only if the daemon hangs. When it is full, the kernel accepts them without the daemon.
const (
	strangersQueueLen = 16384
	admittedQueueLen  = 1024
	excessQueueLen    = 1
)

// listen binds the group and the queues that a table with these numbers will use.
func (ps *packets) listen(n nft.Numbers) (*sockets, error) {
	s := &sockets{packets: ps, numbers: n, hold: sequence.NewHold(0, strangersQueueLen)}
	// Packets come only once the table uses these numbers: nothing reads s yet.
	log, err := ps.edges.ListenLog(n.LogGroup, knocks{s})
	if err != nil {
		return nil, err
	}
	s.log = log
	mark := uint32(nft.RefusedMark)
	admit, err := ps.edges.ListenQueue(nfqueue.Config{
		Number: n.Admitted, Length: admittedQueueLen, FailOpen: true, RefusedMark: mark}, admitted{s})
	if err != nil {
		s.close()
		return nil, err
	}
	s.admitted = admit
	refuse, err := ps.edges.ListenQueue(nfqueue.Config{
		Number: n.Strangers, Length: strangersQueueLen, RefusedMark: mark}, strangers{s})
	if err != nil {
		s.close()
		return nil, err
	}
	s.strangers = refuse
	full, err := ps.edges.ListenQueue(nfqueue.Config{
		Number: n.Excess, Length: excessQueueLen, RefusedMark: mark}, excess{s})
	if err != nil {
		s.close()
		return nil, err
	}
	s.excess = full
	return s, nil
}

// excess handles packets above the rate of the strangers' queue, at a door that admits
// everybody while no daemon runs. It gives no verdicts: one packet waits in the queue as
// long as it is bound, so the kernel drops all others without cost for the daemon.
type excess struct{ *sockets }

func (excess) Queued(uint32, packet.Packet) {}
func (excess) Unreadable(uint32)            {}
func (s excess) Failed(err error)           { s.fail(err) }

// hasUnhandledLog reports whether messages that replaced rules have logged wait to be
// handled. It is called with mu held.
func (s *sockets) hasUnhandledLog() bool { return s != nil && !s.closed && !s.log.Progress().Idle }

// close closes the bound sockets. Reads from them fail then.
func (s *sockets) close() {
	s.packets.mu.Lock()
	s.closed = true
	s.packets.mu.Unlock()
	for _, socket := range []io.Closer{s.log, s.admitted, s.strangers, s.excess} {
		if socket != nil {
			socket.Close()
		}
	}
}

// The last packet that met the old rules may take a moment to reach its queue.
const (
	retireInterval   = 10 * time.Millisecond
	retireIdleChecks = 3 // checks in a row that find nothing
	retireTimeout    = 2 * time.Second
)

// retire closes sockets that no rule uses any more, once everything in them has been
// handled. Held packets go through the new rules.
func (s *sockets) retire() {
	ps := s.packets
	ps.mu.Lock()
	s.retired = true
	if last, ok := s.hold.Clear(); ok {
		if s.stillNamed {
			_ = s.strangers.RefuseUpTo(last)
		} else {
			_ = s.strangers.RepeatUpTo(last)
		}
	}
	ps.mu.Unlock()
	idle := 0
	for end := time.Now().Add(retireTimeout); idle < retireIdleChecks && time.Now().Before(end); time.Sleep(retireInterval) {
		idle++
		if !s.log.Progress().Idle {
			idle = 0
		}
		for _, q := range []Queue{s.admitted, s.strangers} {
			if stats, err := q.Stats(); err == nil && stats.Waiting > 0 {
				idle = 0
			}
		}
	}
	ps.mu.Lock()
	lost := s.lossesSince()
	ps.mu.Unlock()
	ps.losses.add(lost)
	s.close()
}

// lossesSince returns how many packets the queues have lost since the last call. It is
// called with the mu of packets held.
func (s *sockets) lossesSince() (lost uint64) {
	for i, q := range []Queue{s.admitted, s.strangers} {
		if stats, err := q.Stats(); err == nil {
			lost += max(stats.Lost, s.lost[i]) - s.lost[i] // the kernel's counter wraps
			s.lost[i] = stats.Lost
		}
	}
	return lost
}

// release sends the held packets that match through the rules again, and returns their
// number.
func (s *sockets) release(match func(packet.Packet) bool) (released uint64) {
	s.hold.Release(match, func(h sequence.Held) {
		_ = s.strangers.Repeat(h.ID) // if this fails, reading fails too, which ends Run
		s.packets.metrics.strangers.Observe(time.Since(h.Since).Seconds())
		released++
	})
	return released
}

// accept accepts the held packets that match.
func (s *sockets) accept(match func(packet.Packet) bool) {
	s.hold.Release(match, func(h sequence.Held) {
		_ = s.strangers.Accept(h.ID)
		s.packets.metrics.strangers.Observe(time.Since(h.Since).Seconds())
	})
}

// fail ends Run, because packets cannot be read any more.
func (s *sockets) fail(err error) {
	s.packets.mu.Lock()
	closed := s.closed
	s.packets.mu.Unlock()
	if !closed {
		s.packets.fail(err)
	}
}

// arrivalOf returns the arrival time of a knock that is read now. It matters by how much
// knocks have overtaken each other on their way, not how late a busy machine reads them.
// A knock that waited in the log while an early knock was handled counts as arrived no
// later than that one. The log is asked only while this matters.
func (s *sockets) arrivalOf(now time.Time) time.Time {
	if s.backlog.IsZero() {
		return now
	}
	heard := s.backlog
	if s.log.Drained() || now.Sub(s.backlog) > maxRefusalDelay {
		s.backlog = time.Time{}
	}
	return heard
}
