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
	"time"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
)

// lanHost is a host of an example, on one network with the client and the other hosts.
type lanHost struct {
	*member
	link     string // its end of its cable
	programs []*exec.Cmd
	cables   []pulled
}

// pulled is the far end of a cable.
type pulled struct {
	host *netlab.Host
	link string
}

// example returns a file of the examples, with other texts in place of some.
func example(t *testing.T, name string, replaced map[string]string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../examples", name))
	lab.Must(t, err)
	text := string(b)
	for from, to := range replaced {
		if !strings.Contains(text, from) {
			t.Fatalf("%s has no %q", name, from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	return text
}

// newLAN returns a network with clients, and without a host.
func newLAN(t *testing.T, clients ...netip.Addr) *fleet {
	t.Helper()
	f := newHub(t)
	addBridge(t, f.hub, clients...)
	return f
}

const bridgeName = "lan"

// addBridge makes a machine a network that hosts can be plugged into, on which it has
// addresses itself.
func addBridge(t *testing.T, machine *netlab.Host, addresses ...netip.Addr) {
	t.Helper()
	lab.Must(t, machine.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		for _, a := range addresses {
			if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: lab.IPNet(netip.PrefixFrom(a, 24))}); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(bridge)
	}))
}

func (f *fleet) newLANHost(name string, address netip.Addr) *lanHost {
	f.t.Helper()
	host, err := netlab.NewHost()
	lab.Must(f.t, err)
	f.t.Cleanup(func() { host.Close() })
	h := &lanHost{member: &member{fleet: f, name: name, v4: address}}
	h.Lab = &lab.Lab{T: f.t, Server: host, Client: f.hub, Folder: filepath.Join(f.folder, h.name)}
	lab.Must(f.t, os.Mkdir(h.Folder, 0o700))
	h.link = h.plug(f.hub, address)
	h.ServeTCP(22)
	return h
}

// plug connects the host with the network of a machine, and returns its end of the cable.
func (h *lanHost) plug(machine *netlab.Host, address netip.Addr) string {
	h.fleet.t.Helper()
	own, far, err := netlab.Link(h.Server, machine, []netip.Prefix{netip.PrefixFrom(address, 24)}, nil)
	lab.Must(h.fleet.t, err)
	h.cables = append(h.cables, pulled{machine, far})
	lab.Must(h.fleet.t, machine.Do(func() error {
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(far)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	}))
	return own
}

// run runs a program on the host until the test ends.
func (h *lanHost) run(name string, arguments ...string) *lab.Output {
	h.fleet.t.Helper()
	cmd, log := exec.Command(name, arguments...), &lab.Output{}
	cmd.WaitDelay = time.Second // a process of its own may have its output
	cmd.Stdout, cmd.Stderr = log, log
	h.fleet.start(cmd, h.Server, log)
	h.programs = append(h.programs, cmd)
	return log
}

// write writes a file of the examples, and returns its path.
func (h *lanHost) write(name string, replaced map[string]string, mode os.FileMode) string {
	h.fleet.t.Helper()
	path := filepath.Join(h.Folder, filepath.Base(name))
	lab.Must(h.fleet.t, os.WriteFile(path, []byte(example(h.fleet.t, name, replaced)), mode))
	return path
}

// serveNATS runs a NATS server with a configuration of the examples.
func (h *lanHost) serveNATS(name string, replaced map[string]string) {
	h.fleet.t.Helper()
	log := h.run(lab.NeedsProgram(h.fleet.t, "nats-server"), "-c", h.write(name, replaced, 0o600))
	eventually.True(h.fleet.t, "the NATS server is ready", func() bool { return strings.Contains(log.String(), "Server is ready") })
}

// shareAs runs a daemon and its companion with a rule file of the examples.
func (h *lanHost) shareAs(name string) {
	h.fleet.t.Helper()
	h.daemon = h.Run(example(h.fleet.t, name, map[string]string{`group   =`: fmt.Sprintf("name = %q\n  group   =", h.name)}))
	h.share()
	h.programs = append(h.programs, h.companion)
}

// keepAlive runs keepalived with a configuration of the examples.
func (h *lanHost) keepAlive(name string, replaced map[string]string) {
	h.fleet.t.Helper()
	h.run(lab.NeedsProgram(h.fleet.t, "keepalived"), "--dont-fork", "--log-console", "--vrrp", "--use-file", h.write(name, replaced, 0o600),
		"--pid", filepath.Join(h.Folder, "keepalived.pid"), "--vrrp_pid", filepath.Join(h.Folder, "vrrp.pid"))
}

// roles waits until one of two hosts has all addresses, and the other one none.
func roles(hosts []*lanHost, addresses ...netip.Addr) (has, not *lanHost) {
	t := hosts[0].fleet.t
	t.Helper()
	eventually.True(t, "one host has the addresses", func() bool {
		for i, h := range hosts {
			if h.has(addresses...) && !hosts[1-i].hasAny(addresses...) {
				has, not = h, hosts[1-i]
			}
		}
		return has != nil
	})
	return has, not
}

// die pulls the host's cables and ends all that runs on it.
func (h *lanHost) die() {
	h.fleet.t.Helper()
	for _, c := range h.cables {
		lab.Must(h.fleet.t, c.host.Do(func() error {
			link, err := netlink.LinkByName(c.link)
			if err != nil {
				return err
			}
			return netlink.LinkSetDown(link)
		}))
	}
	for _, p := range h.programs {
		stop(p, syscall.SIGKILL)
	}
	_ = h.daemon.Stop(syscall.SIGKILL)
}

// has reports whether the host has all of the addresses.
func (h *lanHost) has(addresses ...netip.Addr) bool {
	return h.count(addresses) == len(addresses)
}

// hasAny reports whether the host has any of the addresses.
func (h *lanHost) hasAny(addresses ...netip.Addr) bool { return h.count(addresses) > 0 }

func (h *lanHost) count(addresses []netip.Addr) (n int) {
	h.fleet.t.Helper()
	lab.Must(h.fleet.t, h.Server.Do(func() error {
		all, err := netlink.AddrList(nil, netlink.FAMILY_V4)
		for _, one := range all {
			for _, a := range addresses {
				if one.IP.Equal(a.AsSlice()) {
					n++
				}
			}
		}
		return err
	}))
	return n
}

// hears waits until the host hears so many others.
func (h *lanHost) hears(others int) {
	t := h.fleet.t
	t.Helper()
	eventually.True(t, fmt.Sprintf("%s hears %d others", h.name, others), func() bool {
		s := h.daemon.Status().Sharing
		return s != nil && s.Companion != nil && s.Companion.Count == others
	})
}
