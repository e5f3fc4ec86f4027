package integration

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
	prepare func(l *lab)
	to      netip.Addr
	port    uint16
	door    netip.Addr // the address at which the door guards it
}

var ways = []way{
	{"an address of another table", (*lab).addLocalElsewhere, elsewhere4, 22, elsewhere4},
	{"an address of another table, IPv6", (*lab).addLocalElsewhere, elsewhere6, 22, elsewhere6},
	{"a redirected port", nat("%s dport 8022 redirect to :22"), server4, 8022, server4},
	{"a redirected port, IPv6", nat("%s dport 8022 redirect to :22"), server6, 8022, server6},
	{"a port with DNAT to this host", nat("%s dport 8022 dnat ip to 192.0.2.1:22"), server4, 8022, server4},
	{"a port with DNAT to this host, IPv6", nat("%s dport 8022 dnat ip6 to [2001:db8::1]:22"), server6, 8022, server6},
	{"an address with DNAT to this host", nat("ip daddr 203.0.113.9 %s dport 22 dnat ip to 192.0.2.1:22"), elsewhere4, 22, server4},
	{"an address with DNAT to this host, IPv6", nat("ip6 daddr 2001:db8:9::9 %s dport 22 dnat ip6 to [2001:db8::1]:22"), elsewhere6, 22, server6},
}

// nat adds a NAT rule for TCP and UDP in prerouting.
func nat(rule string) func(l *lab) {
	return func(l *lab) {
		l.reachElsewhere()
		l.nftScript(fmt.Sprintf("table inet nat {\n\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat;\n\t\t%s\n\t\t%s\n\t}\n}\n",
			fmt.Sprintf(rule, "tcp"), fmt.Sprintf(rule, "udp")))
	}
}

// reachElsewhere routes the addresses from the client to the server.
func (l *lab) reachElsewhere() {
	l.t.Helper()
	must(l.t, l.client.Do(func() error {
		for to, via := range map[netip.Addr]netip.Addr{elsewhere4: server4, elsewhere6: server6} {
			if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.PrefixFrom(to, to.BitLen())), Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route to %s: %w", to, err)
			}
		}
		return nil
	}))
}

