package share

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
)

// The example of two gateways, as its files have it: when the one that has the addresses dies,
// sessions through it go on through the other one, and new connections of clients with an open
// window are let in there without a knock. What was closed with its sessions stays so.
func TestTwoGatewaysWithOneAddress(t *testing.T) {
	for _, program := range []string{"nats-server", "knockwall-share", "keepalived", "conntrackd"} {
		lab.NeedsProgram(t, program)
	}
	client, ended := netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.101")
	outside, inside := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("198.51.100.1")
	server := lab.Inside
	f := newLAN(t, client, ended)
	lab.Must(t, f.hub.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: lab.IPNet(netip.PrefixFrom(server, 32)), Gw: outside.AsSlice()})
	}))
	behind, err := netlab.NewHost()
	lab.Must(t, err)
	t.Cleanup(func() { behind.Close() })
	addBridge(t, behind, server)
	lab.Must(t, behind.Do(func() error { return lab.AddDefaultRoute(inside) }))
	(&lab.Lab{T: t, Server: behind}).ServeTCP(22)

	hosts := []*lanHost{f.newLANHost("a", netip.MustParseAddr("192.0.2.11")), f.newLANHost("b", netip.MustParseAddr("192.0.2.12"))}
	own := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/30"), netip.MustParsePrefix("10.0.0.2/30")}
	var between [2]string
	between[0], between[1], err = netlab.Link(hosts[0].Server, hosts[1].Server, own[:1], own[1:])
	lab.Must(t, err)
	var states []func(option string) string
	for i, h := range hosts {
		insideLink := h.plug(behind, netip.AddrFrom4([4]byte{198, 51, 100, byte(11 + i)}))
		h.cables = append(h.cables, pulled{h.Server, between[i]})
		lab.Must(t, h.Server.Do(func() error { return lab.WriteSysctl("ipv4/ip_forward", "1") }))
		address := own[i].Addr().String()
		h.serveNATS("gateways/nats.conf", map[string]string{`listen: "10.0.0.1:`: `listen: "` + address + `:`})
		h.shareAs("gateways/knockwall.hcl")
		states = append(states, h.trackConnections(address, own[1-i].Addr().String(), between[i]))
		h.write("gateways/role.sh", map[string]string{"/etc/conntrackd": h.Folder}, 0o700)
		h.keepAlive("gateways/keepalived.conf", map[string]string{"eth0": h.link, "eth1": insideLink, "/etc/conntrackd": h.Folder})
	}
	dies, lives := roles(hosts, outside, inside)
	t.Logf("%s has the addresses", dies.name)
	dies.hears(1)
	if dies.AdmitsAtOnce(client, server, 22) {
		t.Fatal("the door is open before a knock")
	}
	enter := func(from netip.Addr) net.Conn {
		dies.Knock(from, server, lab.TCP(26183), lab.TCP(4406), lab.TCP(19537))
		return dies.OpenSession(from, server)
	}
	idle, closed := enter(client), enter(ended)
	dies.knockwall("close", "ssh", ended.String(), "--sessions")
	busy := enter(client) // who hears of this session has heard of the closing
	state := states[0]
	if lives == hosts[1] {
		state = states[1]
	}
	eventually.True(t, "the other gateway has the window and the sessions", func() bool {
		return lives.isOpen(client) && strings.Count(state("-e"), " dst="+server.String()+" ") == 3
	})
	stopTransfer := dies.Meanwhile(func() error { return lab.ExchangeAndPause(busy) })

	dies.die()
	died := time.Now()
	lab.Must(t, lab.Exchange(idle))
	t.Logf("a session goes on at the other gateway %s after the first one died", time.Since(died))
	if !lives.has(outside, inside) {
		t.Error("the other gateway has not all addresses")
	}
	stopTransfer()
	lab.Must(t, lab.Exchange(busy))
	if !lives.AdmitsWithin(client, server, 22, lab.Deadline/12) {
		t.Error("a client with a window is not let in at the other gateway")
	}
	lives.daemon.WaitFor("accepted", client.String())
	if n := lives.daemon.Logged("knock", client.String()); n > 0 {
		t.Errorf("the other gateway has heard %d knocks", n)
	}
	closed.SetDeadline(time.Now().Add(lab.Short))
	if lab.Ping(closed) == nil {
		t.Error("a session that was ended lives on at the other gateway")
	}
	if lives.AdmitsAtOnce(ended, server, 22) {
		t.Error("a client whose window was closed is let in at the other gateway")
	}
}

// trackConnections runs conntrackd with the example's configuration. It returns a function
// that asks it for something.
func (h *lanHost) trackConnections(own, other, link string) (ask func(option string) string) {
	t := h.fleet.t
	t.Helper()
	program := lab.NeedsProgram(t, "conntrackd")
	conf := h.write("gateways/conntrackd.conf", map[string]string{
		"IPv4_address 10.0.0.1\n    IPv4_Destination_Address 10.0.0.2": "IPv4_address " + own + "\n    IPv4_Destination_Address " + other,
		"/var/lock": h.Folder, "/var/run": h.Folder,
	}, 0o600)
	lab.Must(t, h.Server.Do(func() error { // its parser takes no name such as a3
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		return netlink.LinkAddAltName(l, "eth2")
	}))
	ask = func(option string) string {
		out := &lab.Output{}
		cmd := exec.Command(program, "-C", conf, option)
		cmd.Stdout, cmd.Stderr = out, out
		lab.Must(t, lab.StartOn(h.Server, cmd))
		_ = cmd.Wait()
		return out.String()
	}
	h.run(program, "-C", conf)
	eventually.True(t, "conntrackd is ready", func() bool {
		_, err := os.Stat(filepath.Join(h.Folder, "conntrackd.sock"))
		return err == nil
	})
	return ask
}
