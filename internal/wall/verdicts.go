package wall

import (
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// admitted handles first packets of sources with an open window.
type admitted struct{ *sockets }

func (s admitted) Queued(id uint32, p packet.Packet) {
	ps := s.packets
	now := time.Now()
	ps.mu.Lock()
	a := ps.windows.admit(ps.policy, p, now)
	ps.account(&a, p, now)
	if a.isRefused() {
		_ = s.sockets.admitted.Refuse(id)
	} else {
		_ = s.sockets.admitted.Accept(id)
	}
	ps.mu.Unlock()
	ps.metrics.admitted.Observe(time.Since(now).Seconds())
	ps.finish(&a)
}

// account counts what becomes of the first packet of a source with a window. It is called with
// mu held. Call finish without mu afterwards.
func (ps *packets) account(a *admission, p packet.Packet, now time.Time) {
	f := ps.policy
	a.packet = p
	a.event = audit.Event{Time: now, Kind: audit.Accepted, Code: audit.CodeWindow, Source: a.source, Person: a.person.Name, Key: a.person.Key, Port: p.Port}
	switch a.outcome {
	case sequence.Exhausted:
		a.event.Kind, a.event.Code, a.event.Reason = audit.Refused, audit.CodeMaxConnections, "max_connections is reached"
	case sequence.Replayed:
		a.event.Kind, a.event.Code, a.event.Reason = audit.Refused, audit.CodeDuplicate, "the same connection was admitted before"
	}
	a.audited = a.door >= 0 && a.outcome != sequence.AdmitAgain
	if a.audited {
		a.event.Door = f.config.Doors[a.door].Name
		if a.isRefused() {
			f.tally(a.door).exhausted++
		} else {
			f.tally(a.door).Add(audit.Accepted)
		}
	}
}

// finish does what remains after a packet of a source with a window has got its verdict.
func (ps *packets) finish(a *admission) {
	if !a.unsure.IsNone() {
		ps.windows.checkDelivered(a.unsure, a.packet)
	}
	if a.audited && !ps.windows.postpone(a.event) {
		ps.trail.Record(a.event)
	}
	if a.spent && a.outcome == sequence.AdmitNew {
		ps.windows.closeSpent(a.event.Door, a.source)
	}
}

func (s admitted) Unreadable(id uint32) {
	s.packets.mu.Lock()
	defer s.packets.mu.Unlock()
	_ = s.sockets.admitted.Refuse(id)
}

func (s admitted) Failed(err error) { s.fail(err) }

// strangers handles first packets of sources without an open window.
type strangers struct{ *sockets }

func (s strangers) Queued(id uint32, p packet.Packet) {
	ps := s.packets
	switch r := s.judge(id, p); {
	case r.ahead != nil:
		ps.finish(r.ahead)
	case !r.unsure.IsNone():
		ps.windows.checkDelivered(r.unsure, p)
	}
}

// judge gives or delays the verdict on a packet.
func (s strangers) judge(id uint32, p packet.Packet) (r recognition) {
	ps := s.packets
	now := time.Now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if s.retired && s.stillNamed {
		_ = s.sockets.strangers.Refuse(id)
		return r
	}
	if s.retired {
		_ = s.sockets.strangers.Repeat(id)
		return r
	}
	f := ps.policy
	r = ps.windows.recognize(f, p, now)
	switch {
	case r.again:
		_ = s.sockets.strangers.Accept(id)
		return r
	case r.opened:
		_ = s.sockets.strangers.Repeat(id)
		return r
	case r.ahead != nil:
		_ = s.sockets.strangers.Accept(id)
		ps.accountAhead(r.ahead, p, now)
		return r
	}
	_, waiting := s.hold.Next()
	if !s.hold.Add(id, p, now) {
		_ = s.sockets.strangers.Refuse(id)
		if r.door >= 0 {
			f.tally(r.door).Add(audit.Refused)
		}
		return r
	}
	if r.door >= 0 {
		f.tally(r.door).held++
	}
	if !waiting {
		ps.wake()
	}
	return r
}

func (s strangers) Unreadable(id uint32) {
	s.packets.mu.Lock()
	defer s.packets.mu.Unlock()
	_ = s.sockets.strangers.Refuse(id)
}

func (s strangers) Failed(err error) { s.fail(err) }
