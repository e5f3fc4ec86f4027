package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
)

// Tests of sessions that end with their window while other programs set marks, and of
// connections that imitate another one.

const endRules = `
door "ssh" {
  ports    = [22, "53/udp"]
  sequence = [4113, "27911/udp", 1840]
  window   = "10m"
}
`

// marking are tables of other programs that set connection marks: on every packet, as
// scripts for several uplinks do, or once, so that the test sees if the mark is
// overwritten.
var marking = map[string]string{
	"every packet": markTable("ct mark set " + fmt.Sprint(othersMark)),
	"the first":    markTable("ct state new ct mark set " + fmt.Sprint(othersMark)),
}

const othersMark = 0x2a

func markTable(rule string) string {
	var b strings.Builder
	b.WriteString("table inet uplinks {\n")
	for i, hook := range []string{"prerouting priority -190", "prerouting priority 0", "output priority -100"} {
		fmt.Fprintf(&b, "\tchain c%d {\n\t\ttype filter hook %s;\n\t\t%s\n\t}\n", i, hook, rule)
	}
	b.WriteString("}\n")
	return b.String()
}

// dialUDP makes a socket for one flow, from one of the client's addresses.
func (l *lab) dialUDP(from, to netip.Addr, port uint16) (conn net.Conn) {
	l.t.Helper()
	must(l.t, l.client.Do(func() (err error) {
		d := net.Dialer{
			LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
			Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { freebind(int(fd), from) })
			},
		}
		conn, err = d.Dial("udp", netip.AddrPortFrom(to, port).String())
		return err
	}))
	l.t.Cleanup(func() { conn.Close() })
	return conn
}

// isDead reports whether a session returns nothing in several tries.
func isDead(conn net.Conn) bool {
	for range 3 {
		conn.SetDeadline(time.Now().Add(short))
		if ping(conn) == nil {
			return false
		}
	}
	return true
}

// flows returns the flows of a source in the server's conntrack.
func (l *lab) flows(source netip.Addr) (flows []conntrack.Flow) {
	l.t.Helper()
	must(l.t, l.server.Do(func() error {
		conn, err := conntrack.Dial(nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		all, err := conn.Dump(nil)
		for _, f := range all {
			if f.TupleOrig.IP.SourceAddress.Unmap() == source || f.TupleReply.IP.SourceAddress.Unmap() == source {
				flows = append(flows, f)
			}
		}
		return err
	}))
	return flows
}

// unmarked reports whether a flow of the source to a port has lost the other program's
// mark.
func (l *lab) unmarked(source netip.Addr, ports ...uint16) bool {
	l.t.Helper()
	seen := 0
	for _, f := range l.flows(source) {
		for _, port := range ports {
			if f.TupleOrig.Proto.DestinationPort == port {
				seen++
				if f.Mark != othersMark {
					l.t.Logf("%s has the mark %#x", f.TupleOrig, f.Mark)
					return true
				}
			}
		}
	}
	if seen == 0 {
		l.t.Errorf("conntrack knows nothing of %s", source)
	}
	return false
}

// endSessions closes a door for a source, and checks that at least that many sessions
// ended.
func (d *daemon) endSessions(door string, source netip.Addr, atLeast int) {
	d.lab.t.Helper()
	c, err := control.NewClient(d.control).Close(context.Background(), door, source.String(), true)
	must(d.lab.t, err)
	if c.Ended < atLeast {
		d.lab.t.Errorf("%d sessions of %s were ended, want %d", c.Ended, source, atLeast)
	}
}

// admittedPackets returns the kernel's counter of first packets that it accepted for
// sources with a window.
func (l *lab) admittedPackets() string {
	l.t.Helper()
	return l.nft("list", "counter", "inet", "knockwall", "ssh_admitted")
}

// An ended session stays ended, whatever marks other programs set, and their marks stay.
// It continues after its source has knocked again, without the daemon handling its
// packets.
func TestEndedSessionsStayEndedWhateverMarksOthersSet(t *testing.T) {
	for name, script := range marking {
		for _, server := range []netip.Addr{server4, server6} {
			t.Run(fmt.Sprint(name, " ", server), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.serve(22)
				l.serveUDP(53, server)
				l.nftScript(script)
				d := l.run(endRules)
				guest, other := nth(1, server), nth(2, server)
				session, kept := l.enter(guest, server), l.enter(other, server)
				flow, keptFlow := l.dialUDP(guest, server, 53), l.dialUDP(other, server, 53)
				must(t, errors.Join(talks(flow), talks(flow), talks(keptFlow)))
				for range 2 { // a session whose mark was cleared can be ended again
					d.endSessions("ssh", guest, 1)
					if !isDead(flow) {
						t.Error("the datagrams go on")
					}
					if !isDead(session) {
						t.Error("the session goes on")
					}
					if l.unmarked(guest, 53) {
						t.Error("a mark of somebody else's has gone")
					}
					must(t, errors.Join(talks(kept), talks(keptFlow)))
					l.knock(guest, server, survivalKnocks...)
					must(t, talks(flow))
					before := l.admittedPackets()
					for range 100 {
						must(t, talks(flow))
					}
					if after := l.admittedPackets(); after != before {
						t.Errorf("datagrams wait for the daemon:\n%s%s", before, after)
					}
				}
				must(t, talks(l.enter(guest, server)))
			})
		}
	}
}

