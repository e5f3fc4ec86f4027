package wall

import (
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
)

// lossEndsAfter is how long after the last loss an overload ends.
const lossEndsAfter = time.Minute

// losses counts the logged and queued packets that never arrived, and reports them: once
// when losses begin, and once when they are over.
type losses struct {
	trail *audit.Summer

	mu         sync.Mutex
	lost       uint64    // packets
	reported   uint64    // losses reported
	counted    uint64    // losses known at the last check
	overloaded bool      // an event says that packets are being lost
	lately     time.Time // when losses were last found
}

// add adds lost packets.
func (l *losses) add(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += n
}

// total returns how many packets were lost.
func (l *losses) total() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// report records whether packets are being lost, if that has changed.
func (l *losses) report(now time.Time) {
	if e := l.event(now); e.Code != "" {
		l.trail.Record(e)
	}
}

// event returns the event to record. It has no code if there is nothing to say.
func (l *losses) event(now time.Time) (e audit.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e = audit.Event{Time: now, Kind: audit.Overloaded, Count: int(l.lost - l.reported)}
	begins := e.Count > 0 && !l.overloaded
	if e.Count > 0 && (begins || l.lost != l.counted) {
		l.lately = now
	}
	l.counted = l.lost
	ends := l.overloaded && now.Sub(l.lately) >= lossEndsAfter
	if begins || ends {
		l.overloaded = begins
		l.reported = l.lost
	}
	switch {
	case begins:
		e.Code, e.Reason = audit.CodePacketsLost, "packets come faster than they can be read"
	case ends && e.Count > 0:
		e.Code, e.Reason = audit.CodeLossOver, "packets came faster than they could be read, until "+l.lately.Format(time.TimeOnly)
	}
	return e
}
