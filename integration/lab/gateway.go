package lab

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/internal/netlab"
)

// Inside and Inside6 are the addresses of a host behind the server, which forwards to it.
var (
	Inside  = netip.MustParseAddr("198.51.100.2")
	Inside6 = netip.MustParseAddr("2001:db8:2::2")
)

// AddInside adds the host behind the server, with echo services on a TCP and a UDP port.
func (l *Lab) AddInside(port int) *netlab.Host {
	l.T.Helper()
	host, err := netlab.NewHost()
	Must(l.T, err)
	l.T.Cleanup(func() { host.Close() })
	gateway, gateway6 := Inside.Prev(), Inside6.Prev()
	on := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	_, _, err = netlab.Link(l.Server, host, on(gateway, gateway6), on(Inside, Inside6))
	Must(l.T, err)
	Must(l.T, host.Do(func() error { return errors.Join(AddDefaultRoute(gateway), AddDefaultRoute(gateway6)) }))
	Must(l.T, l.Client.Do(func() error { return errors.Join(AddDefaultRoute(Server4), AddDefaultRoute(Server6)) }))
	Must(l.T, l.Server.Do(func() error {
		return errors.Join(WriteSysctl("ipv4/ip_forward", "1"), WriteSysctl("ipv6/conf/all/forwarding", "1"))
	}))
	outer := l.Server
	l.Server = host
	l.ServeTCP(port)
	l.ServeUDP(port, Inside)
	l.Server = outer
	return host
}

// AddDefaultRoute adds a default route on the caller's host.
func AddDefaultRoute(via netip.Addr) error {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if via.Is6() {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netlink.RouteAdd(&netlink.Route{Dst: IPNet(all), Gw: via.AsSlice()})
}
