package paths

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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/packet"
)

// Addresses that the client reaches through the server, and that no interface there has.
var (
	elsewhere4 = netip.MustParseAddr("203.0.113.9")
	elsewhere6 = netip.MustParseAddr("2001:db8:9::9")
)

// way is an address or port other than the server's own that leads to its port 22.
type way struct {
	name    string
	prepare func(l *lab.Lab)
	to      netip.Addr
	port    uint16
	door    netip.Addr // the address at which the door guards it
}

var ways = []way{
	{"an address of another table", addLocalElsewhere, elsewhere4, 22, elsewhere4},
	{"an address of another table, IPv6", addLocalElsewhere, elsewhere6, 22, elsewhere6},
	{"a redirected port", nat("%s dport 8022 redirect to :22"), lab.Server4, 8022, lab.Server4},
	{"a redirected port, IPv6", nat("%s dport 8022 redirect to :22"), lab.Server6, 8022, lab.Server6},
	{"a port with DNAT to this host", nat("%s dport 8022 dnat ip to 192.0.2.1:22"), lab.Server4, 8022, lab.Server4},
	{"a port with DNAT to this host, IPv6", nat("%s dport 8022 dnat ip6 to [2001:db8::1]:22"), lab.Server6, 8022, lab.Server6},
	{"an address with DNAT to this host", nat("ip daddr 203.0.113.9 %s dport 22 dnat ip to 192.0.2.1:22"), elsewhere4, 22, lab.Server4},
	{"an address with DNAT to this host, IPv6", nat("ip6 daddr 2001:db8:9::9 %s dport 22 dnat ip6 to [2001:db8::1]:22"), elsewhere6, 22, lab.Server6},
}

// nat adds a NAT rule for TCP and UDP in prerouting.
func nat(rule string) func(l *lab.Lab) {
	return func(l *lab.Lab) {
		reachElsewhere(l)
		l.LoadNft(fmt.Sprintf("table inet nat {\n\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat;\n\t\t%s\n\t\t%s\n\t}\n}\n",
			fmt.Sprintf(rule, "tcp"), fmt.Sprintf(rule, "udp")))
	}
}

// reachElsewhere routes the addresses from the client to the server.
func reachElsewhere(l *lab.Lab) {
	l.T.Helper()
	lab.Must(l.T, l.Client.Do(func() error {
		for to, via := range map[netip.Addr]netip.Addr{elsewhere4: lab.Server4, elsewhere6: lab.Server6} {
			if err := netlink.RouteAdd(&netlink.Route{Dst: lab.IPNet(netip.PrefixFrom(to, to.BitLen())), Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route to %s: %w", to, err)
			}
		}
		return nil
	}))
}

// addLocalElsewhere makes the addresses local on the server by a routing rule and a table
// of its own, instead of the kernel's local table.
func addLocalElsewhere(l *lab.Lab) {
	l.T.Helper()
	reachElsewhere(l)
	const table = 100
	lab.Must(l.T, l.Server.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for a, family := range map[netip.Addr]int{elsewhere4: unix.AF_INET, elsewhere6: unix.AF_INET6} {
			to := lab.IPNet(netip.PrefixFrom(a, a.BitLen()))
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: to, Type: unix.RTN_LOCAL, Table: table, Scope: netlink.SCOPE_HOST}); err != nil {
				return fmt.Errorf("local route to %s: %w", a, err)
			}
			rule := netlink.NewRule()
			rule.Dst, rule.Table, rule.Family, rule.Priority = to, table, family, 100
			if err := netlink.RuleAdd(rule); err != nil {
				return fmt.Errorf("rule for %s: %w", a, err)
			}
		}
		return nil
	}))
}

// serveAnywhere answers on a TCP port like a transparent proxy, also at addresses that
// only a rule makes local.
func serveAnywhere(l *lab.Lab, port int) {
	l.T.Helper()
	lab.Must(l.T, l.Server.Do(func() error {
		config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var problem error
			err := raw.Control(func(fd uintptr) { problem = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
			return errors.Join(err, problem)
		}}
		listener, err := config.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		l.T.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		return nil
	}))
}

// Numbers of clients among the client's addresses.
const (
	aStranger = 1
	aGuest    = 2 // knocks
	aFriend   = 9 // is trusted
)

// deliveredRules guard port 22 of TCP and UDP, or another UDP port.
func deliveredRules(ports, to string) string {
	return fmt.Sprintf(`door "ssh" {
  ports    = [%s]
  sequence = [4113, "27911/udp", 1840]
  window   = "10m"
  trusted  = ["10.1.0.9", "2001:db8:1::9"]
  %s
}`, ports, to)
}

