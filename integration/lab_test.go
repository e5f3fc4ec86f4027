package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

// The addresses of a lab: a server and a client on one cable. The client may also use any
// address of two more prefixes, to act as many clients.
var (
	server4 = netip.MustParseAddr("192.0.2.1")
	server6 = netip.MustParseAddr("2001:db8::1")
	client4 = netip.MustParseAddr("192.0.2.2")
	client6 = netip.MustParseAddr("2001:db8::2")
	many4   = netip.MustParsePrefix("10.1.0.0/16")
	many6   = netip.MustParsePrefix("2001:db8:1::/64")
)

// deadline is how long a test waits for an expected event. It is long, because it
// measures nothing. short is how long a client waits for an answer that must not come.
const (
	deadline = 60 * time.Second
	short    = 400 * time.Millisecond
)

// lab is two hosts on a cable.
type lab struct {
	t              testing.TB
	server, client *netlab.Host
	serverLink     string // name of the server's interface
	clientLink     string // name of the client's interface
	folder         string // for rule files and control sockets
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t}
	var err error
	if l.server, err = netlab.NewHost(); err == nil {
		l.client, err = netlab.NewHost()
	}
	must(t, err)
	t.Cleanup(func() { l.server.Close(); l.client.Close() })
	prefixes := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	l.serverLink, l.clientLink, err = netlab.Link(l.server, l.client, prefixes(server4, server6), prefixes(client4, client6))
	must(t, err)
	must(t, l.client.Do(func() error {
		for _, p := range []netip.Prefix{many4, many6} {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		return nil
	}))
	must(t, l.server.Do(func() error {
		for p, via := range map[netip.Prefix]netip.Addr{many4: client4, many6: client6} {
			if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(p), Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		return nil
	}))
	// Not t.TempDir: a socket's path must be short.
	l.folder, err = os.MkdirTemp("", "kw-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(l.folder) })
	return l
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until a condition holds, and fails the test if it does not.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	within(t, deadline, what, holds)
}

// within is eventually with a time limit of its own.
func within(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("after %s it is still not so: %s", patience, what)
}

// needs skips the test if a program is missing. CI has them all.
func needs(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		// On Debian, a user's PATH has no sbin folders.
		if path, err = exec.LookPath(filepath.Join("/usr/sbin", program)); err == nil {
			return path
		}
		if os.Getenv("CI") != "" {
			t.Fatalf("CI has to install %s", program)
		}
		t.Skipf("%s is not installed", program)
	}
	return path
}

// needsRoot skips the test if the lab is in its own user namespace, as it is unless root
// runs the tests.
func needsRoot(t testing.TB, why string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/uid_map")
	must(t, err)
	// The initial user namespace maps all ids.
	if fields := strings.Fields(string(b)); len(fields) == 3 && fields[2] == "4294967295" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("CI has to run this as root: %s", why)
	}
	t.Skipf("run as root to test this: %s", why)
}

// output is a program's output so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// daemon is a knockwall daemon on the server.
type daemon struct {
	lab     *lab
	cmd     *exec.Cmd
	log     *output // stderr
	control string
	exited  chan error
}

// knockwall returns a command that runs the program under test.
func knockwall(arguments ...string) *exec.Cmd {
	return exec.Command(os.Getenv(binaryVariable), arguments...)
}

// on starts a command on a host.
func on(h *netlab.Host, cmd *exec.Cmd) error { return h.Do(cmd.Start) }

