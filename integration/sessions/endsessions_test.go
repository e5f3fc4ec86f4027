package sessions

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

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
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
func dialUDP(l *lab.Lab, from, to netip.Addr, port uint16) (conn net.Conn) {
	l.T.Helper()
	lab.Must(l.T, l.Client.Do(func() (err error) {
		d := net.Dialer{
			LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
			Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { lab.Freebind(int(fd), from) })
			},
		}
		conn, err = d.Dial("udp", netip.AddrPortFrom(to, port).String())
		return err
	}))
	l.T.Cleanup(func() { conn.Close() })
	return conn
}

// isDead reports whether a session returns nothing in several tries.
func isDead(conn net.Conn) bool {
	for range 3 {
		conn.SetDeadline(time.Now().Add(lab.Short))
		if lab.Ping(conn) == nil {
			return false
		}
	}
	return true
}

// flows returns the flows of a source in the server's conntrack.
func flows(l *lab.Lab, source netip.Addr) (flows []conntrack.Flow) {
	l.T.Helper()
	lab.Must(l.T, l.Server.Do(func() error {
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
func unmarked(l *lab.Lab, source netip.Addr, ports ...uint16) bool {
	l.T.Helper()
	seen := 0
	for _, f := range flows(l, source) {
		for _, port := range ports {
			if f.TupleOrig.Proto.DestinationPort == port {
				seen++
				if f.Mark != othersMark {
					l.T.Logf("%s has the mark %#x", f.TupleOrig, f.Mark)
					return true
				}
			}
		}
	}
	if seen == 0 {
		l.T.Errorf("conntrack knows nothing of %s", source)
	}
	return false
}

// endSessions closes a door for a source, and checks that at least that many sessions
// ended.
func endSessions(d *lab.Daemon, door string, source netip.Addr, atLeast int) {
	d.Lab.T.Helper()
	c, err := control.NewClient(d.Control).Close(context.Background(), door, source.String(), true)
	lab.Must(d.Lab.T, err)
	if c.Ended < atLeast {
		d.Lab.T.Errorf("%d sessions of %s were ended, want %d", c.Ended, source, atLeast)
	}
}

// admittedPackets returns the kernel's counter of first packets that it accepted for
// sources with a window.
func admittedPackets(l *lab.Lab) string {
	l.T.Helper()
	return l.Nft("list", "counter", "inet", "knockwall", "ssh_admitted")
}

// An ended session stays ended, whatever marks other programs set, and their marks stay.
// It continues after its source has knocked again, without the daemon handling its
// packets.
func TestEndedSessionsStayEndedWhateverMarksOthersSet(t *testing.T) {
	for name, script := range marking {
		for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
			t.Run(fmt.Sprint(name, " ", server), func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				l.ServeTCP(22)
				l.ServeUDP(53, server)
				l.LoadNft(script)
				d := l.Run(endRules)
				guest, other := lab.Source(1, server), lab.Source(2, server)
				session, kept := l.Enter(guest, server), l.Enter(other, server)
				flow, keptFlow := dialUDP(l, guest, server, 53), dialUDP(l, other, server, 53)
				lab.Must(t, errors.Join(lab.Exchange(flow), lab.Exchange(flow), lab.Exchange(keptFlow)))
				for range 2 { // a session whose mark was cleared can be ended again
					endSessions(d, "ssh", guest, 1)
					if !isDead(flow) {
						t.Error("the datagrams go on")
					}
					if !isDead(session) {
						t.Error("the session goes on")
					}
					if unmarked(l, guest, 53) {
						t.Error("a mark of somebody else's has gone")
					}
					lab.Must(t, errors.Join(lab.Exchange(kept), lab.Exchange(keptFlow)))
					l.Knock(guest, server, lab.Knocks...)
					lab.Must(t, lab.Exchange(flow))
					before := admittedPackets(l)
					for range 100 {
						lab.Must(t, lab.Exchange(flow))
					}
					if after := admittedPackets(l); after != before {
						t.Errorf("datagrams wait for the daemon:\n%s%s", before, after)
					}
				}
				lab.Must(t, lab.Exchange(l.Enter(guest, server)))
			})
		}
	}
}

// Conntrack entries from before the wall have no room for labels.
func TestSessionsThatAreOlderThanTheWallAreEnded(t *testing.T) {
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprint(server, " known to conntrack: ", known), func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				l.ServeTCP(22)
				l.ServeUDP(53, server)
				if known {
					l.LoadNft(marking["the first"])
				}
				guest := lab.Source(1, server)
				session, flow := l.OpenSession(guest, server), dialUDP(l, guest, server, 53)
				lab.Must(t, lab.Exchange(flow))
				d := l.Run(endRules)
				lab.Must(t, lab.Exchange(session))
				if !known {
					endSessions(d, "ssh", guest, 1)
					if !isDead(session) {
						t.Error("the session goes on")
					}
					return
				}
				lab.Must(t, lab.Exchange(flow))
				endSessions(d, "ssh", guest, 2)
				if !isDead(flow) || !isDead(session) {
					t.Error("they go on")
				}
				if unmarked(l, guest, 53) {
					t.Error("a mark of somebody else's has gone")
				}
				l.Knock(guest, server, lab.Knocks...)
				lab.Must(t, lab.Exchange(flow))
			})
		}
	}
}

