package main

import (
	"cmp"
	"encoding/binary"
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

// visitor knocks and connects from a lab's client with raw packets, so that each SYN is sent
// once, at the intended time. The client's own TCP stack does not know these connections,
// and resets those that the server accepts.
type visitor struct {
	lab    *lab
	out    int // raw socket
	in     int // socket that receives the client's packets with their IP headers
	port   uint16
	buffer [256]byte
}

// newVisitor returns a visitor of a lab's server at one of its addresses.
func newVisitor(l *lab, at netip.Addr) (v *visitor, err error) {
	v = &visitor{lab: l, in: -1, out: -1}
	err = l.client.Do(func() (err error) {
		if v.out, err = forge.RawSocket(at); err != nil {
			return err
		}
		if at.Is6() { // a raw socket of IPv6 gets no headers
			v.in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, networkOrder(unix.ETH_P_IPV6))
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

func networkOrder(n uint16) int {
	return int(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)))
}

func (v *visitor) close() {
	unix.Close(v.out)
	unix.Close(v.in)
}

// connect sends a SYN to the door, from a port that was not used for a long time.
func (v *visitor) connect(from netip.Addr) (netip.AddrPort, error) {
	const first = 1024
	v.port = max(first, v.port+1)
	s := syn(from, door)
	s.SourcePort = v.port
	return netip.AddrPortFrom(from, v.port), s.Send(v.out)
}

// answer returns the address that the door has sent a SYN-ACK to. If none comes until the
// given time, ok is false.
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
			return netip.AddrPort{}, false, fmt.Errorf("reading an answer of the door: %w", err)
		}
		left := time.Until(until)
		if left <= 0 {
			return netip.AddrPort{}, false, nil
		}
		wait := unix.NsecToTimespec(int64(left))
		if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(v.in), Events: unix.POLLIN}}, &wait, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return netip.AddrPort{}, false, fmt.Errorf("waiting for an answer of the door: %w", err)
		}
	}
}

// precisely runs f on a thread with precise timers, and on the client's core if the client
// has its own core.
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
		return fmt.Errorf("setting precise timers: %w", err)
	}
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // 0 restores the default
	return f()
}

// patience is how long a visitor waits for an answer to its SYN. It is less than a second,
// after which a real client sends the next SYN.
const patience = 900 * time.Millisecond

// visit is one attempt of a client: knocks, then one SYN. Strangers have no knocks.
type visit struct {
	from   netip.Addr
	knocks []forge.Segment
	at     time.Duration // when the visit begins
	letIn  bool          // the SYN was answered in time
}

// tempo has the pauses of a client.
type tempo struct {
	between time.Duration // between two knocks
	connect time.Duration // from the last knock to the SYN
}

// visits runs the visits, each at its time. Then it waits for the door's answers to the last
// clients, but not to strangers.
func (v *visitor) visits(all []*visit, t tempo) error {
	type step struct {
		at    time.Duration
		visit *visit
		knock int // index of the knock; after the last one: connect
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
	guests := 0 // waiting clients that are no strangers
	hear := func(until time.Time) (more bool, err error) {
		to, ok, err := v.answer(until)
		if try, known := waiting[to]; ok && known {
			// Any answer to a stranger counts, however late.
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
