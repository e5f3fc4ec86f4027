package share

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/integration/lab/natslab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/wall"
)

// fleet is some hosts around a client. The NATS servers run where the client is.
type fleet struct {
	t       *testing.T
	folder  string
	hub     *netlab.Host
	members []*member
	servers []*server
}

// member is one host.
type member struct {
	*lab.Lab
	fleet     *fleet
	name      string
	link      string // the client's end of its cable
	v4, v6    netip.Addr
	hub4      netip.Addr // the client's and the servers' address
	daemon    *lab.Daemon
	companion *exec.Cmd
	log       *lab.Output
}

// server is a NATS server.
type server struct {
	port int
	more string // in its configuration
	cmd  *exec.Cmd
	log  *lab.Output
}

const group = "prod"

// newHub returns a fleet of no hosts, with the machine that will be between them.
func newHub(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t}
	var err error
	// Not in t.TempDir, whose path may be too long for a socket. The keys must be where
	// nobody else can change them.
	f.folder, err = os.MkdirTemp("", "kw-")
	lab.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(f.folder) })
	f.hub, err = netlab.NewHost()
	lab.Must(t, err)
	t.Cleanup(func() { f.hub.Close() })
	return f
}

// newFleet makes hosts named a, b, c and so on, and a configuration for servers that know
// them by their keys. Nothing runs yet.
func newFleet(t *testing.T, hosts, servers int) *fleet {
	t.Helper()
	lab.NeedsProgram(t, "nats-server")
	lab.NeedsProgram(t, "knockwall-share")
	f := newHub(t)
	lab.Must(t, f.hub.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, p := range []netip.Prefix{lab.Many4, lab.Many6} {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: lab.IPNet(p), Type: unix.RTN_LOCAL,
				Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}); err != nil {
				return err
			}
		}
		return nil
	}))
	for i := range hosts {
		f.members = append(f.members, f.newMember(i))
	}
	f.certify()
	for i := range servers {
		f.servers = append(f.servers, &server{port: 4222 + i})
	}
	return f
}

func (f *fleet) newMember(i int) *member {
	f.t.Helper()
	host, err := netlab.NewHost()
	lab.Must(f.t, err)
	f.t.Cleanup(func() { host.Close() })
	m := &member{fleet: f, name: string(rune('a' + i)), v4: netip.AddrFrom4([4]byte{10, 9, byte(i), 1})}
	m.hub4 = m.v4.Next()
	m.v6 = netip.MustParseAddr(fmt.Sprintf("2001:db8:9:%d::1", i))
	m.Lab = &lab.Lab{T: f.t, Server: host, Client: f.hub, Folder: filepath.Join(f.folder, m.name)}
	lab.Must(f.t, os.Mkdir(m.Folder, 0o700))
	prefixes := func(v4, v6 netip.Addr) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
	}
	_, m.link, err = netlab.Link(host, f.hub, prefixes(m.v4, m.v6), prefixes(m.hub4, m.v6.Next()))
	lab.Must(f.t, err)
	lab.Must(f.t, host.Do(func() error {
		for p, via := range map[netip.Prefix]netip.Addr{lab.Many4: m.hub4, lab.Many6: m.v6.Next()} {
			if err := netlink.RouteAdd(&netlink.Route{Dst: lab.IPNet(p), Gw: via.AsSlice()}); err != nil {
				return err
			}
		}
		return nil
	}))
	m.ServeTCP(22)
	return m
}

// certify makes a certificate authority, the servers' certificate, and a key for each host.
func (f *fleet) certify() {
	f.t.Helper()
	var addresses []netip.Addr
	for _, m := range f.members {
		addresses = append(addresses, m.hub4)
	}
	lab.Must(f.t, natslab.Certify(f.folder, addresses...))
	other := filepath.Join(f.folder, "other")
	lab.Must(f.t, os.Mkdir(other, 0o700))
	lab.Must(f.t, natslab.Certify(other))
	var users strings.Builder
	for _, m := range f.members {
		public, err := natslab.NewKey(filepath.Join(m.Folder, "nkey"))
		lab.Must(f.t, err)
		users.WriteString(natslab.User(public, group, m.name))
	}
	_, err := natslab.NewKey(filepath.Join(f.folder, "stranger"))
	lab.Must(f.t, err)
	lab.Must(f.t, os.WriteFile(filepath.Join(f.folder, "users"), []byte(users.String()), 0o600))
}

// serve starts a NATS server, and waits until it is ready.
func (f *fleet) serve(i int) {
	f.t.Helper()
	s := f.servers[i]
	users, err := os.ReadFile(filepath.Join(f.folder, "users"))
	lab.Must(f.t, err)
	more := s.more
	for j := range f.servers {
		if i != j {
			more += fmt.Sprintf("cluster { name: test, listen: \"127.0.0.1:%d\", routes: [nats://127.0.0.1:%d], no_advertise: true }\n", 6222+i, 6222+j)
		}
	}
	config := fmt.Sprintf(`listen: "0.0.0.0:%d"
tls { cert_file: %q, key_file: %q }
authorization { users: [
%s] }
%s`, s.port, filepath.Join(f.folder, "cert.pem"), filepath.Join(f.folder, "key.pem"), users, more)
	path := filepath.Join(f.folder, fmt.Sprintf("nats%d.conf", i))
	lab.Must(f.t, os.WriteFile(path, []byte(config), 0o600))
	s.cmd, s.log = exec.Command(lab.NeedsProgram(f.t, "nats-server"), "-c", path), &lab.Output{}
	s.cmd.Stderr = s.log
	f.start(s.cmd, f.hub, s.log)
	eventually.True(f.t, "the NATS server is ready", func() bool { return strings.Contains(s.log.String(), "Server is ready") })
}

