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
	hubLink  string
	programs []*exec.Cmd
}

// The example of a pair, as its files have it: when the host that has the address dies, a
// client with an open window goes on at the other one, and knocks no more.
func TestAPairOfHostsWithOneAddress(t *testing.T) {
	lab.NeedsProgram(t, "nats-server")
	lab.NeedsProgram(t, "knockwall-share")
	keepalived, openssl := lab.NeedsProgram(t, "keepalived"), lab.NeedsProgram(t, "openssl")
	client := netip.MustParseAddr("192.0.2.100")
	f := newLAN(t, client)

	// The key is made as the example says.
	text := example(t, "pair/knockwall.hcl", nil)
	_, command, _ := strings.Cut(text, "#     openssl ")
	command, _, found := strings.Cut(command, "\n")
	if !found {
		t.Fatalf("the example has no command for its key:\n%s", text)
	}
	made := exec.Command(openssl, strings.Fields(command)...)
	made.Dir = f.folder
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v: %s", command, err, out)
	}

	var hosts []*lanHost
	for i := range 2 {
		hosts = append(hosts, f.newLANHost(string(rune('a'+i)), netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})))
	}
	for _, h := range hosts {
		nats := filepath.Join(h.Folder, "nats.conf")
		lab.Must(t, os.WriteFile(nats, []byte(example(t, "pair/nats.conf", map[string]string{"/etc/nats": f.folder})), 0o600))
		log := h.run(lab.NeedsProgram(t, "nats-server"), "-c", nats)
		eventually.True(t, "the NATS server is ready", func() bool { return strings.Contains(log.String(), "Server is ready") })
		h.daemon = h.Run(example(t, "pair/knockwall.hcl", map[string]string{`group   =`: fmt.Sprintf("name = %q\n  group   =", h.name)}))
		h.share()
		h.programs = append(h.programs, h.companion)
	}
	for _, h := range hosts {
		eventually.True(t, h.name+" hears the other host", func() bool {
			s := h.daemon.Status().Sharing
			return s != nil && s.Companion != nil && s.Companion.Count == 1
		})
	}
	for _, h := range hosts {
		conf := filepath.Join(h.Folder, "keepalived.conf")
		lab.Must(t, os.WriteFile(conf, []byte(example(t, "pair/keepalived.conf", map[string]string{"eth0": h.link})), 0o600))
		h.run(keepalived, "--dont-fork", "--log-console", "--vrrp", "--use-file", conf,
			"--pid", filepath.Join(h.Folder, "keepalived.pid"), "--vrrp_pid", filepath.Join(h.Folder, "vrrp.pid"))
	}
	shared := netip.MustParseAddr("192.0.2.10")
	master := func() (has, not *lanHost) {
		switch a, b := hosts[0].has(shared), hosts[1].has(shared); {
		case a && !b:
			return hosts[0], hosts[1]
		case b && !a:
			return hosts[1], hosts[0]
		}
		return nil, nil
	}
	eventually.True(t, "one host has the address", func() bool { has, _ := master(); return has != nil })
	dies, lives := master()

	if dies.AdmitsAtOnce(client, shared, 22) {
		t.Fatal("the door is open before a knock")
	}
	t.Logf("%s has the address", dies.name)
	lab.Must(t, dies.OnFirstSYN(client, shared, lab.TCP(26183), lab.TCP(4406), lab.TCP(19537)))
	eventually.True(t, "the other host has the window", func() bool { return lives.isOpen(client) })

	lab.Must(t, f.hub.Do(func() error { // its cable is pulled, and all that ran on it ends
		link, err := netlink.LinkByName(dies.hubLink)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	}))
	for _, p := range dies.programs {
		stop(p, syscall.SIGKILL)
	}
	_ = dies.daemon.Stop(syscall.SIGKILL)
	died := time.Now()
	eventually.True(t, "the other host takes the address over", func() bool { return lives.has(shared) })
	t.Logf("the other host has the address %s after the first one died", time.Since(died))
	if !lives.AdmitsWithin(client, shared, 22, lab.Deadline/12) {
		t.Error("a client with a window is not let in at the other host")
	}
	lives.daemon.WaitFor("accepted", client.String())
	if n := lives.daemon.Logged("knock", client.String()); n > 0 {
		t.Errorf("the other host has heard %d knocks", n)
	}
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

// newLAN returns a network with a client, and without a host.
func newLAN(t *testing.T, client netip.Addr) *fleet {
	t.Helper()
	f := newHub(t)
	lab.Must(t, f.hub.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: lab.IPNet(netip.PrefixFrom(client, 24))}); err != nil {
			return err
		}
		return netlink.LinkSetUp(bridge)
	}))
	return f
}

func (f *fleet) newLANHost(name string, address netip.Addr) *lanHost {
	f.t.Helper()
	host, err := netlab.NewHost()
	lab.Must(f.t, err)
	f.t.Cleanup(func() { host.Close() })
	h := &lanHost{member: &member{fleet: f, name: name, v4: address}}
	h.Lab = &lab.Lab{T: f.t, Server: host, Client: f.hub, Folder: filepath.Join(f.folder, h.name)}
	lab.Must(f.t, os.Mkdir(h.Folder, 0o700))
	h.link, h.hubLink, err = netlab.Link(host, f.hub, []netip.Prefix{netip.PrefixFrom(h.v4, 24)}, nil)
	lab.Must(f.t, err)
	lab.Must(f.t, f.hub.Do(func() error {
		bridge, err := netlink.LinkByName("lan")
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(h.hubLink)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	}))
	h.ServeTCP(22)
	return h
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

// has reports whether the host has an address.
func (h *lanHost) has(a netip.Addr) (has bool) {
	h.fleet.t.Helper()
	lab.Must(h.fleet.t, h.Server.Do(func() error {
		all, err := netlink.AddrList(nil, netlink.FAMILY_V4)
		for _, one := range all {
			has = has || one.IP.Equal(a.AsSlice())
		}
		return err
	}))
	return has
}
