package paths

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

const rejectRules = `door "ssh" {
  ports    = [22, "5353/udp"]
  sequence = [4113, "27911/udp", 1840]
  window   = "1s"
  closed   = "reject"
}`

// idleSession is a session of a guest whose window has expired.
type idleSession struct {
	*net.TCPConn
	from  netip.AddrPort
	first uint32 // its SYN's sequence number
}

// A door that rejects ends no session: it never answers a packet that may belong to a known
// connection with a reset, because conntrack would take that for the server's.
func TestARejectingDoorEndsNoSession(t *testing.T) {
	for family, to := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			d := l.Run(rejectRules)
			attacks := []struct {
				name     string
				segments func(s idleSession) []forge.Segment
			}{
				{"nothing", func(idleSession) []forge.Segment { return nil }},
				{"a forged SYN", func(s idleSession) []forge.Segment {
					return []forge.Segment{s.segment(to, packet.SYN, rand.Uint32())}
				}},
				{"forged SYNs by all source ports", func(s idleSession) (all []forge.Segment) {
					least := 1
					if testing.Short() {
						least = int(s.from.Port()) - 10
					}
					for port := least; port <= 65535 && len(all) < 65535; port++ {
						forged := s.segment(to, packet.SYN, rand.Uint32())
						forged.SourcePort = uint16(port)
						all = append(all, forged)
						if testing.Short() && port > int(s.from.Port())+10 {
							break
						}
					}
					return all
				}},
				{"its own SYN again", func(s idleSession) []forge.Segment {
					return []forge.Segment{s.segment(to, packet.SYN, s.first), s.segment(to, packet.SYN, s.first)}
				}},
				{"stray segments", func(s idleSession) (all []forge.Segment) {
					for _, flags := range []packet.Flags{
						0, packet.ACK, packet.PSH | packet.ACK, packet.FIN | packet.ACK, packet.FIN, packet.RST, packet.RST | packet.ACK,
						packet.SYN | packet.ACK, packet.SYN | packet.FIN, packet.SYN | packet.RST, packet.FIN | packet.PSH | packet.URG,
					} {
						all = append(all, s.segment(to, flags, s.first+1<<30), s.segment(to, flags, s.first-1<<30))
					}
					return all
				}},
			}
			var sessions []idleSession
			for i := range attacks {
				guest := lab.Source(i+1, to)
				l.Knock(guest, to, lab.Knocks...)
				d.WaitFor("opened", "source="+guest.String()+" ")
				conn, err := l.Dial(guest, to, 22, lab.Deadline)
				lab.Must(t, err)
				defer conn.Close()
				lab.Must(t, lab.Exchange(conn))
				from := netip.MustParseAddrPort(conn.LocalAddr().String())
				sessions = append(sessions, idleSession{conn, from, firstSequence(t, conn, len("ping"))})
			}
			d.WaitForCount(len(attacks), "expired")
			eventually.True(t, "the windows have expired in the kernel, too", func() bool { return len(l.KernelWindows()) == 0 })
			for i, attack := range attacks {
				l.Send(attack.segments(sessions[i])...)
			}
			// The client sends this SYN after the attacks, so its answer comes after
			// theirs.
			if _, err := l.Dial(lab.Source(1000, to), to, 22, lab.Deadline); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("the door does not reject: %v", err)
			}
			for i, attack := range attacks {
				state, left := tracked(l, t, sessions[i].from, 22)
				if state != trackedEstablished || left < time.Minute {
					t.Errorf("after %s the session's state is %d, and it is forgotten in %s", attack.name, state, left)
				}
			}
			if !testing.Short() {
				time.Sleep(trackedClose + time.Second) // then conntrack has forgotten sessions that it took for closed
			}
			for i, attack := range attacks {
				if err := lab.Exchange(sessions[i]); err != nil {
					t.Errorf("after %s the session is dead: %v", attack.name, err)
				}
			}
		})
	}
}

// trackedEstablished is conntrack's number of a state of TCP. trackedClose is how long
// conntrack remembers a connection that was reset.
const (
	trackedEstablished = 3
	trackedClose       = 10 * time.Second
)