// start starts a program that is killed when the test ends.
func (f *fleet) start(cmd *exec.Cmd, host *netlab.Host, log *lab.Output) {
	f.t.Helper()
	lab.Must(f.t, lab.StartOn(host, cmd))
	f.t.Cleanup(func() {
		stop(cmd, syscall.SIGKILL)
		if _, race, found := strings.Cut(log.String(), "WARNING: DATA RACE"); found {
			f.t.Errorf("a data race:%.8000s", race)
		}
		if f.t.Failed() {
			f.t.Logf("%s said:\n%s", cmd.Path, lab.Tail(log.String(), 3000))
		}
	})
}

// stop ends a program, if it has not ended.
func stop(cmd *exec.Cmd, signal syscall.Signal) {
	if cmd != nil && cmd.ProcessState == nil {
		cmd.Process.Signal(signal)
		cmd.Wait()
	}
}

// rules returns the rule file of a member.
func (m *member) rules(door, nkey, ca string) string {
	var servers []string
	for _, s := range m.fleet.servers {
		servers = append(servers, fmt.Sprintf(`"tls://%s:%d"`, m.hub4, s.port))
	}
	return fmt.Sprintf(`
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  %s
}
door "private" {
  ports    = [23]
  sequence = [4114, 4115, 4116]
}
share {
  group   = %q
  name    = %q
  servers = [%s]
  doors   = ["ssh"]
  nkey    = %q
  tls { ca = %q }
}
`, door, group, m.name, strings.Join(servers, ", "), nkey, ca)
}

// up starts the daemon and the companion of a member, with more in its door ssh.
func (m *member) up(door string) {
	m.fleet.t.Helper()
	m.daemon = m.Run(m.rules(door, filepath.Join(m.Folder, "nkey"), filepath.Join(m.fleet.folder, "ca.pem")))
	m.share()
}

// share starts the companion.
func (m *member) share() {
	m.fleet.t.Helper()
	m.log = &lab.Output{}
	m.companion = lab.Knockwall("share", "--config", filepath.Join(m.Folder, "rules.hcl"), "--control", m.daemon.Control)
	m.companion.Stderr = m.log
	m.fleet.start(m.companion, m.Server, m.log)
}

// connected waits until the companion has a connection.
func (m *member) connected() {
	m.fleet.t.Helper()
	eventually.True(m.fleet.t, m.name+" is connected", func() bool { return strings.Contains(m.log.String(), "connected to the NATS server") })
}

// running starts everything, and waits until the companions hear each other.
func running(t *testing.T, hosts, servers int, door string) *fleet {
	t.Helper()
	f := newFleet(t, hosts, servers)
	for i := range f.servers {
		f.serve(i)
	}
	for _, m := range f.members {
		m.up(door)
	}
	for _, m := range f.members {
		m.connected()
	}
	f.agreed(lab.Source(65000, m4(f)))
	return f
}

// m4 returns any IPv4 address of the hosts.
func m4(f *fleet) netip.Addr { return f.members[0].v4 }

// agreed waits until a window that opens at the first host is open at all others, so that
// they share, and closes it.
func (f *fleet) agreed(source netip.Addr) {
	f.t.Helper()
	first := f.members[0]
	first.knockwall("open", "ssh", source.String())
	f.eventuallyEverywhere(source, true)
	first.knockwall("close", "ssh", source.String())
	f.eventuallyEverywhere(source, false)
}

// eventuallyEverywhere waits until the door ssh is open for a source, or is not, at all hosts.
func (f *fleet) eventuallyEverywhere(source netip.Addr, open bool) {
	f.t.Helper()
	for _, m := range f.members {
		eventually.True(f.t, fmt.Sprintf("open for %s at %s: %t", source, m.name, open), func() bool { return m.isOpen(source) == open })
	}
}

// window returns the window of a source at the door ssh.
func (m *member) window(source netip.Addr) (w wall.WindowStatus, ok bool) {
	m.fleet.t.Helper()
	for _, w := range m.daemon.Status().Windows {
		if w.Door == "ssh" && w.Source.Addr() == source {
			return w, true
		}
	}
	return w, false
}

func (m *member) isOpen(source netip.Addr) bool {
	_, ok := m.window(source)
	return ok
}

// knockwall runs a command that talks to the daemon.
func (m *member) knockwall(command string, arguments ...string) {
	m.fleet.t.Helper()
	out, err := lab.Knockwall(append([]string{command, "--control", m.daemon.Control}, arguments...)...).CombinedOutput()
	if err != nil {
		m.fleet.t.Fatalf("knockwall %s: %v: %s", command, err, out)
	}
}

// knocks returns a function that knocks at the member.
func (m *member) knocks(from, to netip.Addr) func() error {
	return func() error {
		for _, p := range lab.Knocks {
			if err := lab.SendKnock(from, to, p); err != nil {
				return err
			}
		}
		return nil
	}
}
