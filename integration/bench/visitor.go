package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// visitor knocks and connects from a lab's client, by packets made by hand: so
// each SYN is sent once, and at the moment that is meant. The client's own stack,
// which knows of no connection, resets those that the server agrees to.
type visitor struct {
	lab    *lab
	out    int // raw socket
	in     int // gets what TCP segments come to the client
	port   uint16
	buffer [256]byte
}

func newVisitor(l *lab) (v *visitor, err error) {
	v = &visitor{lab: l, in: -1, out: -1}
	err = l.client.Do(func() (err error) {
		if v.out, err = forge.RawSocket(server); err != nil {
			return err
		}
		v.in, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		v.close()
		return nil, fmt.Errorf("opening raw sockets: %w", err)
	}
	return v, nil
}

func (v *visitor) close() {
	unix.Close(v.out)
	unix.Close(v.in)
}

// connect sends a SYN to the door, from a port that is a new one for a long time.
func (v *visitor) connect(from netip.Addr) (netip.AddrPort, error) {
	const first = 1024
	v.port = max(first, v.port+1)
	s := syn(from, door)
	s.SourcePort = v.port
	return netip.AddrPortFrom(from, v.port), s.Send(v.out)
}

// answer returns to whom the door has answered by a SYN-ACK. It waits until a
// time for that; ok is false when that has come.
func (v *visitor) answer(until time.Time) (to netip.AddrPort, ok bool, err error) {
	for {
		n, _, err := unix.Recvfrom(v.in, v.buffer[:], 0)
		switch {
		case err == nil:
			p, ok := packet.Parse(v.buffer[:n])
			if ok && p.Flags&(packet.SYN|packet.ACK) == packet.SYN|packet.ACK && p.SourcePort == door.Number {
				return netip.AddrPortFrom(p.Destination, p.Port.Number), true, nil
			}
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return netip.AddrPort{}, false, fmt.Errorf("reading what the door answers: %w", err)
		}
		left := time.Until(until)
		if left <= 0 {
			return netip.AddrPort{}, false, nil
		}
		wait := unix.NsecToTimespec(int64(left))
		if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(v.in), Events: unix.POLLIN}}, &wait, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return netip.AddrPort{}, false, fmt.Errorf("waiting for what the door answers: %w", err)
		}
	}
}

// precisely runs f on a thread whose waits the kernel does not stretch, and on the
// client's core if it has one of its own.
func (l *lab) precisely(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if l.apart {
		if err := onClientsCore(); err != nil {
			return err
		}
		defer onAnyCore()
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("asking for precise timers: %w", err)
	}
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default again
	return f()
}

// patience is how long a visitor waits for an answer to its SYN: less than the
// second after which a real client would send the next one.
const patience = 900 * time.Millisecond

// visit is one client's way in: knocks, and one SYN. Strangers have no knocks.
type visit struct {
	from   netip.Addr
	knocks []forge.Segment
	at     time.Duration // when it begins
	letIn  bool          // the SYN was answered in time
}

// tempo says how a client knocks.
type tempo struct {
	between time.Duration // two knocks
	connect time.Duration // from the last knock to the SYN
}

// visits lets the clients come, each at its time, and waits for what the door
// answers the last of them; for strangers it does not wait.
func (v *visitor) visits(all []*visit, t tempo) error {
	type step struct {
		at    time.Duration
		visit *visit
		knock int // beyond the last one: connect
	}
	var steps []step
	for _, c := range all {
		at := c.at
		for i := range c.knocks {
			steps = append(steps, step{at, c, i})
			if i < len(c.knocks)-1 {
				at += t.between
			} else {
				at += t.connect
			}
		}
		steps = append(steps, step{at, c, len(c.knocks)})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })

	type try struct {
		visit *visit
		sent  time.Time
	}
	waiting := map[netip.AddrPort]try{}
	guests := 0 // of those who wait, all but the strangers
	hear := func(until time.Time) (more bool, err error) {
		to, ok, err := v.answer(until)
		if try, known := waiting[to]; ok && known {
			// A stranger is not to be answered at any time.
			try.visit.letIn = time.Since(try.sent) < patience || len(try.visit.knocks) == 0
			delete(waiting, to)
			if len(try.visit.knocks) > 0 {
				guests--
			}
		}
		return ok, err
	}
	return v.lab.precisely(func() error {
		began := time.Now()
		for _, s := range steps {
			for more := true; more; {
				var err error
				if more, err = hear(began.Add(s.at)); err != nil {
					return err
				}
			}
			if s.knock < len(s.visit.knocks) {
				if err := s.visit.knocks[s.knock].Send(v.out); err != nil {
					return fmt.Errorf("knocking from %s: %w", s.visit.from, err)
				}
				continue
			}
			sent := time.Now()
			from, err := v.connect(s.visit.from)
			if err != nil {
				return fmt.Errorf("connecting from %s: %w", s.visit.from, err)
			}
			waiting[from] = try{s.visit, sent}
			if len(s.visit.knocks) > 0 {
				guests++
			}
		}
		end := time.Now().Add(patience)
		for guests > 0 {
			more, err := hear(end)
			if err != nil || !more {
				return err
			}
		}
		return nil
	})
}