// addLocalElsewhere makes the addresses local on the server by a routing rule and a table
// of its own, instead of the kernel's local table.
func (l *lab) addLocalElsewhere() {
	l.t.Helper()
	l.reachElsewhere()
	const table = 100
	must(l.t, l.server.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for a, family := range map[netip.Addr]int{elsewhere4: unix.AF_INET, elsewhere6: unix.AF_INET6} {
			to := ipNet(netip.PrefixFrom(a, a.BitLen()))
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
func (l *lab) serveAnywhere(port int) {
	l.t.Helper()
	must(l.t, l.server.Do(func() error {
		config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var problem error
			err := raw.Control(func(fd uintptr) { problem = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
			return errors.Join(err, problem)
		}}
		listener, err := config.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { listener.Close() })
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
	needs(t, "nft")
	for _, w := range ways {
		for _, named := range []bool{false, true} {
			name := w.name
			if named {
				name += ", of a door that names addresses"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.serveAnywhere(22)
				l.serveUDP(22, netip.IPv6Unspecified())
				l.addUplink(t) // otherwise an IPv6 address without a route would not count as another host's
				w.prepare(l)
				reaches := func(n int, p packet.Protocol, wait time.Duration) bool {
					if p == packet.UDP {
						return l.echoes(nth(n, w.to), w.to, w.port, wait) == nil
					}
					return l.connects(nth(n, w.to), w.to, int(w.port), wait)
				}
				protocols := []packet.Protocol{packet.TCP, packet.UDP}
				for _, p := range protocols {
					if !reaches(aStranger+100, p, deadline) {
						t.Fatalf("without a wall %s does not lead to the port, so that this tests nothing", p)
					}
				}
				to, knockAt := "", server4
				if w.to.Is6() {
					knockAt = server6
				}
				if named {
					to, knockAt = fmt.Sprintf("to = [%q]", w.door), w.door
				}
				d := l.run(deliveredRules(`22, "22/udp"`, to))
				for _, p := range protocols {
					if reaches(aStranger, p, short) {
						t.Errorf("%s: a stranger gets in", p)
					}
					if !reaches(aFriend, p, deadline) {
						t.Errorf("%s: who is trusted is refused", p)
					}
				}
				guest := nth(aGuest, w.to)
				l.knock(guest, knockAt, survivalKnocks...)
				d.waitFor("opened", "source="+guest.String()+" ")
				for _, p := range protocols {
					if !reaches(aGuest, p, deadline) {
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
			l := newLab(t)
			member := l.newMember(t, 5353)
			groups := []netip.Addr{
				all4, netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.1"), group4,
				netip.MustParseAddr("ff02::1"), group6,
			}
			send := func(when string, n int) (payloads []string) {
				t.Helper()
				for _, to := range groups {
					payload := fmt.Sprintf("%s: number %d to %s", when, n, to)
					sendBy(t, l.client, l.clientLink, nth(n, to), to, 5353, payload)
					payloads = append(payloads, payload)
				}
				return payloads
			}
			allHeard := func(payloads []string) {
				t.Helper()
				for _, payload := range payloads {
					eventually(t, payload+" is heard", func() bool { return member.heard(payload) })
				}
			}
			allHeard(send("without a wall", aStranger))
			d := l.run(deliveredRules(`"5353/udp"`, "to = ["+named+"]"))
			strangers := send("with a wall", aStranger)
			allHeard(send("with a wall", aFriend))
			for _, to := range []netip.Addr{server4, server6} {
				guest := nth(aGuest, to)
				l.knock(guest, to, survivalKnocks...)
				d.waitFor("opened", "source="+guest.String()+" ")
			}
			allHeard(send("with a wall", aGuest))
			time.Sleep(short) // longer than the hold, after which a packet of a stranger is decided
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
	for family, server := range map[string]netip.Addr{"IPv4": server4, "IPv6": server6} {
		for _, uplink := range []bool{false, true} {
			for _, to := range []string{"", fmt.Sprintf("to = [%q, %q]", server4, server6)} {
				words := []string{family}
				if uplink {
					words = append(words, "a default route outside of it")
				}
				if to != "" {
					words = append(words, "a door that names addresses")
				}
				t.Run(strings.Join(words, ", "), func(t *testing.T) {
					t.Parallel()
					l := newLab(t)
					l.enslaveToVRF(t)
					if uplink {
						l.addUplink(t)
					}
					l.serve(22)
					l.echoInVRF(t, 22)
					if !l.letsIn(nth(100, server), server, 22) {
						t.Fatal("without a wall the server is out of reach, so that this tests nothing")
					}
					if err := l.echoes(nth(100, server), server, 22, deadline); err != nil {
						t.Fatalf("without a wall no datagram comes back, so that this tests nothing: %v", err)
					}
					d := l.run(deliveredRules(`22, "22/udp"`, to))
					if l.admits(nth(aStranger, server), server, 22) {
						t.Error("a stranger gets in")
					}
					if l.echoes(nth(aStranger, server), server, 22, short) == nil {
						t.Error("a stranger's datagram gets in")
					}
					if !l.letsIn(nth(aFriend, server), server, 22) {
						t.Error("who is trusted is refused")
					}
					guest := nth(aGuest, server)
					l.knock(guest, server, survivalKnocks...)
					d.waitFor("opened", "source="+guest.String()+" ")
					if err := l.echoes(guest, server, 22, deadline); err != nil {
						t.Errorf("the datagram of who has knocked is refused: %v", err)
					}
					conn, err := l.dial(guest, server, 22, deadline)
					if err != nil {
						t.Fatalf("who has knocked is refused: %v", err)
					}
					defer conn.Close()
					if err := talks(conn); err != nil {
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
func (l *lab) echoInVRF(t *testing.T, port int) {
	t.Helper()
	must(t, l.server.Do(func() error {
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
func (l *lab) enslaveToVRF(t *testing.T) {
	t.Helper()
	const table = 1000
	vrf := &netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: vrfName}, Table: table}
	err := l.server.Do(func() error { return netlink.LinkAdd(vrf) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no VRFs: CONFIG_NET_VRF; the virtual machine's has")
	}
	must(t, err)
	must(t, l.server.Do(func() error {
		cable, err := netlink.LinkByName(l.serverLink)
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
		address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(server6, 64)), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(cable, address); err != nil {
			return err
		}
		for p, via := range map[netip.Prefix]netip.Addr{many4: client4, many6: client6} {
			if err := netlink.RouteReplace(&netlink.Route{LinkIndex: cable.Attrs().Index, Table: table, Dst: ipNet(p), Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		return writeSysctl("ipv4/tcp_l3mdev_accept", "1")
	}))
}

// addUplink gives the server another cable with the default route, for what no VRF has a
// route for.
func (l *lab) addUplink(t *testing.T) {
	t.Helper()
	host, err := netlab.NewHost()
	must(t, err)
	t.Cleanup(func() { host.Close() })
	gateway4, gateway6 := inside, inside6
	on := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	_, _, err = netlab.Link(l.server, host, on(gateway4.Prev(), gateway6.Prev()), on(gateway4, gateway6))
	must(t, err)
	must(t, l.server.Do(func() error { return errors.Join(everything(gateway4), everything(gateway6)) }))
}
