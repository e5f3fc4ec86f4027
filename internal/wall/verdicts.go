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
	f := ps.policy
	a := ps.windows.admit(f, p, now)
	if a.isRefused() {
		_ = s.sockets.admitted.Refuse(id)
	} else {
		_ = s.sockets.admitted.Accept(id)
	}
	e := audit.Event{Time: now, Kind: audit.Accepted, Code: audit.CodeWindow, Source: a.source, Person: a.person.Name, Key: a.person.Key, Port: p.Port}
	switch a.outcome {
	case sequence.Exhausted:
		e.Kind, e.Code, e.Reason = audit.Refused, audit.CodeMaxConnections, "max_connections is reached"
	case sequence.Replayed:
		e.Kind, e.Code, e.Reason = audit.Refused, audit.CodeDuplicate, "the same connection was admitted before"
	}
	audited := a.door >= 0 && a.outcome != sequence.AdmitAgain
	if audited {
		e.Door = f.config.Doors[a.door].Name
		if a.isRefused() {
			f.tally(a.door).exhausted++
		} else {
			f.tally(a.door).Add(audit.Accepted)
		}
	}
	ps.mu.Unlock()
	ps.metrics.admitted.Observe(time.Since(now).Seconds())
	if !a.unsure.IsNone() {
		ps.windows.checkDelivered(a.unsure, p)
	}
	if audited && !ps.windows.postpone(e) {
		ps.trail.Record(e)
	}
	if a.spent && a.outcome == sequence.AdmitNew {
		ps.windows.closeSpent(e.Door, a.source)
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
	if win := s.judge(id, p); !win.IsNone() {
		s.packets.windows.checkDelivered(win, p)
	}
}

// judge gives or delays the verdict on a packet. If a window admits the packet and it
// matters whether the packet is delivered, judge returns that window.
func (s strangers) judge(id uint32, p packet.Packet) (unsure sequence.Window) {
	ps := s.packets
	now := time.Now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if s.retired && s.stillNamed {
		_ = s.sockets.strangers.Refuse(id)
		return unsure
	}
	if s.retired {
		_ = s.sockets.strangers.Repeat(id)
		return unsure
	}
	f := ps.policy
	r := ps.windows.recognize(f, p, now)
	if r.again {
		_ = s.sockets.strangers.Accept(id)
		return r.unsure
	}
	if r.opened {
		_ = s.sockets.strangers.Repeat(id)
		return unsure
	}
	_, waiting := s.hold.Next()
	if !s.hold.Add(id, p, now) {
		_ = s.sockets.strangers.Refuse(id)
		if r.door >= 0 {
			f.tally(r.door).Add(audit.Refused)
		}
		return unsure
	}
	if r.door >= 0 {
		f.tally(r.door).held++
	}
	if !waiting {
		ps.wake()
	}
	return unsure
}

func (s strangers) Unreadable(id uint32) {
	s.packets.mu.Lock()
	defer s.packets.mu.Unlock()
	_ = s.sockets.strangers.Refuse(id)
}

func (s strangers) Failed(err error) { s.fail(err) }