// rules writes a rule file and returns its path.
func (l *lab) rules(text string) string {
	l.t.Helper()
	path := filepath.Join(l.folder, "rules.hcl")
	must(l.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// launch starts the daemon without waiting for anything.
func (l *lab) launch(rules string) *daemon {
	l.t.Helper()
	return l.launchFile(l.rules(rules))
}

func (l *lab) launchFile(path string, arguments ...string) *daemon {
	l.t.Helper()
	control := filepath.Join(l.folder, "control")
	return l.launchCommand(control, knockwall(append([]string{"run", "--config", path, "--control", control}, arguments...)...))
}

// launchCommand starts a daemon with its control socket.
func (l *lab) launchCommand(control string, cmd *exec.Cmd) *daemon {
	l.t.Helper()
	d := &daemon{lab: l, cmd: cmd, log: &output{}, control: control, exited: make(chan error, 1)}
	d.cmd.Stderr = d.log
	must(l.t, on(l.server, d.cmd))
	go func() { d.exited <- d.cmd.Wait() }()
	l.t.Cleanup(func() {
		d.cmd.Process.Kill()
		// The race detector reports a race, but the program goes on.
		if _, race, found := strings.Cut(d.log.String(), "WARNING: DATA RACE"); found {
			l.t.Errorf("the daemon has a data race:%.8000s", race)
		}
		if l.t.Failed() {
			l.t.Logf("the daemon said:\n%s", tail(d.log.String(), 4000))
		}
	})
	return d
}

// run starts the daemon and waits until the wall is in force.
func (l *lab) run(rules string) *daemon {
	l.t.Helper()
	return l.runFile(l.rules(rules))
}

func (l *lab) runFile(path string) *daemon {
	l.t.Helper()
	return l.launchFile(path).guards()
}

// guards waits until the wall is in force.
func (d *daemon) guards() *daemon {
	d.lab.t.Helper()
	eventually(d.lab.t, "the daemon guards", func() bool {
		select {
		case err := <-d.exited:
			d.lab.t.Fatalf("the daemon ended: %v\n%s", err, d.log)
		default:
		}
		return strings.Contains(d.log.String(), "guarding ") || strings.Contains(d.log.String(), " is NOT guarded: ")
	})
	return d
}

// end sends the daemon a signal and waits until it has ended.
func (d *daemon) end(signal syscall.Signal) error {
	d.lab.t.Helper()
	must(d.lab.t, d.cmd.Process.Signal(signal))
	return d.ended()
}

// ended waits until the daemon has ended, and returns its error.
func (d *daemon) ended() error {
	d.lab.t.Helper()
	select {
	case err := <-d.exited:
		return err
	case <-time.After(deadline):
		d.lab.t.Fatal("the daemon does not end")
		return nil
	}
}

// tail returns the end of a long text.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

func (d *daemon) status() wall.Status {
	d.lab.t.Helper()
	s, err := control.NewClient(d.control).Status(context.Background())
	must(d.lab.t, err)
	return s
}

// waitFor waits until the daemon has logged a line with all of the words.
func (d *daemon) waitFor(words ...string) {
	d.lab.t.Helper()
	eventually(d.lab.t, "the log has "+strings.Join(words, ", "), func() bool { return d.logged(words...) > 0 })
}

// waitForCount waits until the daemon has logged n lines with all of the words.
func (d *daemon) waitForCount(n int, words ...string) {
	d.lab.t.Helper()
	eventually(d.lab.t, fmt.Sprintf("the log has %d times %s", n, strings.Join(words, ", ")), func() bool { return d.logged(words...) >= n })
}

// waitForEnd waits until all windows have expired, in the daemon and in the kernel, whose
// clock has ticks of up to 10 ms.
func (d *daemon) waitForEnd() {
	d.lab.t.Helper()
	d.waitFor("expired")
	eventually(d.lab.t, "the windows are over in the kernel, too", func() bool { return len(d.lab.kernelWindows()) == 0 })
}

// logged counts the log lines with all of the words.
func (d *daemon) logged(words ...string) (n int) {
lines:
	for line := range strings.Lines(d.log.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		n++
	}
	return n
}

// serve answers on a TCP port of the server, on every address. It echoes.
func (l *lab) serve(port int) {
	l.t.Helper()
	must(l.t, l.server.Do(func() error {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
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
				go func() {
					defer conn.Close()
					io.Copy(conn, conn)
				}()
			}
		}()
		return nil
	}))
}

// serveUDP answers on a UDP port of the server. It echoes.
func (l *lab) serveUDP(port int, host netip.Addr) {
	l.t.Helper()
	must(l.t, l.server.Do(func() error {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, uint16(port))))
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { conn.Close() })
		_ = conn.SetReadBuffer(4 << 20) // as much as possible, for floods
		for range 4 {
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
		}
		return nil
	}))
}

// dial connects from one of the client's addresses.
func (l *lab) dial(from, to netip.Addr, port int, timeout time.Duration) (conn *net.TCPConn, err error) {
	err = l.client.Do(func() error {
		d := net.Dialer{
			Timeout:   timeout,
			LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
			Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { freebind(int(fd), from) })
			},
		}
		c, err := d.Dial("tcp", netip.AddrPortFrom(to, uint16(port)).String())
		if err == nil {
			conn = c.(*net.TCPConn)
			// Its end must not leave a segment behind for the next step of the test.
			conn.SetLinger(0)
		}
		return err
	})
	return conn, err
}

