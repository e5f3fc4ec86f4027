package integration

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/packet"
)

// With on_failure = "open" a dead daemon keeps nobody out, be there a flood or not; the
// rates that spare the daemon are nothing to those who do not wait for it. While it
// lives, the flood's sources are strangers.
func TestADeadDaemonKeepsNobodyOutOfAnOpenDoorInAFlood(t *testing.T) {
	needs(t, "nft")
	for _, c := range []struct {
		name   string
		server netip.Addr
		flood  packet.Port
		port   packet.Port // of the same door; a program that is flooded loses datagrams by itself
	}{
		{"IPv4", server4, tcp(22), tcp(22)},
		{"IPv6", server6, tcp(22), tcp(22)},
		{"IPv4, datagrams", server4, udp(5305), udp(5306)},
		{"IPv6, datagrams", server6, udp(5305), udp(5306)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.serve(22)
			l.serveUDP(5305, netip.IPv6Unspecified())
			l.serveUDP(5306, netip.IPv6Unspecified())
			l.watchStrangers()
			d := l.run(`door "ssh" {
  ports      = [22, "5305-5306/udp"]
  sequence   = [4113, "27911/udp", 1840]
  on_failure = "open"
}`)
			enters := func(from netip.Addr) error {
				if c.port.Protocol == packet.UDP {
					return l.echoes(from, c.server, c.port.Number, time.Second)
				}
				return l.onFirstSYN(from, c.server)
			}
			f := l.stream(forge.Stream{To: c.server, Ports: []packet.Port{c.flood}, Payload: 16, Rate: 20_000})
			eventually(t, "the flood is on", func() bool { return f.Sent() > 20_000 })
			if l.admits(nth(1000, c.server), c.server, 22) {
				t.Error("while the daemon runs, a stranger gets in")
			}
			for _, through := range l.strangersThrough() {
				t.Errorf("while the daemon runs, the flood's packets have reached the program: %s", through)
			}

			d.end(syscall.SIGKILL)
			sent := f.Sent()
			eventually(t, "what rates let through at first is used up", func() bool { return f.Sent() > sent+20_000 })
			honest, in := 50, 0
			var first error
			began := time.Now()
			for n := range honest {
				if err := enters(nth(n+1, c.server)); err == nil {
					in++
				} else if first == nil {
					first = err
				}
				time.Sleep(20 * time.Millisecond) // so that the flood lasts
			}
			took := time.Since(began)
			f.end()
			t.Logf("%.0f packets a second; %d of %d honest strangers got in by their first packet, in %s; %s", f.Rate(), in, honest, took, l.conntrack())
			if in != honest {
				t.Errorf("with the daemon dead, %d of %d got in by their first packet; the first who did not: %v", in, honest, first)
			}
		})
	}
}

// echoes sends one datagram from one of the client's addresses, and returns an error if
// it does not come back in time.
func (l *lab) echoes(from, to netip.Addr, port uint16, timeout time.Duration) error {
	return l.client.Do(func() error {
		fd, err := boundSocket(from, to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		limit := unix.NsecToTimeval(int64(timeout))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			return err
		}
		if err := unix.Sendto(fd, []byte("ping"), 0, sockaddr(to, port)); err != nil {
			return err
		}
		b := make([]byte, 4)
		n, err := receive(fd, b)
		if err == nil && string(b[:n]) != "ping" {
			err = fmt.Errorf("%q came back", b[:n])
		}
		return err
	})
}

// The groups that a program of the server is a member of.
var (
	group4 = netip.MustParseAddr("224.0.0.251")
	group6 = netip.MustParseAddr("ff02::fb")
	all4   = netip.MustParseAddr("192.0.2.255") // the cable's broadcast address
)

