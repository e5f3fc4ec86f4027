package integration

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/netlab"
)

// sshAt returns a rule file with one door at some interfaces.
func sshAt(interfaces string) string {
	return `door "ssh" {
		ports      = [22]
		sequence   = [4113, "27911/udp", 1840]
		interfaces = [` + interfaces + `]
		traps      = 0
	}`
}

// configure changes the interfaces of the server.
func (l *lab) configure(changes ...func(link netlink.Link) error) {
	l.t.Helper()
	must(l.t, l.server.Do(func() error {
		link, err := netlink.LinkByName(l.serverLink)
		for _, change := range changes {
			if err == nil {
				err = change(link)
			}
		}
		return err
	}))
}

// intoBridge makes the server's end of the cable a port of a bridge. The bridge takes its
// address.
func (l *lab) intoBridge(name string) {
	l.t.Helper()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(server4, 24))}
	l.configure(
		func(netlink.Link) error { return netlink.LinkAdd(bridge) },
		func(link netlink.Link) error {
			return netlink.LinkSetHardwareAddr(bridge, link.Attrs().HardwareAddr) // the client knows this address
		},
		func(link netlink.Link) error { return netlink.LinkSetMaster(link, bridge) },
		func(netlink.Link) error { return netlink.LinkSetUp(bridge) },
		func(link netlink.Link) error { return netlink.AddrDel(link, address) },
		func(netlink.Link) error { return netlink.AddrAdd(bridge, address) },
	)
}

// checked returns the output of `knockwall check` on the server.
func (l *lab) checked(rules string) string {
	l.t.Helper()
	var said bytes.Buffer
	cmd := knockwall("check", "--config", rules)
	cmd.Stdout, cmd.Stderr = &said, &said
	must(l.t, on(l.server, cmd))
	must(l.t, cmd.Wait())
	return strings.Join(strings.Fields(said.String()), " ")
}

