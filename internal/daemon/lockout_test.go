//go:build linux

package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

func prefixes(all ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range all {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func guarding(name string, first, last uint16, change ...func(*ruleset.Door)) ruleset.Door {
	d := ruleset.Door{Name: name, Ports: []packet.PortRange{{First: first, Last: last, Protocol: packet.TCP}}}
	for _, c := range change {
		c(&d)
	}
	return d
}

func TestWhoWouldBeLockedOutIsWarned(t *testing.T) {
	const v4, v6 = "198.51.100.7 50000 192.0.2.1 22", "2001:db8::7 50000 2001:db8::1 22"
	at := func(to ...string) func(*ruleset.Door) { return func(d *ruleset.Door) { d.To = prefixes(to...) } }
	trusting := func(who ...string) func(*ruleset.Door) {
		return func(d *ruleset.Door) { d.Trusted = prefixes(who...) }
	}
	udp := func(d *ruleset.Door) { d.Ports[0].Protocol = packet.UDP }
	for _, test := range []struct {
		name    string
		session string
		trusted []netip.Prefix // by the wall
		doors   []ruleset.Door
		warned  bool
	}{
		{"the port is guarded", v4, nil, []ruleset.Door{guarding("ssh", 22, 22)}, true},
		{"a range with the port is guarded", v4, nil, []ruleset.Door{guarding("ssh", 1, 1023)}, true},
		{"the first port of a range", v4, nil, []ruleset.Door{guarding("ssh", 22, 23)}, true},
		{"over IPv6", v6, nil, []ruleset.Door{guarding("ssh", 22, 22)}, true},
		{"another port is guarded", v4, nil, []ruleset.Door{guarding("ssh", 23, 1023)}, false},
		{"the client's port is guarded", v4, nil, []ruleset.Door{guarding("ssh", 50000, 50000)}, false},
		{"the port is guarded for UDP", v4, nil, []ruleset.Door{guarding("ssh", 22, 22, udp)}, false},
		{"there is no door", v4, nil, nil, false},
		{"the door is at this address", v4, nil, []ruleset.Door{guarding("ssh", 22, 22, at("203.0.113.0/24", "192.0.2.1/32"))}, true},
		{"the door is at another address", v4, nil, []ruleset.Door{guarding("ssh", 22, 22, at("203.0.113.0/24", "198.51.100.7/32"))}, false},
		{"the door is at IPv4 addresses", v6, nil, []ruleset.Door{guarding("ssh", 22, 22, at("0.0.0.0/0"))}, false},
		{"an address in IPv6 clothes", "::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22", nil,
			[]ruleset.Door{guarding("ssh", 22, 22, at("192.0.2.1/32"))}, true},
		{"a client in IPv6 clothes is trusted", "::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22", prefixes("198.51.100.0/24"),
			[]ruleset.Door{guarding("ssh", 22, 22)}, false},
		{"a zone", "fe80::7%eth0 50000 fe80::1%eth0 22", nil, []ruleset.Door{guarding("ssh", 22, 22, at("fe80::/64"))}, true},
		{"a client with a zone is trusted", "fe80::7%eth0 50000 fe80::1%eth0 22", nil,
			[]ruleset.Door{guarding("ssh", 22, 22, trusting("fe80::/64"))}, false},
		{"the wall trusts the client", v4, prefixes("198.51.100.7/32"), []ruleset.Door{guarding("ssh", 22, 22)}, false},
		{"the wall trusts the client's network", v6, prefixes("10.0.0.0/8", "2001:db8::/32"), []ruleset.Door{guarding("ssh", 22, 22)}, false},
		{"the wall trusts somebody else", v4, prefixes("198.51.100.8/32", "192.0.2.1/32"), []ruleset.Door{guarding("ssh", 22, 22)}, true},
		{"the door trusts the client", v4, nil, []ruleset.Door{guarding("ssh", 22, 22, trusting("198.51.100.0/24"))}, false},
		{"another door trusts the client", v4, nil,
			[]ruleset.Door{guarding("web", 443, 443, trusting("198.51.100.0/24")), guarding("ssh", 22, 22)}, true},
		{"one of two doors at the port trusts the client", v4, nil,
			[]ruleset.Door{guarding("first", 22, 22), guarding("second", 22, 22, trusting("198.51.100.0/24"))}, false},
		{"a door at another address trusts the client", v4, nil,
			[]ruleset.Door{guarding("ssh", 22, 22), guarding("other", 22, 22, at("203.0.113.1/32"), trusting("198.51.100.0/24"))}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, ok := host.ParseSession(test.session)
			if !ok {
				t.Fatalf("%q is no session", test.session)
			}
			for _, confirm := range []string{"", "knockwall confirm"} {
				var said strings.Builder
				writeLockout(&said, &ruleset.Config{Wall: ruleset.Wall{Trusted: test.trusted}, Doors: test.doors}, s, confirm)
				if got := said.Len() > 0; got != test.warned {
					t.Errorf("on trial %q: warned %t: %s", confirm, got, said.String())
				}
			}
		})
	}
}

// Loopback is never judged.
func TestWhoIsHereOverLoopbackIsNotWarned(t *testing.T) {
	for _, text := range []string{"127.0.0.1 50000 127.0.0.1 22", "::1 50000 ::1 22"} {
		s, ok := host.ParseSession(text)
		if !ok {
			t.Fatalf("%q is no session", text)
		}
		var said strings.Builder
		writeLockout(&said, &ruleset.Config{Doors: []ruleset.Door{guarding("ssh", 22, 22)}}, s, "")
		if said.Len() > 0 {
			t.Errorf("%s", said.String())
		}
	}
}

func TestTheWarningSaysWhatToDo(t *testing.T) {
	s, _ := host.ParseSession("::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 2222")
	one := &ruleset.Config{Doors: []ruleset.Door{guarding("ssh", 2222, 2222)}}
	for _, test := range []struct {
		name    string
		confirm string
		want    string
	}{
		{"for good", "", "You are here by ssh, from 198.51.100.7 to port 2222, which is about to close:\n" +
			"the door ssh hides it. This session goes on, but the next one has to knock.\n" +
			"Stay connected until you have tried that from another terminal.\n" +
			"Safer: start with --confirm 2m, which takes the wall down again unless you\n" +
			"confirm it, or let 198.51.100.7 in without knocking: trusted =\n" +
			"[\"198.51.100.7\"]\n"},
		{"on trial", "knockwall confirm --control /run/other.sock", "You are here by ssh, from 198.51.100.7 to port 2222, which is about to close:\n" +
			"the door ssh hides it. This session goes on, but the next one has to knock.\n" +
			"Stay connected until you have tried that from another terminal.\n" +
			"The wall is on trial: it goes down again unless you type `knockwall confirm\n" +
			"--control /run/other.sock` in time.\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var said strings.Builder
			writeLockout(&said, one, s, test.confirm)
			if diff := cmp.Diff(test.want, said.String()); diff != "" {
				t.Errorf("the warning (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("several doors", func(t *testing.T) {
		var said strings.Builder
		writeLockout(&said, &ruleset.Config{Doors: []ruleset.Door{
			guarding("ssh", 2222, 2222), guarding("web", 443, 443), guarding("many", 2000, 3000),
		}}, s, "")
		if text := strings.ReplaceAll(said.String(), "\n", " "); !strings.Contains(text, "the doors ssh, many hide it") {
			t.Errorf("the warning is\n%s", said.String())
		}
	})
}
