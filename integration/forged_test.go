package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/packet"
)

// The networks of a server with a LAN and two uplinks. The lab's own cable is the first
// uplink. Both lead to the same client, which stands for the internet.
var (
	lanServer4    = netip.MustParseAddr("198.51.100.1")
	lanServer6    = netip.MustParseAddr("2001:db8:7::1")
	lanClient4    = netip.MustParseAddr("198.51.100.2")
	lanClient6    = netip.MustParseAddr("2001:db8:7::2")
	secondServer4 = netip.MustParseAddr("203.0.113.1")
	secondServer6 = netip.MustParseAddr("2001:db8:8::1")
	secondClient4 = netip.MustParseAddr("203.0.113.2")
	secondClient6 = netip.MustParseAddr("2001:db8:8::2")
)

// crossroads is such a server.
type crossroads struct {
	internet, lan *lab // the same server, seen from either side
}

func newCrossroads(t *testing.T) crossroads {
	t.Helper()
	l := newLab(t)
	host, err := netlab.NewHost()
	must(t, err)
	t.Cleanup(func() { host.Close() })
	prefixes := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	lan := &lab{t: t, server: l.server, client: host, folder: l.folder}
	lan.serverLink, lan.clientLink, err = netlab.Link(l.server, host, prefixes(lanServer4, lanServer6), prefixes(lanClient4, lanClient6))
	must(t, err)
	must(t, host.Do(func() error { return errors.Join(everything(lanServer4), everything(lanServer6)) }))
	_, _, err = netlab.Link(l.server, l.client, prefixes(secondServer4, secondServer6), prefixes(secondClient4, secondClient6))
	must(t, err)
	must(t, l.server.Do(func() error {
		for _, p := range []netip.Prefix{many4, many6} {
			if err := netlink.RouteDel(&netlink.Route{Dst: ipNet(p)}); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		// The second uplink is the backup.
		for _, r := range []struct {
			via    netip.Addr
			metric int
		}{{client4, 100}, {client6, 100}, {secondClient4, 200}, {secondClient6, 200}} {
			all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if r.via.Is6() {
				all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(all), Gw: r.via.AsSlice(), Priority: r.metric}); err != nil {
				return fmt.Errorf("route by %s: %w", r.via, err)
			}
		}
		return nil
	}))
	// Switch off the kernel's own check, which is off by default.
	for _, h := range []*netlab.Host{l.server, l.client, host} {
		must(t, h.Do(func() error { return writeSysctl("ipv4/conf/all/rp_filter", "0") }))
	}
	return crossroads{l, lan}
}

const forgedRules = `door "ssh" {
  ports       = [22]
  sequence    = [4113, "27911/udp", 1840]
  seq_timeout = "30s"
  traps       = [5000, "6000/udp"]
  penalty_prefix = { ipv6 = 128 }
}`