// Every packet for a guarded port of this host is judged, whatever address, route or NAT
// rule leads it there.
func TestNoWayLeadsAroundTheDoor(t *testing.T) {
	lab.NeedsProgram(t, "nft")
	for _, w := range ways {
		for _, named := range []bool{false, true} {
			name := w.name
			if named {
				name += ", of a door that names addresses"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				serveAnywhere(l, 22)
				l.ServeUDP(22, netip.IPv6Unspecified())
				addUplink(l, t) // otherwise an IPv6 address without a route would not count as another host's
				w.prepare(l)
				reaches := func(n int, p packet.Protocol, wait time.Duration) bool {
					if p == packet.UDP {
						return l.EchoesUDP(lab.Source(n, w.to), w.to, w.port, wait) == nil
					}
					return l.AdmitsWithin(lab.Source(n, w.to), w.to, int(w.port), wait)
				}
				protocols := []packet.Protocol{packet.TCP, packet.UDP}
				for _, p := range protocols {
					if !reaches(aStranger+100, p, lab.Deadline) {
						t.Fatalf("without a wall %s does not lead to the port, so that this tests nothing", p)
					}
				}
				to, knockAt := "", lab.Server4
				if w.to.Is6() {
					knockAt = lab.Server6
				}
				if named {
					to, knockAt = fmt.Sprintf("to = [%q]", w.door), w.door
				}
				d := l.Run(deliveredRules(`22, "22/udp"`, to))
				for _, p := range protocols {
					if reaches(aStranger, p, lab.Short) {
						t.Errorf("%s: a stranger gets in", p)
					}
					if !reaches(aFriend, p, lab.Deadline) {
						t.Errorf("%s: who is trusted is refused", p)
					}
				}
				guest := lab.Source(aGuest, w.to)
				l.Knock(guest, knockAt, lab.Knocks...)
				d.WaitFor("opened", "source="+guest.String()+" ")
				for _, p := range protocols {
					if !reaches(aGuest, p, lab.Deadline) {
						t.Errorf("%s: who has knocked is refused", p)
					}
				}
			})
		}
	}
}

// A UDP service also receives broadcast and multicast. A door that names this host's
// addresses guards that as well.
func TestADoorThatNamesAddressesGuardsWhatIsSentToAll(t *testing.T) {
	t.Parallel()
	for _, named := range []string{`"192.0.2.1", "2001:db8::1"`, `"192.0.2.0/24", "2001:db8::/64"`} {
		t.Run(named, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			member := newMember(l, t, 5353)
			groups := []netip.Addr{
				all4, netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.1"), group4,
				netip.MustParseAddr("ff02::1"), group6,
			}
			send := func(when string, n int) (payloads []string) {
				t.Helper()
				for _, to := range groups {
					payload := fmt.Sprintf("%s: number %d to %s", when, n, to)
					sendBy(t, l.Client, l.ClientLink, lab.Source(n, to), to, 5353, payload)
					payloads = append(payloads, payload)
				}
				return payloads
			}
			allHeard := func(payloads []string) {
				t.Helper()
				for _, payload := range payloads {
					eventually.True(t, payload+" is heard", func() bool { return member.heard(payload) })
				}
			}
			allHeard(send("without a wall", aStranger))
			d := l.Run(deliveredRules(`"5353/udp"`, "to = ["+named+"]"))
			strangers := send("with a wall", aStranger)
			allHeard(send("with a wall", aFriend))
			for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
				guest := lab.Source(aGuest, to)
				l.Knock(guest, to, lab.Knocks...)
				d.WaitFor("opened", "source="+guest.String()+" ")
			}
			allHeard(send("with a wall", aGuest))
			time.Sleep(lab.Short) // longer than the hold, after which a packet of a stranger is decided
			for _, payload := range strangers {
				if member.heard(payload) {
					t.Errorf("heard %s", payload)
				}
			}
		})
	}
}

