package paths

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
)

// sshAt returns a rule file with one door at some interfaces.
func sshAt(interfaces string) string {
	return `door "ssh" {
		ports      = [22]
		sequence   = [4118, "27917/udp", 1847]
		interfaces = [` + interfaces + `]
		traps      = 0
	}`
}

// configure changes the interfaces of the server.
func configure(l *lab.Lab, changes ...func(link netlink.Link) error) {
	l.T.Helper()
	lab.Must(l.T, l.Server.Do(func() error {
		link, err := netlink.LinkByName(l.ServerLink)
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
func intoBridge(l *lab.Lab, name string) {
	l.T.Helper()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	address := &netlink.Addr{IPNet: lab.IPNet(netip.PrefixFrom(lab.Server4, 24))}
	configure(l,
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
func checked(l *lab.Lab, rules string) string {
	l.T.Helper()
	var said bytes.Buffer
	cmd := lab.Knockwall("check", "--config", rules)
	cmd.Stdout, cmd.Stderr = &said, &said
	lab.Must(l.T, lab.StartOn(l.Server, cmd))
	lab.Must(l.T, cmd.Wait())
	return strings.Join(strings.Fields(said.String()), " ")
}

// A door that guards nothing admits everybody. All commands report it with the correct
// name. With that name the door is shut.
func TestADoorAtTheWrongInterface(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		prepare func(l *lab.Lab) (wrong, right string)
		problem string
	}{
		{"one that there is not", func(l *lab.Lab) (string, string) { return "eth9", l.ServerLink }, `There is no interface "eth9" on this host now.`},
		{"an altname", func(l *lab.Lab) (string, string) {
			configure(l, func(link netlink.Link) error { return netlink.LinkAddAltName(link, "uplink") })
			return "uplink", l.ServerLink
		}, `"uplink" is an altname of `},
		{"a port of a bridge", func(l *lab.Lab) (string, string) {
			intoBridge(l, "br7")
			return l.ServerLink, "br7"
		}, `is a port of the bridge "br7"`},
		{"what a macvlan takes all from", func(l *lab.Lab) (string, string) {
			macvlan := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "mv7"}, Mode: netlink.MACVLAN_MODE_PASSTHRU}
			address := &netlink.Addr{IPNet: lab.IPNet(netip.PrefixFrom(lab.Server4, 24))}
			configure(l,
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
			return l.ServerLink, "mv7"
		}, `passes all its packets to the macvlan "mv7"`},
		{"a pattern that fits none", func(l *lab.Lab) (string, string) { return "ppp*", l.ServerLink[:1] + "*" }, `begins with "ppp"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			wrong, right := test.prepare(l)
			rules := l.WriteRules(sshAt(`"` + wrong + `"`))
			if said := checked(l, rules); !strings.Contains(said, "1 door, no errors, 1 warning") || !strings.Contains(said, test.problem) ||
				!strings.Contains(said, `The door "ssh" guards nothing on this host`) {
				t.Errorf("check says: %s", said)
			}
			d := l.RunFile(rules)
			if !l.Admits(lab.Client4, lab.Server4, 22) {
				t.Fatal("this name is right: what came in by it was held up")
			}
			if d.Logged("guarding ssh") > 0 || d.Logged("ssh: 22/tcp is NOT guarded: ", test.problem) != 1 {
				t.Error("the daemon does not say that the door is bare")
			}
			s := d.Status()
			if !s.Doors[0].Bare || len(s.Findings) != 1 || !strings.Contains(s.Findings[0].Problem, test.problem) {
				t.Errorf("status: %+v, %+v", s.Doors[0], s.Findings)
			}
			why, err := control.NewClient(d.Control).Explain(context.Background(), lab.Client4.String())
			lab.Must(t, err)
			if !why[0].In || !strings.Contains(why[0].Sentence, test.problem) {
				t.Errorf("explain: %+v", why)
			}

			l.WriteRules(sshAt(`"` + right + `"`))
			reloaded, err := control.NewClient(d.Control).Reload(context.Background(), "")
			lab.Must(t, err)
			if reloaded.Warnings != "" {
				t.Errorf("the right name: %s", reloaded.Warnings)
			}
			if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
				t.Error("the right name: a stranger is let in")
			}
			if s := d.Status(); s.Doors[0].Bare || len(s.Findings) != 0 {
				t.Errorf("the right name: %+v, %+v", s.Doors[0], s.Findings)
			}
			l.WriteRules(sshAt(`"` + wrong + `"`))
			reloaded, err = control.NewClient(d.Control).Reload(context.Background(), "")
			lab.Must(t, err)
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
	l := lab.New(t)
	l.ServeTCP(22)
	rename := func(to string) {
		configure(l,
			netlink.LinkSetDown, // older kernels require it
			func(link netlink.Link) error { return netlink.LinkSetName(link, to) },
			netlink.LinkSetUp,
		)
		l.ServerLink = to
	}
	d := l.Run(sshAt(`"` + l.ServerLink + `", "ppp*", "b*"`))
	refuses := func(from, to netip.Addr) {
		t.Helper()
		before := d.Status().Doors[0].Counters.KernelRefused
		if l.AdmitsAtOnce(from, to, 22) {
			t.Errorf("%s is let in", from)
		}
		eventually.True(t, "the door has refused "+from.String(), func() bool { return d.Status().Doors[0].Counters.KernelRefused > before })
	}
	refuses(lab.Client4, lab.Server4)
	if s := d.Status(); s.Doors[0].Bare || len(s.Findings) != 2 || s.Findings[0].Severity != doctor.Warning {
		t.Errorf("with patterns that fit none: %+v, %+v", s.Doors[0], s.Findings)
	}
	rename("renamed0")
	eventually.True(t, "the door is said to stand before nothing", func() bool { return d.Status().Doors[0].Bare })
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("the interface has another name, and its door is said to be bare, but is not")
	}
	rename("ppp7")
	refuses(lab.Client4, lab.Server4)
	d.WaitFor("ssh: 22/tcp is NOT guarded: ")
	eventually.True(t, "the door is said to stand", func() bool { return !d.Status().Doors[0].Bare })
	d.WaitFor("guarding ssh: 22/tcp again")

	// An interface that is added while the wall is in force. The server's end is b.
	var err error
	l.Client, err = netlab.NewHost()
	lab.Must(t, err)
	t.Cleanup(func() { l.Client.Close() })
	near, far := netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24")
	_, _, err = netlab.Link(l.Client, l.Server, []netip.Prefix{far}, []netip.Prefix{near})
	lab.Must(t, err)
	refuses(far.Addr(), near.Addr())
	l.Knock(far.Addr(), near.Addr(), lab.TCP(4118), lab.UDP(27917), lab.TCP(1847))
	if !l.Admits(far.Addr(), near.Addr(), 22) {
		t.Error("who knocks there is not let in")
	}
}
