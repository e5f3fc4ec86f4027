package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/wall"
)

// Obstacles for clients that knock correctly: other tables, one direction only, BPF.

// doctor finds a table that drops a door's port or knocks, for every source or for all but
// some. It does not report one that may accept the port for other reasons.
func TestTheDoctorFindsTablesThatDrop(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "nft")
	input := func(policy, rules string) string {
		return "table inet filter {\n  chain allowed {\n    tcp dport 22 accept\n  }\n  chain input {\n    type filter hook input priority filter; policy " + policy + ";\n    ct state established,related accept\n    iif lo accept\n    " + rules + "\n  }\n}\n"
	}
	const door, knocks, some = "drops what comes to 22/tcp", "drops knocks", "accepts 22/tcp only from some sources"
	for _, test := range []struct {
		name, script string
		severity     doctor.Severity
		words        string // empty: no finding
	}{
		{"a policy", input("drop", ""), doctor.Error, door},
		{"a policy, and the port accepted", input("drop", "tcp dport 22 accept"), "", ""},
		{"a policy, and the port in a set", input("drop", "tcp dport { 22, 80 } accept"), "", ""},
		{"a policy, and another port accepted", input("drop", "tcp dport 23-80 accept"), doctor.Error, door},
		{"a policy, and all accepted by a jump", input("drop", "jump allowed"), "", ""},
		{"a policy, and by a map of verdicts", input("drop", "tcp dport vmap { 22 : goto allowed }"), "", ""},
		{"a policy, and somebody accepted", input("drop", "ip saddr 192.0.2.0/24 accept"), doctor.Warning, some},
		{"a policy, and somebody by a prefix of bits", input("drop", "ip saddr 192.0.2.0/25 tcp dport 22 accept"), doctor.Warning, some},
		{"a policy, and a set of addresses", input("drop", "ip6 saddr { 2001:db8::1, 2001:db8::2 } tcp dport 22 accept"), doctor.Warning, some},
		{"a policy, and somebody by a jump", input("drop", "ip saddr 192.0.2.7 jump allowed"), doctor.Warning, some},
		{"a policy, and somebody at another port", input("drop", "ip saddr 192.0.2.0/24 tcp dport 80 accept"), doctor.Error, door},
		{"a policy, and pairs of an address and a port", input("drop", "ip saddr . tcp dport { 192.0.2.7 . 80 } accept"), "", ""},
		{"a policy, and a version of IP accepted", input("drop", "meta nfproto ipv4 tcp dport 22 accept"), "", ""},
		{"a policy, and somebody before everybody", input("drop", "ip saddr 192.0.2.7 accept\n    tcp dport 22 accept"), "", ""},
		{"what is for this host is dropped", input("accept", "fib daddr type local drop"), doctor.Error, door},
		{"only what is for others is dropped", input("drop", "fib daddr type local accept"), "", ""},
		{"a policy, and somebody by an interface", input("drop", "iifname eth7 tcp dport 22 accept"), "", ""},
		{"a rule", input("accept", "tcp dport 1-1000 drop"), doctor.Error, door},
		{"a rule that rejects", input("accept", "tcp dport 22 reject"), doctor.Error, door},
		{"a rule for somebody", input("accept", "ip saddr 203.0.113.7 tcp dport 22 drop"), "", ""},
		{"a rule for UDP", input("accept", "udp dport 22 drop"), "", ""},
		{"a rule behind another", input("accept", "tcp dport 22 accept\n    meta l4proto tcp drop"), "", ""},
		{"a rule against broadcasts", input("accept", "fib daddr type broadcast drop"), "", ""},
		{"a table of IPv6", strings.ReplaceAll(input("drop", ""), "inet", "ip6"), doctor.Warning, door + " by IPv6"},
		{"where it forwards", strings.ReplaceAll(input("drop", ""), "hook input", "hook forward"), "", ""},
		{"before the wall", "table inet early {\n  chain c {\n    type filter hook prerouting priority raw;\n    tcp dport { 1840, 22 } drop\n  }\n}\n", doctor.Error, knocks},
		{"behind the wall's hook", "table inet late {\n  chain c {\n    type filter hook prerouting priority filter;\n    tcp dport 22 drop\n  }\n}\n", doctor.Error, door},
		{"at the card", "table netdev early {\n  chain c {\n    type filter hook ingress device DEVICE priority 0;\n    udp dport 27911 drop\n  }\n}\n", doctor.Error, knocks},
		{"knocks behind the wall", "table inet late {\n  chain c {\n    type filter hook input priority filter;\n    tcp dport { 4113, 1840 } drop\n  }\n}\n", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := lab.New(t)
			l.ServeTCP(22)
			l.LoadNft(strings.ReplaceAll(test.script, "DEVICE", serverDevice(l)))
			if test.words != "" {
				f := finds(l, sshDoor, test.severity, test.words)
				if (f.Stops == doctor.Knocks) != (test.words == knocks) || (f.Stops == doctor.Others) != (test.words == some) || (f.IPVersion == 6) != strings.HasSuffix(test.words, "IPv6") {
					t.Errorf("it stops %q of version %d", f.Stops, f.IPVersion)
				}
				for _, knock := range lab.Knocks {
					if strings.Contains(f.Problem+f.Cure, fmt.Sprint(knock.Number)) {
						t.Errorf("a knock is told: %+v", f)
					}
				}
				return
			}
			if r := examine(l, sshDoor); len(r.Findings)+len(r.Unmade) > 0 {
				t.Errorf("the doctor finds %+v", r)
			}
		})
	}
}

