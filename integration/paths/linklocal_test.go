package paths

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/packet"
)

// Two hosts on different links to the server have the same link-local address. The server
// has one address on both links.
var (
	twin        = netip.MustParseAddr("fe80::1")
	serverLocal = netip.MustParseAddr("fe80::a")
)

// neighbour is a host that talks to the server by link-local addresses.
type neighbour struct {
	t     *testing.T
	host  *netlab.Host
	index int // of its link
}

// newTwins returns the two hosts.
func newTwins(l *lab.Lab, t *testing.T) (a, b neighbour) {
	t.Helper()
	host, err := netlab.NewHost()
	lab.Must(t, err)
	t.Cleanup(func() { host.Close() })
	serverLink, link, err := netlab.Link(l.Server, host, nil, nil)
	lab.Must(t, err)
	for _, name := range []string{l.ServerLink, serverLink} {
		addLinkLocal(t, l.Server, name, serverLocal)
	}
	return neighbour{t, l.Client, addLinkLocal(t, l.Client, l.ClientLink, twin)},
		neighbour{t, host, addLinkLocal(t, host, link, twin)}
}

func addLinkLocal(t *testing.T, h *netlab.Host, link string, addr netip.Addr) (index int) {
	t.Helper()
	lab.Must(t, h.Do(func() error {
		device, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		index = device.Attrs().Index
		return netlink.AddrAdd(device, &netlink.Addr{IPNet: lab.IPNet(netip.PrefixFrom(addr, 64)), Flags: unix.IFA_F_NODAD})
	}))
	return index
}

func (n neighbour) knock(ports ...packet.Port) {
	n.t.Helper()
	lab.Must(n.t, n.host.Do(func() error {
		for _, p := range ports {
			kind := unix.SOCK_STREAM
			if p.Protocol == packet.UDP {
				kind = unix.SOCK_DGRAM
			}
			fd, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: twin.As16(), ZoneId: uint32(n.index)}); err != nil {
				return err
			}
			err = unix.Connect(fd, &unix.SockaddrInet6{Addr: serverLocal.As16(), Port: int(p.Number), ZoneId: uint32(n.index)})
			if p.Protocol == packet.UDP && err == nil {
				_, err = unix.Write(fd, []byte{0})
			}
			if err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
				return fmt.Errorf("knock at %s: %w", p, err)
			}
		}
		return nil
	}))
}

// admitted reports whether a new connection succeeds. It waits long only if want is true.
func (n neighbour) admitted(want bool) bool {
	timeout := lab.Short
	if want {
		timeout = lab.Deadline
	}
	return n.host.Do(func() error {
		zone := fmt.Sprint(n.index) // the name would be looked up on another host
		d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: twin.AsSlice(), Zone: zone}}
		conn, err := d.Dial("tcp6", netip.AddrPortFrom(serverLocal.WithZone(zone), 22).String())
		if err == nil {
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
		return err
	}) == nil
}

// A link-local address is a separate source on each link. Knocks, windows and penalties
// of one host do not affect the host with the same address on another link.
func TestALinkLocalSourceIsOnePerLink(t *testing.T) {
	t.Run("windows", func(t *testing.T) {
		t.Parallel()
		l := lab.New(t)
		l.ServeTCP(22)
		a, b := newTwins(l, t)
		if !a.admitted(true) || !b.admitted(true) {
			t.Fatal("without a wall the server is out of reach, so that this tests nothing")
		}
		d := l.Run(lab.RulesWith("", "10m"))
		check := func(when string, wantA, wantB bool) {
			t.Helper()
			if gotA, gotB := a.admitted(wantA), b.admitted(wantB); gotA != wantA || gotB != wantB {
				t.Errorf("%s the two are admitted: %v and %v, want %v and %v", when, gotA, gotB, wantA, wantB)
			}
		}
		check("before any knock", false, false)
		a.knock(lab.Knocks[:2]...)
		b.knock(lab.Knocks[2:]...)
		check("when the one has begun and the other has ended", false, false)
		a.knock(lab.Knocks[2:]...)
		check("when the one has knocked", true, false)
		d.Stop(syscall.SIGKILL)
		check("with the daemon killed", true, false)
		l.Run(lab.RulesWith("", "10m"))
		check("with the daemon started again", true, false)
		b.knock(lab.Knocks...)
		check("when both have knocked", true, true)
	})
	t.Run("traps", func(t *testing.T) {
		t.Parallel()
		l := lab.New(t)
		l.ServeTCP(22)
		a, b := newTwins(l, t)
		d := l.Run(`door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  traps    = [5000]
}`)
		b.knock(lab.TCP(5000))
		d.WaitFor("trapped", "door=ssh", "port=5000/tcp")
		a.knock(lab.Knocks...)
		b.knock(lab.Knocks...)
		if !a.admitted(true) {
			t.Error("the one cannot knock, as the other has tried a trap")
		}
		if b.admitted(false) {
			t.Error("who has tried a trap knocks all the same")
		}
	})
}