// A flow that is created again loses its NAT. The kernel must translate it anew.
func TestAPublishedFlowThatIsOlderThanTheWallIsEndedAndGoesOn(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.AddInside(80)
	l.LoadNft(fmt.Sprintf(`table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		fib daddr type local udp dport 53 dnat to %s:80
	}
}`, lab.Inside))
	guest := lab.Source(1, lab.Server4)
	flow := dialUDP(l, guest, lab.Server4, 53)
	lab.Must(t, lab.Exchange(flow))
	d := l.Run(endRules)
	lab.Must(t, lab.Exchange(flow))
	endSessions(d, "ssh", guest, 1)
	if !isDead(flow) {
		t.Error("it goes on")
	}
	l.Knock(guest, lab.Server4, lab.Knocks...)
	d.WaitFor("opened ", guest.String())
	lab.Must(t, lab.Exchange(flow))
}

// A session stays ended after another daemon starts, which finds it when its source
// knocks again.
func TestEndedSessionsStayEndedWhenTheDaemonStartsAgain(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeUDP(53, lab.Server4)
	d := l.Run(endRules)
	guest := lab.Source(1, lab.Server4)
	l.Knock(guest, lab.Server4, lab.Knocks...)
	flow := dialUDP(l, guest, lab.Server4, 53)
	lab.Must(t, lab.Exchange(flow))
	endSessions(d, "ssh", guest, 1)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		d.Stop(signal)
		if !isDead(flow) {
			t.Errorf("it goes on after %v", signal)
		}
		d = l.Run(endRules)
		if !isDead(flow) {
			t.Error("it goes on after a restart")
		}
	}
	l.Knock(guest, lab.Server4, lab.Knocks...)
	lab.Must(t, lab.Exchange(flow))
}

// Neither another door nor a trusted source lets packets of an ended session pass.
func TestWhatWasEndedPassesByNoOtherDoor(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeUDP(53, lab.Server4)
	guest, friend := lab.Source(1, lab.Server4), lab.Source(2, lab.Server4)
	d := l.Run(fmt.Sprintf("wall {\n trusted = [%q]\n}\n", friend) + endRules + `
door "other" {
  ports    = ["53/udp"]
  sequence = [5227, 911, 30411]
  window   = "10m"
}`)
	l.Knock(guest, lab.Server4, lab.Knocks...)
	flow, trusted := dialUDP(l, guest, lab.Server4, 53), dialUDP(l, friend, lab.Server4, 53)
	lab.Must(t, errors.Join(lab.Exchange(flow), lab.Exchange(trusted)))
	l.Knock(guest, lab.Server4, lab.TCP(5227), lab.TCP(911), lab.TCP(30411))
	d.WaitFor("opened ", "door=other", guest.String())
	endSessions(d, "ssh", guest, 1)
	endSessions(d, "ssh", friend, 1)
	if !isDead(flow) {
		t.Error("it goes on by the other door")
	}
	if !isDead(trusted) {
		t.Error("it goes on, as its source is trusted")
	}
	lab.Must(t, lab.Exchange(dialUDP(l, guest, lab.Server4, 53)))
	l.Knock(guest, lab.Server4, lab.TCP(5227), lab.TCP(911), lab.TCP(30411))
	lab.Must(t, lab.Exchange(flow))
}