// A door that guards nothing admits everybody. All commands report it with the correct
// name. With that name the door is shut.
func TestADoorAtTheWrongInterface(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		prepare func(l *lab) (wrong, right string)
		problem string
	}{
		{"one that there is not", func(l *lab) (string, string) { return "eth9", l.serverLink }, `There is no interface "eth9" on this host now.`},
		{"an altname", func(l *lab) (string, string) {
			l.configure(func(link netlink.Link) error { return netlink.LinkAddAltName(link, "uplink") })
			return "uplink", l.serverLink
		}, `"uplink" is an altname of `},
		{"a port of a bridge", func(l *lab) (string, string) {
			l.intoBridge("br7")
			return l.serverLink, "br7"
		}, `is a port of the bridge "br7"`},
		{"what a macvlan takes all from", func(l *lab) (string, string) {
			macvlan := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "mv7"}, Mode: netlink.MACVLAN_MODE_PASSTHRU}
			address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(server4, 24))}
			l.configure(
				func(link netlink.Link) error {
					macvlan.ParentIndex = link.Attrs().Index
					return netlink.LinkAdd(macvlan)
				},
				func(link netlink.Link) error {
					return netlink.LinkSetHardwareAddr(macvlan, link.Attrs().HardwareAddr)
				},
				func(netlink.Link) error { return netlink.LinkSetUp(macvlan) },
				func(link netlink.Link) error { return netlink.AddrDel(link, address) },
				func(netlink.Link) error { return netlink.AddrAdd(macvlan, address) },
			)
			return l.serverLink, "mv7"
		}, `passes all its packets to the macvlan "mv7"`},
		{"a pattern that fits none", func(l *lab) (string, string) { return "ppp*", l.serverLink[:1] + "*" }, `begins with "ppp"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.serve(22)
			wrong, right := test.prepare(l)
			rules := l.rules(sshAt(`"` + wrong + `"`))
			if said := l.checked(rules); !strings.Contains(said, "1 door, no errors, 1 warning") || !strings.Contains(said, test.problem) ||
				!strings.Contains(said, `The door "ssh" guards nothing on this host`) {
				t.Errorf("check says: %s", said)
			}
			d := l.runFile(rules)
			if !l.letsIn(client4, server4, 22) {
				t.Fatal("this name is right: what came in by it was held up")
			}
			if d.logged("guarding ssh") > 0 || d.logged("ssh: 22/tcp is NOT guarded: ", test.problem) != 1 {
				t.Error("the daemon does not say that the door is bare")
			}
			s := d.status()
			if !s.Doors[0].Bare || len(s.Findings) != 1 || !strings.Contains(s.Findings[0].Problem, test.problem) {
				t.Errorf("status: %+v, %+v", s.Doors[0], s.Findings)
			}
			why, err := control.NewClient(d.control).Explain(context.Background(), client4.String())
			must(t, err)
			if !why[0].In || !strings.Contains(why[0].Sentence, test.problem) {
				t.Errorf("explain: %+v", why)
			}

			l.rules(sshAt(`"` + right + `"`))
			reloaded, err := control.NewClient(d.control).Reload(context.Background(), "")
			must(t, err)
			if reloaded.Warnings != "" {
				t.Errorf("the right name: %s", reloaded.Warnings)
			}
			if l.admits(client4, server4, 22) {
				t.Error("the right name: a stranger is let in")
			}
			if s := d.status(); s.Doors[0].Bare || len(s.Findings) != 0 {
				t.Errorf("the right name: %+v, %+v", s.Doors[0], s.Findings)
			}
			l.rules(sshAt(`"` + wrong + `"`))
			reloaded, err = control.NewClient(d.control).Reload(context.Background(), "")
			must(t, err)
			if !strings.Contains(strings.Join(strings.Fields(reloaded.Warnings), " "), test.problem) {
				t.Errorf("the wrong name again: %q", reloaded.Warnings)
			}
		})
	}
}

// A renamed interface leaves its door. An interface whose new name matches a pattern is
// guarded from its first packet, and so is one that is added later.
func TestInterfacesThatComeAndGo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	rename := func(to string) {
		l.configure(
			netlink.LinkSetDown, // older kernels require it
			func(link netlink.Link) error { return netlink.LinkSetName(link, to) },
			netlink.LinkSetUp,
		)
		l.serverLink = to
	}
	d := l.run(sshAt(`"` + l.serverLink + `", "ppp*", "b*"`))
	refuses := func(from, to netip.Addr) {
		t.Helper()
		before := d.status().Doors[0].Counters.KernelRefused
		if l.admits(from, to, 22) {
			t.Errorf("%s is let in", from)
		}
		eventually(t, "the door has refused "+from.String(), func() bool { return d.status().Doors[0].Counters.KernelRefused > before })
	}
	refuses(client4, server4)
	if s := d.status(); s.Doors[0].Bare || len(s.Findings) != 2 || s.Findings[0].Severity != doctor.Warning {
		t.Errorf("with patterns that fit none: %+v, %+v", s.Doors[0], s.Findings)
	}
	rename("renamed0")
	eventually(t, "the door is said to stand before nothing", func() bool { return d.status().Doors[0].Bare })
	if !l.letsIn(client4, server4, 22) {
		t.Error("the interface has another name, and its door is said to be bare, but is not")
	}
	rename("ppp7")
	refuses(client4, server4)
	d.waitFor("ssh: 22/tcp is NOT guarded: ")
	eventually(t, "the door is said to stand", func() bool { return !d.status().Doors[0].Bare })
	d.waitFor("guarding ssh: 22/tcp again")

	// An interface that is added while the wall is in force. The server's end is b.
	var err error
	l.client, err = netlab.NewHost()
	must(t, err)
	t.Cleanup(func() { l.client.Close() })
	near, far := netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24")
	_, _, err = netlab.Link(l.client, l.server, []netip.Prefix{far}, []netip.Prefix{near})
	must(t, err)
	refuses(far.Addr(), near.Addr())
	l.knock(far.Addr(), near.Addr(), tcp(4113), udp(27911), tcp(1840))
	if !l.letsIn(far.Addr(), near.Addr(), 22) {
		t.Error("who knocks there is not let in")
	}
}