// ufw drops what its policy drops only after chains for what is not for this host.
func TestTheDoctorSaysWhatToTypeForUFW(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "iptables-nft")
	l := lab.New(t)
	l.ServeTCP(22)
	shell(l, `iptables-nft -N ufw-not-local
iptables-nft -N ufw-user-input
iptables-nft -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
iptables-nft -A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
iptables-nft -A ufw-not-local -j DROP
iptables-nft -A INPUT -i lo -j ACCEPT
iptables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-nft -A INPUT -j ufw-not-local
iptables-nft -A INPUT -j ufw-user-input
iptables-nft -P INPUT DROP`)
	const allow = "ufw allow 22/tcp"
	if f := finds(l, sshDoor, doctor.Warning, "drops what comes to 22/tcp by IPv4"); !strings.Contains(f.Cure, allow) {
		t.Errorf("the cure: %q", f.Cure)
	}
	shell(l, "iptables-nft -A ufw-user-input -s 192.0.2.0/24 -p tcp --dport 22 -j ACCEPT")
	if f := finds(l, sshDoor, doctor.Warning, "accepts 22/tcp by IPv4 only from some sources"); !strings.Contains(f.Cure, allow) {
		t.Errorf("the cure: %q", f.Cure)
	}
	shell(l, "iptables-nft -A ufw-user-input -p tcp --dport 22 -j ACCEPT")
	if r := examine(l, sshDoor); len(r.Findings)+len(r.Unmade) > 0 {
		t.Errorf("the doctor finds %+v", r)
	}
}

// serverDevice returns the name of the server's interface.
func serverDevice(l *lab.Lab) (name string) {
	l.T.Helper()
	lab.Must(l.T, l.Server.Do(func() error {
		links, err := netlink.LinkList()
		for _, link := range links {
			if link.Attrs().Name != "lo" {
				name = link.Attrs().Name
			}
		}
		return err
	}))
	return name
}