// session connects and stays connected.
func (l *lab) session(from, to netip.Addr) net.Conn {
	l.t.Helper()
	conn, err := l.dial(from, to, 22, deadline)
	must(l.t, err)
	l.t.Cleanup(func() { conn.Close() })
	must(l.t, talks(conn))
	return conn
}

// admits reports whether a new connection succeeds. It waits only for short, so use it if
// the connection should fail.
func (l *lab) admits(from, to netip.Addr, port int) bool {
	l.t.Helper()
	return l.connects(from, to, port, short)
}

// letsIn reports whether a new connection succeeds. It waits for deadline, so use it if
// the connection should succeed.
func (l *lab) letsIn(from, to netip.Addr, port int) bool {
	l.t.Helper()
	return l.connects(from, to, port, deadline)
}

// admitted reports whether a new connection succeeds. It waits long only if want is true.
func (l *lab) admitted(want bool, from, to netip.Addr, port int) bool {
	l.t.Helper()
	if want {
		return l.letsIn(from, to, port)
	}
	return l.admits(from, to, port)
}

func (l *lab) connects(from, to netip.Addr, port int, timeout time.Duration) bool {
	l.t.Helper()
	conn, err := l.dial(from, to, port, timeout)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// talks returns an error if a session no longer carries data both ways.
func talks(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(deadline))
	return ping(conn)
}

// ping sends data and waits for the echo.
func ping(conn net.Conn) error {
	if _, err := io.WriteString(conn, "ping"); err != nil {
		return err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	if string(b) != "ping" {
		return fmt.Errorf("%q came back", b)
	}
	return nil
}

// knock sends knocks from one of the client's addresses, back to back.
func (l *lab) knock(from, to netip.Addr, ports ...packet.Port) {
	l.t.Helper()
	must(l.t, l.client.Do(func() error {
		for _, p := range ports {
			if err := knockFrom(from, to, p); err != nil {
				return fmt.Errorf("knock at %s: %w", p, err)
			}
		}
		return nil
	}))
}

func knockFrom(from, to netip.Addr, p packet.Port) error {
	kind := unix.SOCK_STREAM
	if p.Protocol == packet.UDP {
		kind = unix.SOCK_DGRAM
	}
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := bindAny(fd, from); err != nil {
		return err
	}
	err = unix.Connect(fd, sockaddr(to, p.Number))
	if p.Protocol == packet.UDP && err == nil {
		_, err = unix.Write(fd, []byte{0})
	}
	if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return err
}

// bindAny binds a socket to one of the client's many addresses. A route makes them local,
// although no interface has them. It takes the port that was unused for longest. The
// kernel would choose a random port, and so soon the port of a connection that was reset.
// If that RST was lost, the server treats the new SYN as part of the old connection, and
// the client must retransmit it.
func bindAny(fd int, from netip.Addr) error {
	if err := freebind(fd, from); err != nil {
		return err
	}
	for {
		port := firstPort + uint16(lastPort.Add(1)%(1<<16-firstPort))
		if err := unix.Bind(fd, sockaddr(from, port)); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
}

const firstPort = 1024 // of clients

var lastPort atomic.Uint32

func freebind(fd int, from netip.Addr) error {
	if from.Is4() {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

// nth returns the n-th of the client's many addresses, in the address family of to.
func nth(n int, to netip.Addr) netip.Addr {
	if to.Is4() {
		a := many4.Addr().As4()
		a[2], a[3] = byte(n>>8), byte(n)
		return netip.AddrFrom4(a)
	}
	a := many6.Addr().As16()
	a[14], a[15] = byte(n>>8), byte(n)
	return netip.AddrFrom16(a)
}

// tcp and udp return ports.
func tcp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }
func udp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.UDP} }

// spread lets the server receive packets on all CPUs at once (RPS), so that packets of
// one source to different ports overtake each other.
func (l *lab) spread() {
	l.t.Helper()
	must(l.t, l.server.Do(func() error {
		// sysfs shows the network of the process that mounts it.
		folder := filepath.Join(l.folder, "sys")
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
		if err := unix.Mount("sysfs", folder, "sysfs", 0, ""); err != nil {
			return fmt.Errorf("mounting sysfs: %w", err)
		}
		defer unix.Unmount(folder, unix.MNT_DETACH)
		path := filepath.Join(folder, "class/net", l.serverLink, "queues/rx-0/rps_cpus")
		return os.WriteFile(path, []byte("3"), 0)
	}))
}

// writeSysctl sets a sysctl below net on the caller's host.
func writeSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
}