// dialAs connects from a port and with a sequence number that normally are random. The
// connection ends with an RST.
func dialAs(l *lab.Lab, from, to netip.Addr, sourcePort uint16, sequence uint32, timeout time.Duration) error {
	return l.Client.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		limit := unix.NsecToTimeval(int64(timeout))
		err = errors.Join(
			lab.Freebind(fd, from),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, 2), // TCP_SEND_QUEUE
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(sequence)),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 0),
			unix.Bind(fd, lab.Sockaddr(from, sourcePort)),
		)
		if err != nil {
			return fmt.Errorf("no socket: %w", err)
		}
		return lab.ConnectSocket(fd, lab.Sockaddr(to, 22))
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
			l := lab.New(t)
			l.ServeTCP(22)
			d := l.Run(limitedRules(connections))
			guest := lab.Source(1, lab.Server4)
			l.Knock(guest, lab.Server4, lab.Knocks...)
			lab.Must(t, dialAs(l, guest, lab.Server4, 40000, 7, lab.Deadline))
			for range 2 {
				if err := dialAs(l, guest, lab.Server4, 40000, 7, lab.Short); !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EAGAIN) {
					t.Errorf("what looks the same is let in, or: %v", err)
				}
			}
			// It was not counted.
			for n := 1; n < connections; n++ {
				lab.Must(t, dialAs(l, guest, lab.Server4, 40001, 7, lab.Deadline))
			}
			if l.AdmitsAtOnce(guest, lab.Server4, 22) {
				t.Error("more are admitted than may")
			}
			if n := d.Logged("accepted "); n != connections {
				t.Errorf("%d were accepted", n)
			}
			l.Knock(guest, lab.Server4, lab.Knocks...)
			lab.Must(t, dialAs(l, guest, lab.Server4, 40000, 7, lab.Deadline))
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
			l := lab.New(t)
			l.ServeTCP(22)
			l.LoadNft("table inet lossy {\n chain c {\n " + lossy + " limit rate 1/day burst 1 packets counter drop\n }\n}\n")
			d := l.Run(limitedRules(1))
			guest := lab.Source(1, lab.Server4)
			l.Knock(guest, lab.Server4, lab.Knocks...)
			if !l.Admits(guest, lab.Server4, 22) {
				t.Error("refused")
			}
			if !strings.Contains(l.Nft("list", "table", "inet", "lossy"), "counter packets 1 ") {
				t.Fatal("nothing was lost, so that this tests nothing")
			}
			if l.AdmitsAtOnce(guest, lab.Server4, 22) {
				t.Error("more than one gets in")
			}
			d.WaitFor("closed ", "max_connections is reached")
			if n := d.Logged("accepted "); n != 1 {
				t.Errorf("%d were accepted", n)
			}
		})
	}
}

