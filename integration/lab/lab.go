package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/packet"
)

// The addresses of a lab: a server and a client on one cable. The client may also use any
// address of two more prefixes, to act as many clients.
var (
	Server4 = netip.MustParseAddr("192.0.2.1")
	Server6 = netip.MustParseAddr("2001:db8::1")
	Client4 = netip.MustParseAddr("192.0.2.2")
	Client6 = netip.MustParseAddr("2001:db8::2")
	Many4   = netip.MustParsePrefix("10.1.0.0/16")
	Many6   = netip.MustParsePrefix("2001:db8:1::/64")
)

// Deadline is how long a test waits for an expected event. It is long, because it
// measures nothing. Short is how long a client waits for an answer that must not come.
const (
	Deadline = eventually.Deadline
	Short    = 400 * time.Millisecond
)

// Lab is two hosts on a cable, for one test.
type Lab struct {
	T              testing.TB // the test: the methods fail it
	Server, Client *netlab.Host
	ServerLink     string // name of the server's interface
	ClientLink     string // name of the client's interface
	Folder         string // for rule files and control sockets
}

// New makes two hosts on a cable. They disappear when the test ends.
func New(t testing.TB) *Lab {
	t.Helper()
	l := &Lab{T: t}
	var err error
	if l.Server, err = netlab.NewHost(); err == nil {
		l.Client, err = netlab.NewHost()
	}
	Must(t, err)
	t.Cleanup(func() { l.Server.Close(); l.Client.Close() })
	prefixes := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	l.ServerLink, l.ClientLink, err = netlab.Link(l.Server, l.Client, prefixes(Server4, Server6), prefixes(Client4, Client6))
	Must(t, err)
	Must(t, l.Client.Do(func() error {
		for _, p := range []netip.Prefix{Many4, Many6} {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: IPNet(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		return nil
	}))
	Must(t, l.Server.Do(func() error {
		for p, via := range map[netip.Prefix]netip.Addr{Many4: Client4, Many6: Client6} {
			if err := netlink.RouteAdd(&netlink.Route{Dst: IPNet(p), Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		return nil
	}))
	// Not t.TempDir: a socket's path must be short.
	l.Folder, err = os.MkdirTemp("", "kw-")
	Must(t, err)
	t.Cleanup(func() { os.RemoveAll(l.Folder) })
	return l
}

// Source returns the n-th of the client's many addresses, from 0 to 65535, in the address
// family of to.
func Source(n int, to netip.Addr) netip.Addr {
	if to.Is4() {
		a := Many4.Addr().As4()
		a[2], a[3] = byte(n>>8), byte(n)
		return netip.AddrFrom4(a)
	}
	a := Many6.Addr().As16()
	a[14], a[15] = byte(n>>8), byte(n)
	return netip.AddrFrom16(a)
}

// TCP returns a TCP port.
func TCP(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }

// UDP returns a UDP port.
func UDP(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.UDP} }

// ParseKnocks reads knocks as `knockwall knock` takes them.
func ParseKnocks(t testing.TB, words []string) (knocks []packet.Port) {
	t.Helper()
	for _, w := range words {
		p, err := packet.ParsePort(w)
		Must(t, err)
		knocks = append(knocks, p)
	}
	return knocks
}

// SSHRules is a rule file with one door, for ssh. Knocks open it.
const SSHRules = `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}`

// Knocks are the knocks of SSHRules and RulesWith.
var Knocks = []packet.Port{TCP(4113), UDP(27911), TCP(1840)}

// RulesWith returns SSHRules with attributes of the wall, and with the length of the door's
// windows.
func RulesWith(wall, window string) string {
	return `wall { ` + wall + ` }
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "` + window + `"
}`
}

// StartOn starts a command on a host, and does not wait for it.
func StartOn(h *netlab.Host, cmd *exec.Cmd) error { return h.Do(cmd.Start) }

// RunOnClient runs a command on the client, for no longer than Deadline. It returns the
// command's stdout and stderr, and its error.
func (l *Lab) RunOnClient(name string, arguments ...string) (string, error) {
	l.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arguments...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	Must(l.T, StartOn(l.Client, cmd))
	err := cmd.Wait()
	return out.String(), err
}

// RunOnServer runs the program under test on the server, and returns its stdout. The test
// fails if the program does.
func (l *Lab) RunOnServer(arguments ...string) string {
	l.T.Helper()
	cmd := Knockwall(arguments...)
	out := &Output{}
	cmd.Stdout = out
	Must(l.T, StartOn(l.Server, cmd))
	Must(l.T, cmd.Wait())
	return out.String()
}

// SpreadOverCPUs lets the server receive packets on two CPUs at once (RPS), so that packets
// of one source to different ports overtake each other. It needs root.
func (l *Lab) SpreadOverCPUs() {
	l.T.Helper()
	Must(l.T, l.Server.Do(func() error {
		// sysfs shows the network of the process that mounts it.
		folder := filepath.Join(l.Folder, "sys")
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
		if err := unix.Mount("sysfs", folder, "sysfs", 0, ""); err != nil {
			return fmt.Errorf("mounting sysfs: %w", err)
		}
		defer unix.Unmount(folder, unix.MNT_DETACH)
		path := filepath.Join(folder, "class/net", l.ServerLink, "queues/rx-0/rps_cpus")
		return os.WriteFile(path, []byte("3"), 0)
	}))
}

// WriteSysctl sets a sysctl below net, such as ipv4/ip_forward, on the caller's host.
func WriteSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
}

// UnlimitICMP lets the server send as many ICMP errors as it likes.
func (l *Lab) UnlimitICMP() {
	l.T.Helper()
	Must(l.T, l.Server.Do(func() error {
		for _, name := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
			if err := WriteSysctl(name, "0"); err != nil {
				return err
			}
		}
		return nil
	}))
}

// IPNet returns a prefix as package netlink takes it.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