// segment forges a segment of the session.
func (s idleSession) segment(to netip.Addr, flags packet.Flags, sequence uint32) forge.Segment {
	return forge.Segment{From: s.from.Addr(), To: to, SourcePort: s.from.Port(), Port: lab.TCP(22), Sequence: sequence, Flags: flags}
}

// firstSequence asks the kernel for the sequence number of the SYN of a connection by which
// so many bytes were sent.
func firstSequence(t *testing.T, conn *net.TCPConn, sent int) (first uint32) {
	t.Helper()
	const sendQueue = 2 // TCP_SEND_QUEUE of linux/tcp.h
	raw, err := conn.SyscallConn()
	lab.Must(t, err)
	var problem error
	lab.Must(t, raw.Control(func(fd uintptr) {
		set := func(option, value int) {
			if problem == nil {
				problem = unix.SetsockoptInt(int(fd), unix.SOL_TCP, option, value)
			}
		}
		set(unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
		set(unix.TCP_REPAIR_QUEUE, sendQueue)
		if problem == nil {
			var next int
			next, problem = unix.GetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_QUEUE_SEQ)
			first = uint32(next) - uint32(sent) - 1
		}
		set(unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
	}))
	lab.Must(t, problem)
	return first
}

// tracked returns what conntrack on the server knows of a connection: its state, and when
// conntrack will forget it. Both are 0 if there is no such connection.
func tracked(l *lab.Lab, t *testing.T, from netip.AddrPort, port uint16) (state uint8, left time.Duration) {
	t.Helper()
	lab.Must(t, l.Server.Do(func() error {
		conn, err := conntrack.Dial(nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		flows, err := conn.Dump(nil)
		if err != nil {
			return err
		}
		for _, f := range flows {
			tuple := f.TupleOrig
			if netip.AddrPortFrom(tuple.IP.SourceAddress, tuple.Proto.SourcePort) == from && tuple.Proto.DestinationPort == port && f.ProtoInfo.TCP != nil {
				state, left = f.ProtoInfo.TCP.State, time.Duration(f.Timeout)*time.Second
			}
		}
		return nil
	}))
	return state, left
}

// A closed port does not answer packets to broadcast and multicast addresses. A door that
// rejects imitates that.
func TestARejectingDoorAnswersNoBroadcast(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "nft")
	l := lab.New(t)
	l.UnlimitICMP()
	l.LoadNft(`table inet answers {
	chain output {
		type filter hook output priority 0;
		icmp type destination-unreachable counter
		icmpv6 type destination-unreachable counter
		tcp flags & rst == rst counter
	}
}`)
	l.Run(rejectRules)
	answers := func() (n int) {
		for _, c := range l.PacketCounts("answers", "output") {
			n += c
		}
		return n
	}
	asked := 0
	// ask sends a packet to an address, and then one that is always answered. It reports
	// whether the first one was answered, too.
	ask := func(from, to, host netip.Addr, port packet.Port) (answered bool) {
		t.Helper()
		asked++
		segment := forge.Segment{From: from, To: to, SourcePort: uint16(40000 + asked), Port: port, Sequence: 1, Flags: packet.SYN}
		before := answers()
		forgeBy(l, t, segment)
		segment.To = host
		segment.SourcePort += 1000
		segment.Port = lab.UDP(9) // no program listens there
		forgeBy(l, t, segment)
		eventually.True(t, "a closed port answers", func() bool { return answers() > before })
		return answers() > before+1
	}
	for _, port := range []packet.Port{lab.UDP(5353), lab.TCP(22)} {
		for _, host := range []netip.Addr{lab.Server4, lab.Server6} {
			from, groups := lab.Client4, []netip.Addr{all4, netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.1")}
			if host.Is6() {
				from, groups = lab.Client6, []netip.Addr{netip.MustParseAddr("ff02::1")}
			}
			if !ask(from, host, host, port) {
				t.Errorf("%s at %s does not reject, so this tests nothing", port, host)
			}
			for _, group := range groups {
				if ask(from, group, host, port) {
					t.Errorf("a packet to %s of %s is answered", port, group)
				}
			}
		}
	}
}
