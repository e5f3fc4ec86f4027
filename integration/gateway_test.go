package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/internal/netlab"
)

// inside and inside6 are the addresses of a host behind the server, which forwards to it.
var (
	inside  = netip.MustParseAddr("198.51.100.2")
	inside6 = netip.MustParseAddr("2001:db8:2::2")
)

// addInside adds the host, with services that answer on a TCP and UDP port.
func (l *lab) addInside(port int) *netlab.Host {
	l.t.Helper()
	host, err := netlab.NewHost()
	must(l.t, err)
	l.t.Cleanup(func() { host.Close() })
	gateway, gateway6 := inside.Prev(), inside6.Prev()
	on := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	_, _, err = netlab.Link(l.server, host, on(gateway, gateway6), on(inside, inside6))
	must(l.t, err)
	must(l.t, host.Do(func() error { return errors.Join(everything(gateway), everything(gateway6)) }))
	must(l.t, l.client.Do(func() error { return errors.Join(everything(server4), everything(server6)) }))
	must(l.t, l.server.Do(func() error {
		return errors.Join(writeSysctl("ipv4/ip_forward", "1"), writeSysctl("ipv6/conf/all/forwarding", "1"))
	}))
	outer := l.server
	l.server = host
	l.serve(port)
	l.serveUDP(port, inside)
	l.server = outer
	return host
}

// everything adds a default route.
func everything(via netip.Addr) error {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if via.Is6() {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netlink.RouteAdd(&netlink.Route{Dst: ipNet(all), Gw: via.AsSlice()})
}

// A gateway guards a host behind it by the address in `to`. It does not guard the same
// port of other hosts and of itself.
func TestAGatewayGuardsAHostBehindIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	l.addInside(22)
	if !l.letsIn(client4, inside, 22) {
		t.Fatal("without a wall the host behind the gateway is out of reach, so that this tests nothing")
	}
	l.run(fmt.Sprintf(`door "inside" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  to       = [%q]
}`, inside))
	if l.admits(client4, inside, 22) {
		t.Error("a stranger gets through the gateway")
	}
	if !l.letsIn(client4, server4, 22) {
		t.Error("the gateway's own ssh is shut, too")
	}
	l.knock(client4, server4, survivalKnocks...)
	if l.admits(client4, inside, 22) {
		t.Error("knocks at the gateway itself have opened the door")
	}
	l.knock(client4, inside, survivalKnocks...)
	if !l.letsIn(client4, inside, 22) {
		t.Error("refused after the knocks")
	}
}

// The wall runs before DNAT: a forwarded port, as Docker publishes one for a container,
// is guarded as the port that clients connect to.
func TestAPublishedPortIsGuarded(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.addInside(80)
	l.nftScript(fmt.Sprintf(`table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		fib daddr type local tcp dport 8080 dnat to %s:80
	}
}`, inside))
	if !l.letsIn(client4, server4, 8080) {
		t.Fatal("without a wall the published port is out of reach, so that this tests nothing")
	}
	l.run(`door "web" {
  ports    = [8080]
  sequence = [4113, "27911/udp", 1840]
}`)
	if l.admits(client4, server4, 8080) {
		t.Error("a stranger gets in to the published port")
	}
	l.knock(client4, server4, survivalKnocks...)
	if !l.letsIn(client4, server4, 8080) {
		t.Error("refused after the knocks")
	}
}