// What the host itself sends to a group or to all comes back by the interface that it
// went out by. That is nobody's knock at the door, and no stranger can look like it.
func TestTheHostsOwnMulticastIsNoStrangers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	// The kernel would drop most of what pretends to be from here; not all of it.
	must(t, l.server.Do(func() error { return writeSysctl("ipv4/conf/all/accept_local", "1") }))
	member := l.newMember(t, 5353)
	client := map[bool]netip.Addr{true: client4, false: client6}
	server := map[bool]netip.Addr{true: server4, false: server6}
	groups := []netip.Addr{group4, all4, group6}
	// send has all of them send to all groups.
	send := func(when string) (own, strangers []string) {
		t.Helper()
		for _, to := range groups {
			v4 := to.Is4()
			payload := func(who string) string { return fmt.Sprintf("%s: %s to %s", when, who, to) }
			own = append(own, payload("the host"))
			sendBy(t, l.server, l.serverLink, server[v4], to, 5353, payload("the host"))
			strangers = append(strangers, payload("a stranger"))
			sendBy(t, l.client, l.clientLink, client[v4], to, 5353, payload("a stranger"))
			strangers = append(strangers, payload("a stranger by the host's address"))
			l.forgeBy(t, forge.Segment{From: server[v4], To: to, SourcePort: 40000, Port: udp(5353), Payload: []byte(payload("a stranger by the host's address"))})
		}
		return own, strangers
	}
	own, strangers := send("without a wall")
	for _, payload := range append(own, strangers...) {
		eventually(t, payload+" is heard", func() bool { return member.heard(payload) })
	}
	l.run(`door "mdns" {
  ports    = ["5353/udp"]
  sequence = [4113, "27911/udp", 1840]
}`)
	own, strangers = send("with a wall")
	time.Sleep(short)
	for _, payload := range own {
		if !member.heard(payload) {
			t.Errorf("not heard %s", payload)
		}
	}
	for _, payload := range strangers {
		if member.heard(payload) {
			t.Errorf("heard %s", payload)
		}
	}
}

// member is a program of the server that has joined the groups.
type member struct {
	mu       sync.Mutex
	payloads map[string]bool
}

func (l *lab) newMember(t *testing.T, port int) *member {
	t.Helper()
	m := &member{payloads: map[string]bool{}}
	must(t, l.server.Do(func() error {
		link, err := netlink.LinkByName(l.serverLink)
		if err != nil {
			return err
		}
		index := link.Attrs().Index
		for _, network := range []string{"udp4", "udp6"} {
			conn, err := net.ListenUDP(network, &net.UDPAddr{Port: port})
			if err != nil {
				return err
			}
			t.Cleanup(func() { conn.Close() })
			raw, err := conn.SyscallConn()
			if err != nil {
				return err
			}
			var joined error
			err = raw.Control(func(fd uintptr) {
				if network == "udp4" {
					joined = unix.SetsockoptIPMreqn(int(fd), unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group4.As4(), Ifindex: int32(index)})
				} else {
					joined = unix.SetsockoptIPv6Mreq(int(fd), unix.SOL_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group6.As16(), Interface: uint32(index)})
				}
			})
			if err != nil || joined != nil {
				return fmt.Errorf("joining a group: %w, %w", err, joined)
			}
			go func() {
				b := make([]byte, 2048)
				for {
					n, _, err := conn.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					m.mu.Lock()
					m.payloads[string(b[:n])] = true
					m.mu.Unlock()
				}
			}()
		}
		return nil
	}))
	return m
}

func (m *member) heard(payload string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.payloads[payload]
}

// sendBy sends a datagram by one interface of a host.
func sendBy(t *testing.T, h *netlab.Host, link string, from, to netip.Addr, port uint16, payload string) {
	t.Helper()
	must(t, h.Do(func() error {
		fd, err := boundSocket(from, to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := sendsToAll(fd, link); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte(payload), 0, sockaddr(to, port))
	}))
}

// sendsToAll lets a socket send to broadcast and multicast addresses by an interface.
func sendsToAll(fd int, link string) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return err
	}
	return unix.BindToDevice(fd, link)
}

// forgeBy sends segments by the client's end of the cable, to whatever address.
func (l *lab) forgeBy(t *testing.T, segments ...forge.Segment) {
	t.Helper()
	for _, s := range segments {
		fd := l.rawSocket(s.To)
		must(t, sendsToAll(fd, l.clientLink))
		must(t, s.Send(fd))
		must(t, unix.Close(fd))
	}
}