// Until an admitted connection is established, its SYN passes without the daemon, which
// may have ended.
func TestASYNThatIsSentAgainPassesByTheKernelsHand(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.LoadNft(`table inet deaf {
	chain arrive {
		type filter hook input priority 0;
		tcp dport 22 tcp flags syn / syn,ack counter
	}
	chain answer {
		type filter hook output priority 0;
		tcp sport 22 drop
	}
}`)
	d := l.Run(limitedRules(1))
	guest, stranger := lab.Source(1, lab.Server4), lab.Source(2, lab.Server4)
	l.Knock(guest, lab.Server4, lab.Knocks...)
	d.WaitFor("opened ", guest.String())
	syn := forge.Segment{From: guest, To: lab.Server4, SourcePort: 40000, Port: lab.TCP(22), Sequence: 7, Flags: packet.SYN}
	arrived := func(n int) func() bool {
		return func() bool {
			return strings.Contains(l.Nft("list", "chain", "inet", "deaf", "arrive"), fmt.Sprintf("counter packets %d ", n))
		}
	}
	l.Send(syn)
	eventually.True(t, "the SYN arrives", arrived(1))
	d.WaitFor("closed ", "max_connections is reached") // else another connection may pass
	d.Stop(syscall.SIGKILL)
	l.Send(syn)
	eventually.True(t, "it arrives again", arrived(2))
	other := syn
	other.SourcePort++
	strange := syn
	strange.From = stranger
	l.Send(other, strange, syn)
	eventually.True(t, "it arrives once more", arrived(3))
	for _, who := range []netip.Addr{guest, stranger} {
		for _, f := range flows(l, who) {
			if f.TupleOrig.Proto.DestinationPort == 22 && f.TupleOrig.Proto.SourcePort != syn.SourcePort {
				t.Errorf("another connection got in: %s", f.TupleOrig)
			}
		}
	}
}

// The label that the wall uses is the one that other programs see.
func TestTheKernelAndOthersSeeTheSameLabels(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeUDP(53, lab.Server4)
	d := l.Run(endRules)
	guest := lab.Source(1, lab.Server4)
	l.Knock(guest, lab.Server4, lab.Knocks...)
	flow := dialUDP(l, guest, lab.Server4, 53)
	lab.Must(t, lab.Exchange(flow))
	labels := func() (bits [16]byte) {
		for _, f := range flows(l, guest) {
			if f.TupleOrig.Proto.DestinationPort == 53 && len(f.Labels) == len(bits) {
				bits = [16]byte(f.Labels)
			}
		}
		return bits
	}
	if got, want := labels(), nft.LabelBits(nft.JudgedLabel); got != want {
		t.Errorf("who was let in has the labels %x, want %x", got, want)
	}
	endSessions(d, "ssh", guest, 1)
	if got, want := labels(), nft.LabelBits(nft.JudgedLabel, nft.EndedLabel); got != want {
		t.Errorf("who was ended has the labels %x, want %x", got, want)
	}
}

// What is established ends with its window where that is asked for, for both
// sides, and only for that source and door.
func TestClosingEndsSessions(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		l := lab.New(t)
		l.ServeTCP(22)
		d := l.Run(lab.RulesWith("", "30s"))
		client := control.NewClient(d.Control)
		guest, other := lab.Source(1, server), lab.Source(2, server)
		sessions := []net.Conn{l.Enter(guest, server), l.Enter(guest, server)}
		kept := l.Enter(other, server)

		closed, err := client.Close(context.Background(), "ssh", guest.String(), false)
		lab.Must(t, err)
		if !closed.Closed || closed.Ended != 0 {
			t.Errorf("closed: %+v", closed)
		}
		if l.AdmitsAtOnce(guest, server, 22) {
			t.Error("a new connection gets in through a closed window")
		}
		for _, s := range sessions {
			lab.Must(t, lab.Exchange(s))
		}

		closed, err = client.Close(context.Background(), "ssh", guest.String(), true)
		lab.Must(t, err)
		if closed.Closed || closed.Ended < len(sessions) {
			t.Errorf("closed with sessions: %+v", closed)
		}
		for i, s := range sessions {
			s.SetDeadline(time.Now().Add(2 * time.Second))
			if err := lab.Ping(s); err == nil {
				t.Errorf("session %d goes on", i)
			}
		}
		lab.Must(t, lab.Exchange(kept))
		again := l.Enter(guest, server)
		lab.Must(t, lab.Exchange(again))
		lab.Must(t, lab.Exchange(kept))
	}
}
