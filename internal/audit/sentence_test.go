package audit_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

func TestEventAsASentence(t *testing.T) {
	alice := packet.Source{Prefix: netip.MustParsePrefix("192.0.2.1/32")}
	network := packet.Source{Prefix: netip.MustParsePrefix("2001:db8::/64")}
	for _, tt := range []struct {
		event audit.Event
		want  string
	}{
		{audit.Event{Kind: audit.Knock, Door: "ssh", Source: alice, Port: tcp(7000), Step: 1, Steps: 3, Count: 1},
			"192.0.2.1 knocks at ssh, 1 of 3 right (7000/tcp)"},
		{audit.Event{Kind: audit.Knock, Door: "ssh", Source: network, Port: packet.Port{Number: 8000, Protocol: packet.UDP}, Step: 2, Steps: 3, Count: 7},
			"2001:db8::/64 knocks at ssh, 2 of 3 right (8000/udp), 7 times"},
		{audit.Event{Kind: audit.Knock, Door: "ssh", Count: 400, Reason: "from many other sources"},
			"somebody knocks at ssh, 400 times: from many other sources"},
		{audit.Event{Kind: audit.Reset, Door: "ssh", Source: alice, Port: tcp(9000), Step: 1, Steps: 3, Reason: "wrong order"},
			"192.0.2.1 fails to knock at ssh after 1 of 3 (9000/tcp): wrong order"},
		{audit.Event{Kind: audit.Reset, Door: "ssh", Source: alice, Step: 2, Steps: 3, Reason: "too late", Count: 2},
			"192.0.2.1 fails to knock at ssh after 2 of 3, 2 times: too late"},
		{audit.Event{Kind: audit.Reset, Door: "ssh", Count: 3, Reason: "from many other sources"},
			"somebody fails to knock at ssh, 3 times: from many other sources"},
		{audit.Event{Kind: audit.Knock, Door: "ssh", Source: alice, Port: tcp(9000), Step: 1, Steps: 3, Reason: "to close"},
			"192.0.2.1 knocks at ssh, 1 of 3 right (9000/tcp): to close"},
		{audit.Event{Kind: audit.Reset, Door: "vpn", Source: alice, Port: packet.Port{Number: 2000, Protocol: packet.UDP}, Reason: "no one-time password"},
			"192.0.2.1 fails to knock at vpn (2000/udp): no one-time password"},
		{audit.Event{Kind: audit.Trapped, Door: "ssh", Source: alice, Port: tcp(7001), Count: 1},
			"192.0.2.1 is trapped at ssh (7001/tcp)"},
		{audit.Event{Kind: audit.Trapped, Door: "ssh", Source: network, Port: tcp(7001), Step: 2, Steps: 3, Count: 4},
			"2001:db8::/64 is trapped at ssh after 2 of 3 (7001/tcp), 4 times"},
		{audit.Event{Kind: audit.Trapped, Door: "ssh", Count: 300, Reason: "from many other sources"},
			"somebody is trapped at ssh, 300 times: from many other sources"},
		{audit.Event{Kind: audit.Replayed, Door: "ssh", Source: alice, Port: tcp(9000), Count: 2},
			"192.0.2.1 repeats a used knock at ssh (9000/tcp), 2 times"},
		{audit.Event{Kind: audit.Command, Door: "ssh", Source: alice, Reason: "on_open: exit code 0 after 3ms"},
			"ssh has run a command for 192.0.2.1: on_open: exit code 0 after 3ms"},
		{audit.Event{Kind: audit.Command, Door: "ssh", Source: alice, Reason: "on_close: exit code 1 after 3ms: no", Failed: true},
			"A command of ssh for 192.0.2.1 has failed: on_close: exit code 1 after 3ms: no"},
		{audit.Event{Kind: audit.Low, Failed: true, Reason: "nobody can open the door ssh by a sequence: it is gone"},
			"A list of one-time sequences cannot be used: nobody can open the door ssh by a sequence: it is gone"},
		{audit.Event{Kind: audit.Low, Door: "ssh", Reason: "sequences left in /etc/list: 2"},
			"ssh has few one-time sequences left: sequences left in /etc/list: 2"},
		{audit.Event{Kind: audit.Opened, Door: "ssh", Source: alice, Port: tcp(9000), Step: 3, Steps: 3, Window: 30 * time.Second, Count: 1},
			"ssh is open for 192.0.2.1, for 30s (9000/tcp)"},
		{audit.Event{Kind: audit.Opened, Door: "ssh", Source: network, Window: 90*time.Second + 1500*time.Microsecond, Reason: "by hand"},
			"ssh is open for 2001:db8::/64, for 1m30.002s: by hand"},
		{audit.Event{Kind: audit.Refreshed, Door: "ssh", Source: alice, Port: tcp(9000), Step: 3, Steps: 3, Window: time.Minute},
			"ssh stays open for 192.0.2.1, for 1m from now (9000/tcp)"},
		{audit.Event{Kind: audit.Accepted, Door: "ssh", Source: alice, Port: tcp(22), Count: 1},
			"192.0.2.1 is admitted at ssh (22/tcp)"},
		{audit.Event{Kind: audit.Accepted, Door: "ssh", Source: alice, Port: tcp(22), Count: 12},
			"192.0.2.1 is admitted at ssh (22/tcp), 12 times"},
		{audit.Event{Kind: audit.Refused, Door: "ssh", Source: alice, Port: tcp(22)},
			"192.0.2.1 is refused at ssh (22/tcp)"},
		{audit.Event{Kind: audit.Refused, Door: "ssh", Source: alice, Port: tcp(22), Reason: "max_connections is reached", Count: 2},
			"192.0.2.1 is refused at ssh (22/tcp), 2 times: max_connections is reached"},
		{audit.Event{Kind: audit.Refused, Door: "ssh", Count: 5000, Reason: "from many other sources"},
			"somebody is refused at ssh, 5000 times: from many other sources"},
		{audit.Event{Kind: audit.Refused, Door: "ssh", Source: alice, Port: tcp(9000), Step: 3, Steps: 3, Reason: "no such file", Count: 1, Failed: true},
			"ssh could not be opened for 192.0.2.1 (9000/tcp): no such file"},
		{audit.Event{Kind: audit.Refused, Door: "ssh", Reason: "from many other sources", Count: 2, Failed: true},
			"ssh could not be opened for somebody, 2 times: from many other sources"},
		{audit.Event{Kind: audit.Refused, Origin: "host2", Code: audit.CodeNotRemembered, Reason: "no such file", Failed: true},
			"A knock at host2 might open a door here once more: no such file"},
		{audit.Event{Kind: audit.Closed, Door: "ssh", Source: alice, Reason: "by hand"},
			"ssh is closed early for 192.0.2.1: by hand"},
		{audit.Event{Kind: audit.Closed, Door: "ssh", Source: alice, Reason: "no such file", Failed: true},
			"ssh could not be closed for 192.0.2.1: no such file"},
		{audit.Event{Kind: audit.Expired, Door: "ssh", Source: network},
			"ssh is closed for 2001:db8::/64, because the window expired"},
		{audit.Event{Kind: audit.Overloaded, Count: 12, Reason: "packets come faster than they can be read"},
			"12 lost: packets come faster than they can be read"},
		{audit.Event{Kind: audit.Overloaded, Count: 1, Reason: "events came faster than they could be written"},
			"1 lost: events came faster than they could be written"},
		{audit.Event{Kind: audit.Overloaded, Code: audit.CodeConntrackFull, Reason: "conntrack's table is nearly full, 95 of 100 connections"},
			"This host may soon drop new connections: conntrack's table is nearly full, 95 of 100 connections"},
		{audit.Event{Kind: audit.Overloaded, Code: audit.CodeConntrackRoom, Reason: "conntrack's table has room again, 70 of 100 connections"},
			"This host has room for new connections again: conntrack's table has room again, 70 of 100 connections"},
		{audit.Event{Kind: audit.Reloaded, Reason: "doors: 1, windows open: 0"},
			"New rules are in force: doors: 1, windows open: 0"},
		{audit.Event{Kind: audit.Reloaded, Reason: "the former rules cannot be put back yet: no such file", Failed: true},
			"The wanted rules are not in force: the former rules cannot be put back yet: no such file"},
		{audit.Event{Kind: audit.Healed, Reason: "the wall was changed by nft and is put back, windows open: 2"},
			"Another program has changed the wall: the wall was changed by nft and is put back, windows open: 2"},
		{audit.Event{Kind: audit.Healed, Reason: "the wall was changed and cannot be put back yet: no such file", Failed: true},
			"Another program has changed the wall: the wall was changed and cannot be put back yet: no such file"},
		{audit.Event{Kind: audit.Started, Reason: "doors: 1, windows open: 0"},
			"The wall is in force and the daemon runs: doors: 1, windows open: 0"},
		{audit.Event{Kind: audit.Stopped, Reason: "the wall is taken down"},
			"The daemon stops: the wall is taken down"},
		{audit.Event{Kind: audit.Stopped, Failed: true}, "The daemon stops"},
	} {
		tt.event.Time = noon // the sentence leaves out the time
		if got := tt.event.Sentence(); got != tt.want {
			t.Errorf("%s\nis told as %q\nand not as %q", tt.event, got, tt.want)
		}
	}
}

func TestEveryKindHasASentence(t *testing.T) {
	seen := map[string]audit.Kind{}
	for _, kind := range kinds(t) {
		for _, failed := range []bool{false, true} {
			e := audit.Event{Time: noon, Kind: kind, Door: "ssh", Source: source(1), Step: 1, Steps: 2, Window: time.Second, Count: 1, Failed: failed}
			got := e.Sentence()
			if got == "" || strings.TrimSpace(got) != got || strings.ContainsAny(got, "\n%") {
				t.Errorf("%s, failed %t: %q", kind, failed, got)
			}
			if other, ok := seen[got]; ok && other != kind {
				t.Errorf("%s and %s are both told as %q", kind, other, got)
			}
			seen[got] = kind
		}
	}
}