// A door in a VRF works as elsewhere: it drops strangers and admits clients that knock.
func TestADoorInAVRF(t *testing.T) {
	for family, server := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
		for _, uplink := range []bool{false, true} {
			for _, to := range []string{"", fmt.Sprintf("to = [%q, %q]", lab.Server4, lab.Server6)} {
				words := []string{family}
				if uplink {
					words = append(words, "a default route outside of it")
				}
				if to != "" {
					words = append(words, "a door that names addresses")
				}
				t.Run(strings.Join(words, ", "), func(t *testing.T) {
					t.Parallel()
					l := lab.New(t)
					enslaveToVRF(l, t)
					if uplink {
						addUplink(l, t)
					}
					l.ServeTCP(22)
					echoInVRF(l, t, 22)
					if !l.Admits(lab.Source(100, server), server, 22) {
						t.Fatal("without a wall the server is out of reach, so that this tests nothing")
					}
					if err := l.EchoesUDP(lab.Source(100, server), server, 22, lab.Deadline); err != nil {
						t.Fatalf("without a wall no datagram comes back, so that this tests nothing: %v", err)
					}
					d := l.Run(deliveredRules(`22, "22/udp"`, to))
					if l.AdmitsAtOnce(lab.Source(aStranger, server), server, 22) {
						t.Error("a stranger gets in")
					}
					if l.EchoesUDP(lab.Source(aStranger, server), server, 22, lab.Short) == nil {
						t.Error("a stranger's datagram gets in")
					}
					if !l.Admits(lab.Source(aFriend, server), server, 22) {
						t.Error("who is trusted is refused")
					}
					guest := lab.Source(aGuest, server)
					l.Knock(guest, server, lab.Knocks...)
					d.WaitFor("opened", "source="+guest.String()+" ")
					if err := l.EchoesUDP(guest, server, 22, lab.Deadline); err != nil {
						t.Errorf("the datagram of who has knocked is refused: %v", err)
					}
					conn, err := l.Dial(guest, server, 22, lab.Deadline)
					if err != nil {
						t.Fatalf("who has knocked is refused: %v", err)
					}
					defer conn.Close()
					if err := lab.Exchange(conn); err != nil {
						t.Errorf("the session of who has knocked is dead: %v", err)
					}
				})
			}
		}
	}
}

const vrfName = "vrf-lab"

// echoInVRF answers on a UDP port. The socket is bound to the VRF, because otherwise the
// kernel would not look up the route of the answer in the VRF.
func echoInVRF(l *lab.Lab, t *testing.T, port int) {
	t.Helper()
	lab.Must(t, l.Server.Do(func() error {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		t.Cleanup(func() { conn.Close() })
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var bound error
		err = raw.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), vrfName) })
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				conn.WriteToUDPAddrPort(b[:n], from)
			}
		}()
		return errors.Join(err, bound)
	}))
}

// enslaveToVRF puts the server's end of the cable into a VRF, in which all TCP programs
// of the server listen. It skips the test if the kernel has no VRFs.
func enslaveToVRF(l *lab.Lab, t *testing.T) {
	t.Helper()
	const table = 1000
	vrf := &netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: vrfName}, Table: table}
	err := l.Server.Do(func() error { return netlink.LinkAdd(vrf) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no VRFs: CONFIG_NET_VRF; the virtual machine's has")
	}
	lab.Must(t, err)
	lab.Must(t, l.Server.Do(func() error {
		cable, err := netlink.LinkByName(l.ServerLink)
		if err != nil {
			return err
		}
		// Set the cable down first: the kernel would restart it, which does not always
		// work.
		for _, step := range []func() error{
			func() error { return netlink.LinkSetUp(vrf) },
			func() error { return netlink.LinkSetDown(cable) },
			func() error { return netlink.LinkSetMaster(cable, vrf) },
			func() error { return netlink.LinkSetUp(cable) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
		// IPv6 forgets the addresses of an interface that goes down.
		address := &netlink.Addr{IPNet: lab.IPNet(netip.PrefixFrom(lab.Server6, 64)), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(cable, address); err != nil {
			return err
		}
		for p, via := range map[netip.Prefix]netip.Addr{lab.Many4: lab.Client4, lab.Many6: lab.Client6} {
			if err := netlink.RouteReplace(&netlink.Route{LinkIndex: cable.Attrs().Index, Table: table, Dst: lab.IPNet(p), Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		return lab.WriteSysctl("ipv4/tcp_l3mdev_accept", "1")
	}))
}

// addUplink gives the server another cable with the default route, for what no VRF has a
// route for.
func addUplink(l *lab.Lab, t *testing.T) {
	t.Helper()
	host, err := netlab.NewHost()
	lab.Must(t, err)
	t.Cleanup(func() { host.Close() })
	gateway4, gateway6 := lab.Inside, lab.Inside6
	on := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	_, _, err = netlab.Link(l.Server, host, on(gateway4.Prev(), gateway6.Prev()), on(gateway4, gateway6))
	lab.Must(t, err)
	lab.Must(t, l.Server.Do(func() error { return errors.Join(lab.AddDefaultRoute(gateway4), lab.AddDefaultRoute(gateway6)) }))
}
