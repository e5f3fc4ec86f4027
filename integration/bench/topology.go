package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/packet"
)

// The addresses of a lab. The client host has the addresses of many clients (visitors). The
// sources of floods (everywhere) are routed to it, and it does not answer for them.
var (
	server     = netip.MustParseAddr("192.0.2.1")
	client     = netip.MustParseAddr("192.0.2.2")
	visitors   = netip.MustParsePrefix("10.1.0.0/16")
	everywhere = netip.MustParsePrefix("10.128.0.0/9")
	server6    = netip.MustParseAddr("2001:db8::1")
	client6    = netip.MustParseAddr("2001:db8::2")
	visitors6  = netip.MustParsePrefix("2001:db8:1::/64")
)

// door is the port that every system hides.
var door = packet.Port{Number: 22, Protocol: packet.TCP}

// lab is a server and a client on one cable, with a program that listens at the door. Each
// system has its own lab in each row, so that systems do not disturb each other and leave
// nothing behind for the next.
type lab struct {
	server, client         *netlab.Host
	serverLink, clientLink string
	hardware               net.HardwareAddr // MAC address of the server's interface
	listeners              []net.Listener
	folder                 string
	window                 time.Duration // how long a system opens the door
	apart                  bool          // the client has a core of its own
	visits                 int           // number of used addresses
}

func newLab(folder string, window time.Duration) (_ *lab, err error) {
	l := &lab{window: window}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.folder, err = os.MkdirTemp(folder, ""); err != nil {
		return nil, err
	}
	if l.server, err = netlab.NewHost(); err != nil {
		return nil, err
	}
	if l.client, err = netlab.NewHost(); err != nil {
		return nil, err
	}
	l.serverLink, l.clientLink, err = netlab.Link(l.server, l.client,
		[]netip.Prefix{netip.PrefixFrom(server, 24), netip.PrefixFrom(server6, 64)}, []netip.Prefix{netip.PrefixFrom(client, 24), netip.PrefixFrom(client6, 64)})
	if err != nil {
		return nil, err
	}
	err = l.client.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, p := range []netip.Prefix{visitors, visitors6} {
			if err := route(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, l.server.Do(func() error {
		link, err := netlink.LinkByName(l.serverLink)
		if err != nil {
			return err
		}
		l.hardware = link.Attrs().HardwareAddr
		for p, via := range map[netip.Prefix]netip.Addr{visitors: client, everywhere: client, visitors6: client6} {
			if err := route(&netlink.Route{Dst: ipNet(p), Gw: via.AsSlice()}); err != nil {
				return err
			}
		}
		for _, a := range []netip.Addr{server, server6} {
			listener, err := net.Listen("tcp", netip.AddrPortFrom(a, door.Number).String())
			if err != nil {
				return err
			}
			l.listeners = append(l.listeners, listener)
			go serve(listener)
		}
		return nil
	})
}

func route(r *netlink.Route) error {
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("route to %s: %w", r.Dst, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// serve accepts every connection and closes it.
func serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

func (l *lab) close() {
	for _, listener := range l.listeners {
		listener.Close()
	}
	for _, h := range []*netlab.Host{l.server, l.client} {
		if h != nil {
			h.Close()
		}
	}
	os.RemoveAll(l.folder)
}

// fresh returns an address that no client has used yet.
func (l *lab) fresh() netip.Addr {
	l.visits++
	a := visitors.Addr().As4()
	a[2], a[3] = byte(l.visits>>8), byte(l.visits)
	return netip.AddrFrom4(a)
}

// fresh6 is fresh for IPv6.
func (l *lab) fresh6() netip.Addr {
	l.visits++
	a := visitors6.Addr().As16()
	a[14], a[15] = byte(l.visits>>8), byte(l.visits)
	return netip.AddrFrom16(a)
}

// serverOf returns the server's address for clients with an address such as from.
func serverOf(from netip.Addr) netip.Addr {
	if from.Is6() {
		return server6
	}
	return server
}

// syn returns a SYN: a knock, or the first segment of a connection.
func syn(from netip.Addr, port packet.Port) forge.Segment {
	return forge.Segment{From: from, To: serverOf(from), SourcePort: 40000, Port: port, Sequence: 1, Flags: packet.SYN}
}