// Conntrack entries from before the wall have no room for labels.
func TestSessionsThatAreOlderThanTheWallAreEnded(t *testing.T) {
	for _, server := range []netip.Addr{server4, server6} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprint(server, " known to conntrack: ", known), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.serve(22)
				l.serveUDP(53, server)
				if known {
					l.nftScript(marking["the first"])
				}
				guest := nth(1, server)
				session, flow := l.session(guest, server), l.dialUDP(guest, server, 53)
				must(t, talks(flow))
				d := l.run(endRules)
				must(t, talks(session))
				if !known {
					d.endSessions("ssh", guest, 1)
					if !isDead(session) {
						t.Error("the session goes on")
					}
					return
				}
				must(t, talks(flow))
				d.endSessions("ssh", guest, 2)
				if !isDead(flow) || !isDead(session) {
					t.Error("they go on")
				}
				if l.unmarked(guest, 53) {
					t.Error("a mark of somebody else's has gone")
				}
				l.knock(guest, server, survivalKnocks...)
				must(t, talks(flow))
			})
		}
	}
}

// A flow that is created again loses its NAT. The kernel must translate it anew.
func TestAPublishedFlowThatIsOlderThanTheWallIsEndedAndGoesOn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.addInside(80)
	l.nftScript(fmt.Sprintf(`table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		fib daddr type local udp dport 53 dnat to %s:80
	}
}`, inside))
	guest := nth(1, server4)
	flow := l.dialUDP(guest, server4, 53)
	must(t, talks(flow))
	d := l.run(endRules)
	must(t, talks(flow))
	d.endSessions("ssh", guest, 1)
	if !isDead(flow) {
		t.Error("it goes on")
	}
	l.knock(guest, server4, survivalKnocks...)
	d.waitFor("opened ", guest.String())
	must(t, talks(flow))
}

// A session stays ended after another daemon starts, which finds it when its source
// knocks again.
func TestEndedSessionsStayEndedWhenTheDaemonStartsAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.serveUDP(53, server4)
	d := l.run(endRules)
	guest := nth(1, server4)
	l.knock(guest, server4, survivalKnocks...)
	flow := l.dialUDP(guest, server4, 53)
	must(t, talks(flow))
	d.endSessions("ssh", guest, 1)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		d.end(signal)
		if !isDead(flow) {
			t.Errorf("it goes on after %v", signal)
		}
		d = l.run(endRules)
		if !isDead(flow) {
			t.Error("it goes on after a restart")
		}
	}
	l.knock(guest, server4, survivalKnocks...)
	must(t, talks(flow))
}

// Neither another door nor a trusted source lets packets of an ended session pass.
func TestWhatWasEndedPassesByNoOtherDoor(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.serveUDP(53, server4)
	guest, friend := nth(1, server4), nth(2, server4)
	d := l.run(fmt.Sprintf("wall {\n trusted = [%q]\n}\n", friend) + endRules + `
door "other" {
  ports    = ["53/udp"]
  sequence = [5227, 911, 30411]
  window   = "10m"
}`)
	l.knock(guest, server4, survivalKnocks...)
	flow, trusted := l.dialUDP(guest, server4, 53), l.dialUDP(friend, server4, 53)
	must(t, errors.Join(talks(flow), talks(trusted)))
	l.knock(guest, server4, tcp(5227), tcp(911), tcp(30411))
	d.waitFor("opened ", "door=other", guest.String())
	d.endSessions("ssh", guest, 1)
	d.endSessions("ssh", friend, 1)
	if !isDead(flow) {
		t.Error("it goes on by the other door")
	}
	if !isDead(trusted) {
		t.Error("it goes on, as its source is trusted")
	}
	must(t, talks(l.dialUDP(guest, server4, 53)))
	l.knock(guest, server4, tcp(5227), tcp(911), tcp(30411))
	must(t, talks(flow))
}

// dialAs connects from a port and with a sequence number that normally are random. The
// connection ends with an RST.
func (l *lab) dialAs(from, to netip.Addr, sourcePort uint16, sequence uint32, timeout time.Duration) error {
	return l.client.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		limit := unix.NsecToTimeval(int64(timeout))
		err = errors.Join(
			freebind(fd, from),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, 2), // TCP_SEND_QUEUE
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(sequence)),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 0),
			unix.Bind(fd, sockaddr(from, sourcePort)),
		)
		if err != nil {
			return fmt.Errorf("no socket: %w", err)
		}
		return connect(fd, sockaddr(to, 22))
	})
}

func limitedRules(connections int) string {
	return fmt.Sprintf(`
door "ssh" {
  ports           = [22]
  sequence        = [4113, "27911/udp", 1840]
  window          = "10m"
  max_connections = %d
}
`, connections)
}

