package paths

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/netlab"
)

// The groups that a program of the server is a member of.
var (
	group4 = netip.MustParseAddr("224.0.0.251")
	group6 = netip.MustParseAddr("ff02::fb")
	all4   = netip.MustParseAddr("192.0.2.255") // the cable's broadcast address
)

// Packets that the host itself sends to a group or to a broadcast address come back by the
// interface that they left by. The door does not take them for a stranger's, and a stranger
// cannot forge such packets.
func TestTheHostsOwnMulticastPassesAndForgedDoesNot(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	// By default the kernel drops most packets that claim to come from the host, but not
	// all.
	lab.Must(t, l.Server.Do(func() error { return lab.WriteSysctl("ipv4/conf/all/accept_local", "1") }))
	member := newMember(l, t, 5353)
	client := map[bool]netip.Addr{true: lab.Client4, false: lab.Client6}
	server := map[bool]netip.Addr{true: lab.Server4, false: lab.Server6}
	groups := []netip.Addr{group4, all4, group6}
	// send sends from all of them to all groups.
	send := func(when string) (own, strangers []string) {
		t.Helper()
		for _, to := range groups {
			v4 := to.Is4()
			payload := func(who string) string { return fmt.Sprintf("%s: %s to %s", when, who, to) }
			own = append(own, payload("the host"))
			sendBy(t, l.Server, l.ServerLink, server[v4], to, 5353, payload("the host"))
			strangers = append(strangers, payload("a stranger"))
			sendBy(t, l.Client, l.ClientLink, client[v4], to, 5353, payload("a stranger"))
			strangers = append(strangers, payload("a stranger by the host's address"))
			forgeBy(l, t, forge.Segment{From: server[v4], To: to, SourcePort: 40000, Port: lab.UDP(5353), Payload: []byte(payload("a stranger by the host's address"))})
		}
		return own, strangers
	}
	own, strangers := send("without a wall")
	for _, payload := range append(own, strangers...) {
		eventually.True(t, payload+" is received", func() bool { return member.heard(payload) })
	}
	l.Run(`door "mdns" {
  ports    = ["5353/udp"]
  sequence = [4113, "27911/udp", 1840]
}`)
	own, strangers = send("with a wall")
	time.Sleep(lab.Short)
	for _, payload := range own {
		if !member.heard(payload) {
			t.Errorf("not received: %s", payload)
		}
	}
	for _, payload := range strangers {
		if member.heard(payload) {
			t.Errorf("received: %s", payload)
		}
	}
}

// member is a program of the server that has joined the groups.
type member struct {
	mu       sync.Mutex
	payloads map[string]bool
}

func newMember(l *lab.Lab, t *testing.T, port int) *member {
	t.Helper()
	m := &member{payloads: map[string]bool{}}
	lab.Must(t, l.Server.Do(func() error {
		link, err := netlink.LinkByName(l.ServerLink)
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

// sendBy sends a datagram by one of a host's interfaces.
func sendBy(t *testing.T, h *netlab.Host, link string, from, to netip.Addr, port uint16, payload string) {
	t.Helper()
	lab.Must(t, h.Do(func() error {
		fd, err := lab.BoundSocket(from, to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := sendsToAll(fd, link); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte(payload), 0, lab.Sockaddr(to, port))
	}))
}

// sendsToAll lets a socket send to broadcast and multicast addresses by one interface.
func sendsToAll(fd int, link string) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return err
	}
	return unix.BindToDevice(fd, link)
}

// forgeBy sends segments by the client's interface, to any address.
func forgeBy(l *lab.Lab, t *testing.T, segments ...forge.Segment) {
	t.Helper()
	for _, s := range segments {
		fd := l.RawSocket(s.To)
		lab.Must(t, sendsToAll(fd, l.ClientLink))
		lab.Must(t, s.Send(fd))
		lab.Must(t, unix.Close(fd))
	}
}
