package wall

import (
	"io"
	"time"

	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/sequence"
)

// sockets are the ways in of packets: the group and the queues that a table
// names. A reload that changes no numbers keeps them, so that nothing which is in
// them is lost.
type sockets struct {
	wall    *Wall
	numbers nft.Numbers

	// Guarded by the wall's mu.
	log                 Log
	admitted, strangers Queue
	excess              Queue
	hold                *sequence.Hold // what waits in the strangers' queue
	former              *sockets       // that these took the place of; nil: none
	refuseAfter         time.Time      // before then nobody is refused, as the log was not drained
	backlog             time.Time      // since when the log was never drained, if a knock was early then
	swept               time.Time      // when the hold was last swept
	lost                [2]uint64      // what each queue had lost when it was last asked
	stillNamed          bool           // by the rules, though they are retired
	retired             bool           // no rule names them any more
	closed              bool           // and no failure to read matters any more
}

// How many packets may wait in each lane. Strangers wait for their knock, with
// room for what the rules' rates let through meanwhile. Guests wait only for a
// daemon that hangs, and are let in without it when there are this many.
const (
	strangersQueueLen = 16384
	admittedQueueLen  = 1024
	excessQueueLen    = 1
)

// listen binds the sockets that a table with these numbers will name.
func (w *Wall) listen(n nft.Numbers) (*sockets, error) {
	s := &sockets{wall: w, numbers: n, hold: sequence.NewHold(0, strangersQueueLen)}
	// Packets come only once the table names these numbers: nobody reads s yet.
	log, err := w.edges.ListenLog(n.LogGroup, knocks{s})
	if err != nil {
		return nil, err
	}
	s.log = log
	mark := uint32(nft.RefusedMark)
	admit, err := w.edges.ListenQueue(nfqueue.Config{
		Number: n.Admitted, Length: admittedQueueLen, FailOpen: true, RefusedMark: mark}, admitted{s})
	if err != nil {
		s.close()
		return nil, err
	}
	s.admitted = admit
	refuse, err := w.edges.ListenQueue(nfqueue.Config{
		Number: n.Strangers, Length: strangersQueueLen, RefusedMark: mark}, strangers{s})
	if err != nil {
		s.close()
		return nil, err
	}
	s.strangers = refuse
	full, err := w.edges.ListenQueue(nfqueue.Config{
		Number: n.Excess, Length: excessQueueLen, RefusedMark: mark}, excess{s})
	if err != nil {
		s.close()
		return nil, err
	}
	s.excess = full
	return s, nil
}

// excess handles the strangers who are too many to be asked about at a door that lets
// strangers in when there is no daemon: not at all. One packet waits in the queue for as
// long as it is bound, and so all others are dropped, which costs the daemon nothing.
type excess struct{ *sockets }

func (excess) Queued(uint32, packet.Packet) {}
func (excess) Unreadable(uint32)            {}
func (s excess) Failed(err error)           { s.fail(err) }

// isHeard reports whether something waits to be handled that was logged for rules which
// have been replaced. It is called with mu held.
func (s *sockets) hasUnhandledLog() bool { return s != nil && !s.closed && !s.log.Progress().Idle }

// close closes the sockets that are bound. Reading from them fails then.
func (s *sockets) close() {
	s.wall.mu.Lock()
	s.closed = true
	s.wall.mu.Unlock()
	for _, socket := range []io.Closer{s.log, s.admitted, s.strangers, s.excess} {
		if socket != nil {
			socket.Close()
		}
	}
}

// The kernel may take a moment until the last packet that met the old rules is
// in its queue.
const (
	retireInterval   = 10 * time.Millisecond
	retireIdleChecks = 3 // times in a row that nothing is there
	retireTimeout    = 2 * time.Second
)

// retire closes sockets that no rule names any more, once all that is in them
// has been heard and judged. Strangers go through the new rules.
func (s *sockets) retire() {
	w := s.wall
	w.mu.Lock()
	s.retired = true
	if last, ok := s.hold.Clear(); ok {
		if s.stillNamed {
			_ = s.strangers.RefuseUpTo(last)
		} else {
			_ = s.strangers.RepeatUpTo(last)
		}
	}
	w.mu.Unlock()
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
	w.mu.Lock()
	s.countLosses()
	w.mu.Unlock()
	s.close()
}

// countLosses adds what the queues have lost since they were last asked.
func (s *sockets) countLosses() {
	for i, q := range []Queue{s.admitted, s.strangers} {
		if stats, err := q.Stats(); err == nil {
			s.wall.lost += max(stats.Lost, s.lost[i]) - s.lost[i] // the kernel's count wraps
			s.lost[i] = stats.Lost
		}
	}
}

// release sends the strangers that match through the rules again, and returns
// how many they were.
func (s *sockets) release(match func(packet.Packet) bool) (released uint64) {
	s.hold.Release(match, func(h sequence.Held) {
		_ = s.strangers.Repeat(h.ID) // if that fails reading fails, too, and ends Run
		s.wall.metrics.strangers.Observe(time.Since(h.Since).Seconds())
		released++
	})
	return released
}

// fail ends Run, because packets can no longer be read.
func (s *sockets) fail(err error) {
	s.wall.mu.Lock()
	closed := s.closed
	s.wall.mu.Unlock()
	if !closed {
		s.wall.fail(err)
	}
}

// arrivalOf returns when a knock came in that is read now. By how much knocks have
// overtaken each other is a matter of when they came, and not of when a busy
// machine lets them be read: what was waiting while an early knock was handled
// came no later than that. The log is asked only while that matters.
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