// After the end of a connection, one from the same port with the same sequence number
// counts as a new one.
func TestMaxConnectionsAreNotEvadedByLookingTheSame(t *testing.T) {
	for _, connections := range []int{1, 2} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.serve(22)
			d := l.run(limitedRules(connections))
			guest := nth(1, server4)
			l.knock(guest, server4, survivalKnocks...)
			must(t, l.dialAs(guest, server4, 40000, 7, deadline))
			for range 2 {
				if err := l.dialAs(guest, server4, 40000, 7, short); !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EAGAIN) {
					t.Errorf("what looks the same is let in, or: %v", err)
				}
			}
			// It was not counted.
			for n := 1; n < connections; n++ {
				must(t, l.dialAs(guest, server4, 40001, 7, deadline))
			}
			if l.admits(guest, server4, 22) {
				t.Error("more are admitted than may")
			}
			if n := d.logged("accepted "); n != connections {
				t.Errorf("%d were accepted", n)
			}
			l.knock(guest, server4, survivalKnocks...)
			must(t, l.dialAs(guest, server4, 40000, 7, deadline))
		})
	}
}

// If a SYN or its answer is lost behind the wall, the retransmitted SYN is admitted and
// counted once.
func TestASYNThatIsSentAgainIsCountedOnce(t *testing.T) {
	for name, lossy := range map[string]string{
		"the SYN is lost":    "type filter hook input priority 0; tcp dport 22 tcp flags syn / syn,ack",
		"the answer is lost": "type filter hook output priority 0; tcp sport 22 tcp flags syn,ack / syn,ack",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.serve(22)
			l.nftScript("table inet lossy {\n chain c {\n " + lossy + " limit rate 1/day burst 1 packets counter drop\n }\n}\n")
			d := l.run(limitedRules(1))
			guest := nth(1, server4)
			l.knock(guest, server4, survivalKnocks...)
			if !l.letsIn(guest, server4, 22) {
				t.Error("refused")
			}
			if !strings.Contains(l.nft("list", "table", "inet", "lossy"), "counter packets 1 ") {
				t.Fatal("nothing was lost, so that this tests nothing")
			}
			if l.admits(guest, server4, 22) {
				t.Error("more than one gets in")
			}
			d.waitFor("closed ", "max_connections is reached")
			if n := d.logged("accepted "); n != 1 {
				t.Errorf("%d were accepted", n)
			}
		})
	}
}

// Until an admitted connection is established, its SYN passes without the daemon, which
// may have ended.
func TestASYNThatIsSentAgainPassesByTheKernelsHand(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.nftScript(`table inet deaf {
	chain arrive {
		type filter hook input priority 0;
		tcp dport 22 tcp flags syn / syn,ack counter
	}
	chain answer {
		type filter hook output priority 0;
		tcp sport 22 drop
	}
}`)
	d := l.run(limitedRules(1))
	guest, stranger := nth(1, server4), nth(2, server4)
	l.knock(guest, server4, survivalKnocks...)
	d.waitFor("opened ", guest.String())
	syn := forge.Segment{From: guest, To: server4, SourcePort: 40000, Port: tcp(22), Sequence: 7, Flags: packet.SYN}
	arrived := func(n int) func() bool {
		return func() bool {
			return strings.Contains(l.nft("list", "chain", "inet", "deaf", "arrive"), fmt.Sprintf("counter packets %d ", n))
		}
	}
	l.send(syn)
	eventually(t, "the SYN arrives", arrived(1))
	d.end(syscall.SIGKILL)
	l.send(syn)
	eventually(t, "it arrives again", arrived(2))
	other := syn
	other.SourcePort++
	strange := syn
	strange.From = stranger
	l.send(other, strange, syn)
	eventually(t, "it arrives once more", arrived(3))
	for _, who := range []netip.Addr{guest, stranger} {
		for _, f := range l.flows(who) {
			if f.TupleOrig.Proto.DestinationPort == 22 && f.TupleOrig.Proto.SourcePort != syn.SourcePort {
				t.Errorf("another connection got in: %s", f.TupleOrig)
			}
		}
	}
}

// The label that the wall uses is the one that other programs see.
func TestTheKernelAndOthersSeeTheSameLabels(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.serveUDP(53, server4)
	d := l.run(endRules)
	guest := nth(1, server4)
	l.knock(guest, server4, survivalKnocks...)
	flow := l.dialUDP(guest, server4, 53)
	must(t, talks(flow))
	labels := func() (bits [16]byte) {
		for _, f := range l.flows(guest) {
			if f.TupleOrig.Proto.DestinationPort == 53 && len(f.Labels) == len(bits) {
				bits = [16]byte(f.Labels)
			}
		}
		return bits
	}
	if got, want := labels(), nft.LabelBits(nft.JudgedLabel); got != want {
		t.Errorf("who was let in has the labels %x, want %x", got, want)
	}
	d.endSessions("ssh", guest, 1)
	if got, want := labels(), nft.LabelBits(nft.JudgedLabel, nft.EndedLabel); got != want {
		t.Errorf("who was ended has the labels %x, want %x", got, want)
	}
}
