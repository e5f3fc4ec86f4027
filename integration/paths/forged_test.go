package paths

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
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
	internet, lan *lab.Lab // the same server, seen from either side
}

func newCrossroads(t *testing.T) crossroads {
	t.Helper()
	l := lab.New(t)
	host, err := netlab.NewHost()
	lab.Must(t, err)
	t.Cleanup(func() { host.Close() })
	prefixes := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	lan := &lab.Lab{T: t, Server: l.Server, Client: host, Folder: l.Folder}
	lan.ServerLink, lan.ClientLink, err = netlab.Link(l.Server, host, prefixes(lanServer4, lanServer6), prefixes(lanClient4, lanClient6))
	lab.Must(t, err)
	lab.Must(t, host.Do(func() error { return errors.Join(lab.AddDefaultRoute(lanServer4), lab.AddDefaultRoute(lanServer6)) }))
	_, _, err = netlab.Link(l.Server, l.Client, prefixes(secondServer4, secondServer6), prefixes(secondClient4, secondClient6))
	lab.Must(t, err)
	lab.Must(t, l.Server.Do(func() error {
		for _, p := range []netip.Prefix{lab.Many4, lab.Many6} {
			if err := netlink.RouteDel(&netlink.Route{Dst: lab.IPNet(p)}); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		// The second uplink is the backup.
		for _, r := range []struct {
			via    netip.Addr
			metric int
		}{{lab.Client4, 100}, {lab.Client6, 100}, {secondClient4, 200}, {secondClient6, 200}} {
			all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if r.via.Is6() {
				all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			if err := netlink.RouteAdd(&netlink.Route{Dst: lab.IPNet(all), Gw: r.via.AsSlice(), Priority: r.metric}); err != nil {
				return fmt.Errorf("route by %s: %w", r.via, err)
			}
		}
		return nil
	}))
	// Switch off the kernel's own check, which is off by default.
	for _, h := range []*netlab.Host{l.Server, l.Client, host} {
		lab.Must(t, h.Do(func() error { return lab.WriteSysctl("ipv4/conf/all/rp_filter", "0") }))
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
		{"of the LAN, by the first uplink", false, lab.Server4, lanClient4, lanServer4},
		{"of the LAN, by the first uplink, IPv6", false, lab.Server6, lanClient6, lanServer6},
		{"of the LAN, by the second uplink", false, secondServer4, lanClient4, lanServer4},
		{"of the LAN, by the second uplink, IPv6", false, secondServer6, lanClient6, lanServer6},
		{"of the internet, by the LAN", true, lanServer4, lab.Source(7, lab.Server4), lab.Server4},
		{"of the internet, by the LAN, IPv6", true, lanServer6, lab.Source(7, lab.Server6), lab.Server6},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, harm := range []struct {
				name   string
				knocks []packet.Port // knocks that the true source sent before
				forged []packet.Port
				opens  bool // its next knocks must open the door
			}{
				{"a trap", nil, []packet.Port{lab.TCP(5000)}, true},
				{"a datagram to a trap, within an attempt", lab.Knocks[:2], []packet.Port{lab.UDP(6000)}, true},
				{"another knock within an attempt", lab.Knocks[:2], []packet.Port{lab.TCP(4113)}, true},
				{"the first knocks", nil, lab.Knocks[:2], false},
				{"all knocks", nil, lab.Knocks, false},
			} {
				t.Run(harm.name, func(t *testing.T) {
					t.Parallel()
					x := newCrossroads(t)
					x.internet.ServeTCP(22)
					d := x.internet.Run(forgedRules)
					forger, owner := x.internet, x.lan
					if c.lan {
						forger, owner = x.lan, x.internet
					}
					owner.Knock(c.owner, c.ownerTo, harm.knocks...)
					if len(harm.knocks) > 0 {
						eventually.True(t, "the attempt is known", func() bool {
							attempts := d.Status().Attempts
							return len(attempts) == 1 && attempts[0].Step == len(harm.knocks)
						})
					}
					var segments []forge.Segment
					for i, p := range harm.forged {
						segments = append(segments, forge.Segment{From: c.owner, To: c.to, SourcePort: uint16(40000 + i),
							Port: p, Sequence: uint32(i), Flags: packet.SYN})
					}
					forger.Send(segments...)
					// After the honest client's knocks are handled, the forged ones are
					// as well.
					honest := lab.Source(1000, c.to)
					if c.lan {
						honest = lanClient4
						if c.to.Is6() {
							honest = lanClient6
						}
					}
					forger.Knock(honest, c.to, lab.Knocks...)
					d.WaitFor("opened", "source="+honest.String()+" ")

					if n := d.Logged("trapped"); n > 0 {
						t.Error("a forged source is trapped")
					}
					if !harm.opens {
						owner.Knock(c.owner, c.ownerTo, lab.Knocks[2:]...)
						if owner.AdmitsAtOnce(c.owner, c.ownerTo, 22) {
							t.Error("forged knocks count")
						}
						return
					}
					owner.Knock(c.owner, c.ownerTo, lab.Knocks[len(harm.knocks):]...)
					if !owner.Admits(c.owner, c.ownerTo, 22) {
						t.Error("who is impersonated cannot knock")
					}
				})
			}
		})
	}
}

// Packets from the second uplink count, although the best route back is the first one:
// many hosts have two uplinks and answer by one.
func TestAClientOnTheSpareUplinkIsHeard(t *testing.T) {
	t.Parallel()
	x := newCrossroads(t)
	l := x.internet
	l.ServeTCP(22)
	for _, to := range []netip.Addr{lab.Server4, lab.Server6, secondServer4, secondServer6} {
		if !l.Admits(lab.Source(1, to), to, 22) {
			t.Fatalf("without a wall %s is out of reach, so that this tests nothing", to)
		}
	}
	var first netip.Addr
	lab.Must(t, l.Server.Do(func() error {
		routes, err := netlink.RouteGet(lab.Source(1, lab.Server4).AsSlice())
		if err == nil && len(routes) == 1 {
			first, _ = netip.AddrFromSlice(routes[0].Gw.To4())
		}
		return err
	}))
	if first != lab.Client4 {
		t.Fatalf("the way back is by %s, so that this tests nothing", first)
	}
	d := l.Run(forgedRules)
	for i, to := range []netip.Addr{lab.Server4, lab.Server6, secondServer4, secondServer6} {
		guest, scout := lab.Source(10+i, to), lab.Source(20+i, to)
		l.Knock(guest, to, lab.Knocks...)
		if !l.Admits(guest, to, 22) {
			t.Errorf("%s: who knocks is refused", to)
		}
		l.Knock(scout, to, lab.TCP(5000))
		d.WaitFor("trapped", "source="+scout.String()+" ")
		if l.AdmitsAtOnce(lab.Source(30+i, to), to, 22) {
			t.Errorf("%s: a stranger gets in", to)
		}
	}
}
