package integration

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/internal/netlab"
)

// inside is a host behind the server, which forwards to it.
var inside = netip.MustParseAddr("198.51.100.2")

// addInside puts the host there, with a service that answers on a port.
func (l *lab) addInside(port int) {
	l.t.Helper()
	host, err := netlab.NewHost()
	must(l.t, err)
	l.t.Cleanup(func() { host.Close() })
	gateway := netip.MustParseAddr("198.51.100.1")
	_, _, err = netlab.Link(l.server, host,
		[]netip.Prefix{netip.PrefixFrom(gateway, 24)}, []netip.Prefix{netip.PrefixFrom(inside, 24)})
	must(l.t, err)
	everywhere := func(via netip.Addr) *netlink.Route {
		return &netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: via.AsSlice()}
	}
	must(l.t, host.Do(func() error { return netlink.RouteAdd(everywhere(gateway)) }))
	must(l.t, l.client.Do(func() error { return netlink.RouteAdd(everywhere(server4)) }))
	must(l.t, l.server.Do(func() error { return writeSysctl("ipv4/ip_forward", "1") }))
	outer := l.server
	l.server = host
	l.serve(port)
	l.server = outer
}

// A gateway guards a host behind it, by the address that `to` names, and the
// same port of others and of itself is not its business.
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

// The wall stands before DNAT: a port that is forwarded elsewhere, as Docker
// publishes a container's, is guarded where it is published.
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