// doctor and explain report a gateway that does not see the answers, and one that sees
// only answers.
func TestTheDoctorFindsThatOneDirectionIsSeen(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	host := l.AddInside(22)
	rules := fmt.Sprintf(`door "inside" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "10m"
  to       = [%q]
}
`, lab.Inside)
	d := l.Run(rules)
	first := lab.Source(1, lab.Inside)
	l.Knock(first, lab.Inside, lab.Knocks...)
	if !l.Admits(first, lab.Inside, 22) {
		t.Fatal("while both directions pass, who knocks is refused")
	}
	explained := func(source netip.Addr, why wall.Why, words ...string) {
		t.Helper()
		eventually.True(t, string(why), func() bool {
			all, err := control.NewClient(d.Control).Explain(context.Background(), source.String())
			return err == nil && len(all) == 1 && all[0].Reason == why && hasAll(all[0].Sentence, words)
		})
	}
	explained(first, wall.WindowOpen, "is let in")
	if r := examine(l, rules); len(r.Findings) > 0 {
		t.Errorf("while both directions pass, the doctor finds %+v", r.Findings)
	}

	// From now on the answers of the host behind the server take another route.
	shortcut, back := netip.MustParseAddr("203.0.113.129"), netip.MustParseAddr("203.0.113.130")
	_, _, err := netlab.Link(l.Client, host, []netip.Prefix{netip.PrefixFrom(shortcut, 30)}, []netip.Prefix{netip.PrefixFrom(back, 30)})
	lab.Must(t, err)
	lab.Must(t, host.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: lab.IPNet(netip.PrefixFrom(lab.Client4, 32)), Gw: shortcut.AsSlice()})
	}))
	l.Knock(lab.Client4, lab.Inside, lab.Knocks...)
	d.WaitFor("opened", "source="+lab.Client4.String()+" ")
	forget(l)
	lab.Must(t, l.Client.Do(func() error { return dialInVain(t, lab.Client4, lab.Inside, 22) }))
	explained(lab.Client4, wall.NotAnswered, "was accepted here, and never answered", "22/tcp")
	finds(l, rules, doctor.Warning, "accepted here and never answered")

	// Now the client uses the other route, and the host answers through the gateway.
	lab.Must(t, l.Client.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: lab.IPNet(netip.PrefixFrom(lab.Inside, 32)), Gw: back.AsSlice()})
	}))
	lab.Must(t, host.Do(func() error {
		return netlink.RouteDel(&netlink.Route{Dst: lab.IPNet(netip.PrefixFrom(lab.Client4, 32)), Gw: shortcut.AsSlice()})
	}))
	forget(l)
	stay, err := dialFromAddress(l, lab.Client4, lab.Inside, 22)
	lab.Must(t, err)
	defer stay.Close()
	finds(l, rules, doctor.Error, "sees only what the service sends")
}

// forget clears conntrack on the server.
func forget(l *lab.Lab) {
	l.T.Helper()
	lab.Must(l.T, l.Server.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
}

// dialFromAddress connects, sends data and waits for the answer.
func dialFromAddress(l *lab.Lab, from, to netip.Addr, port int) (conn net.Conn, err error) {
	err = l.Client.Do(func() (err error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: lab.Deadline}
		conn, err = dialer.Dial("tcp", netip.AddrPortFrom(to, uint16(port)).String())
		return err
	})
	if err == nil {
		if _, err = conn.Write([]byte("?")); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
	}
	return conn, err
}

// dialInVain begins to connect. The attempt continues until the test ends.
func dialInVain(t *testing.T, from, to netip.Addr, port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4(), Port: port}); !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}

// doctor finds BPF programs that see packets before the wall or that choose sockets.
func TestTheDoctorFindsBPFPrograms(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t, "loading BPF programs")
	l := lab.New(t)
	l.ServeTCP(22)
	const xdp, xdpPass, skLookup, skPass, chooseSockets = 6, 2, 30, 1, 36
	program := loadBPF(t, xdp, 0, xdpPass)
	lab.Must(t, l.Server.Do(func() error {
		link, err := netlink.LinkByName(serverDevice(l))
		if err != nil {
			return err
		}
		const generic = 2 // XDP_FLAGS_SKB_MODE
		return netlink.LinkSetXdpFdWithFlags(link, program, generic)
	}))
	finds(l, sshDoor, doctor.Warning, "XDP", serverDevice(l), "before the wall")

	lookup := loadBPF(t, skLookup, chooseSockets, skPass)
	lab.Must(t, l.Server.Do(func() error {
		namespace, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer namespace.Close()
		link, err := bpf(28, unsafe.Pointer(&struct{ program, target, attach, flags uint32 }{uint32(lookup), uint32(namespace.Fd()), chooseSockets, 0}), 16) // BPF_LINK_CREATE
		if err == nil {
			t.Cleanup(func() { unix.Close(link) })
		}
		return err
	}))
	finds(l, sshDoor, doctor.Warning, "sk_lookup", "chooses sockets")
}

// loadBPF loads a program that returns a number (BPF_PROG_LOAD of linux/bpf.h).
func loadBPF(t *testing.T, kind, attach uint32, result int32) int {
	t.Helper()
	license := []byte("GPL\x00")
	code := []struct {
		code, registers uint8
		offset          int16
		immediate       int32
	}{{0xb7, 0, 0, result}, {0x95, 0, 0, 0}} // r0 = result; exit
	attributes := struct {
		kind, length       uint32
		code, license      uint64
		logLevel, logSize  uint32
		log                uint64
		version, flags     uint32
		name               [16]byte
		device, attachKind uint32
	}{kind: kind, length: uint32(len(code)), code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))), attachKind: attach}
	fd, err := bpf(5, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	lab.Must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func bpf(command uintptr, attributes unsafe.Pointer, size uintptr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attributes), size)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