// A packet from an interface without a route back to its source is forged. It traps no
// other source, ends no attempt of it, and does not count as its knock.
func TestForgedSourcesAreNotHeard(t *testing.T) {
	for _, c := range []struct {
		name           string
		lan            bool       // the forger is on the LAN; else on the internet
		to             netip.Addr // the server's address, which selects the interface
		owner, ownerTo netip.Addr // the impersonated source, and the address at which it knocks
	}{
		{"of the LAN, by the first uplink", false, server4, lanClient4, lanServer4},
		{"of the LAN, by the first uplink, IPv6", false, server6, lanClient6, lanServer6},
		{"of the LAN, by the second uplink", false, secondServer4, lanClient4, lanServer4},
		{"of the LAN, by the second uplink, IPv6", false, secondServer6, lanClient6, lanServer6},
		{"of the internet, by the LAN", true, lanServer4, nth(7, server4), server4},
		{"of the internet, by the LAN, IPv6", true, lanServer6, nth(7, server6), server6},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, harm := range []struct {
				name   string
				knocks []packet.Port // knocks that the true source sent before
				forged []packet.Port
				opens  bool // its next knocks must open the door
			}{
				{"a trap", nil, []packet.Port{tcp(5000)}, true},
				{"a datagram to a trap, within an attempt", survivalKnocks[:2], []packet.Port{udp(6000)}, true},
				{"another knock within an attempt", survivalKnocks[:2], []packet.Port{tcp(4113)}, true},
				{"the first knocks", nil, survivalKnocks[:2], false},
				{"all knocks", nil, survivalKnocks, false},
			} {
				t.Run(harm.name, func(t *testing.T) {
					t.Parallel()
					x := newCrossroads(t)
					x.internet.serve(22)
					d := x.internet.run(forgedRules)
					forger, owner := x.internet, x.lan
					if c.lan {
						forger, owner = x.lan, x.internet
					}
					owner.knock(c.owner, c.ownerTo, harm.knocks...)
					if len(harm.knocks) > 0 {
						eventually(t, "the attempt is known", func() bool {
							attempts := d.status().Attempts
							return len(attempts) == 1 && attempts[0].Step == len(harm.knocks)
						})
					}
					var segments []forge.Segment
					for i, p := range harm.forged {
						segments = append(segments, forge.Segment{From: c.owner, To: c.to, SourcePort: uint16(40000 + i),
							Port: p, Sequence: uint32(i), Flags: packet.SYN})
					}
					forger.send(segments...)
					// After the honest client's knocks are handled, the forged ones are
					// as well.
					honest := nth(1000, c.to)
					if c.lan {
						honest = lanClient4
						if c.to.Is6() {
							honest = lanClient6
						}
					}
					forger.knock(honest, c.to, survivalKnocks...)
					d.waitFor("opened", "source="+honest.String()+" ")

					if n := d.logged("trapped"); n > 0 {
						t.Error("a forged source is trapped")
					}
					if !harm.opens {
						owner.knock(c.owner, c.ownerTo, survivalKnocks[2:]...)
						if owner.admits(c.owner, c.ownerTo, 22) {
							t.Error("forged knocks count")
						}
						return
					}
					owner.knock(c.owner, c.ownerTo, survivalKnocks[len(harm.knocks):]...)
					if !owner.letsIn(c.owner, c.ownerTo, 22) {
						t.Error("who is impersonated cannot knock")
					}
				})
			}
		})
	}
}

// Packets from the second uplink count, although the best route back is the first one:
// many hosts have two uplinks and answer by one.
func TestWhoComesByTheSpareUplinkIsHeard(t *testing.T) {
	t.Parallel()
	x := newCrossroads(t)
	l := x.internet
	l.serve(22)
	for _, to := range []netip.Addr{server4, server6, secondServer4, secondServer6} {
		if !l.letsIn(nth(1, to), to, 22) {
			t.Fatalf("without a wall %s is out of reach, so that this tests nothing", to)
		}
	}
	var first netip.Addr
	must(t, l.server.Do(func() error {
		routes, err := netlink.RouteGet(nth(1, server4).AsSlice())
		if err == nil && len(routes) == 1 {
			first, _ = netip.AddrFromSlice(routes[0].Gw.To4())
		}
		return err
	}))
	if first != client4 {
		t.Fatalf("the way back is by %s, so that this tests nothing", first)
	}
	d := l.run(forgedRules)
	for i, to := range []netip.Addr{server4, server6, secondServer4, secondServer6} {
		guest, scout := nth(10+i, to), nth(20+i, to)
		l.knock(guest, to, survivalKnocks...)
		if !l.letsIn(guest, to, 22) {
			t.Errorf("%s: who knocks is refused", to)
		}
		l.knock(scout, to, tcp(5000))
		d.waitFor("trapped", "source="+scout.String()+" ")
		if l.admits(nth(30+i, to), to, 22) {
			t.Errorf("%s: a stranger gets in", to)
		}
	}
}
