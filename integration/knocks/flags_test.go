package knocks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// Knocks can be segments that no TCP client sends. The test sends raw packets, exactly as
// the door wants them.
func TestKnocksWithOtherFlags(t *testing.T) {
	t.Parallel()
	doors := []struct {
		flags []string
		sends packet.Flags
		like  []packet.Flags // other flags that match as well
		not   []packet.Flags // flags that do not match, besides SYN
	}{
		{flags: []string{"fin", "psh", "urg"}, sends: packet.FIN | packet.PSH | packet.URG, not: []packet.Flags{packet.FIN, packet.FIN | packet.PSH, packet.ACK}},
		{flags: []string{"ack"}, sends: packet.ACK, like: []packet.Flags{packet.ACK | packet.PSH, packet.SYN | packet.ACK}, not: []packet.Flags{packet.FIN, packet.RST}},
		{flags: []string{"syn", "ack"}, sends: packet.SYN | packet.ACK, not: []packet.Flags{packet.ACK}},
		{flags: []string{"!syn", "!ack", "!fin", "!rst", "!psh", "!urg"}, sends: 0,
			not: []packet.Flags{packet.ACK, packet.FIN, packet.RST, packet.PSH, packet.URG}},
		{flags: []string{"rst", "!ack"}, sends: packet.RST, not: []packet.Flags{packet.RST | packet.ACK}},
	}
	l := lab.New(t)
	var rules strings.Builder
	knocks := []packet.Port{lab.TCP(7001), lab.TCP(4113), lab.TCP(9001)}
	for i, door := range doors {
		l.ServeTCP(22 + i)
		// The doors have the same knocks and differ only in flags.
		fmt.Fprintf(&rules, "door \"d%d\" {\n ports = [%d]\n sequence = [7001, 4113, 9001]\n window = \"10m\"\n tcp_flags = [\"%s\"]\n}\n",
			i, 22+i, strings.Join(door.flags, `", "`))
	}
	d := l.Run(rules.String())
	n := 0
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		for i, door := range doors {
			send := func(flags packet.Flags) netip.Addr {
				n++
				for j, k := range knocks {
					l.Send(forge.Segment{From: lab.Source(n, server), To: server, SourcePort: uint16(40000 + j), Port: k, Sequence: uint32(n*1000 + j), Flags: flags})
				}
				return lab.Source(n, server)
			}
			opened := func(source netip.Addr) bool {
				return d.Logged("opened ", fmt.Sprintf("door=d%d ", i), "source="+source.String()+" ") > 0
			}
			var strangers []netip.Addr
			for _, flags := range append(slices.Clone(door.not), packet.SYN) {
				strangers = append(strangers, send(flags))
			}
			for _, flags := range append(slices.Clone(door.like), door.sends) {
				// Each from another source, back to back with a connection.
				source := lab.Source(n+1, server)
				if err := l.OnFirstSYNAfter(source, server, uint16(22+i), func() error { send(flags); return nil }); err != nil {
					t.Errorf("%s, %v: after segments with the flags %#x: %v", server, door.flags, flags, err)
				}
			}
			// All earlier packets have been handled by now.
			for j, source := range strangers {
				if opened(source) {
					t.Errorf("%s, %v: the %d. kind of segment that is no knock has opened the door", server, door.flags, j+1)
				}
			}
			if l.AdmitsAtOnce(strangers[len(strangers)-1], server, 22+i) {
				t.Errorf("%s, %v: admitted after SYNs", server, door.flags)
			}
		}
	}
}

// A segment without a connection may leave an entry in conntrack, which takes it for a
// part of a connection whose beginning it missed. The next segment with the same ports is
// still a knock, whether an RST answered the first one or not.
func TestKnocksThatConntrackKnows(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		list  string
		flags packet.Flags
	}{
		{`"ack", "!syn", "!fin"`, packet.ACK},
		{`"syn", "ack"`, packet.SYN | packet.ACK},
		{`"fin", "ack"`, packet.FIN | packet.ACK},
		{`"fin", "psh", "urg"`, packet.FIN | packet.PSH | packet.URG},
	}
	var rules strings.Builder
	for i, kind := range kinds {
		fmt.Fprintf(&rules, "door \"d%d\" {\n ports = [%d]\n sequence = [7001, 4113, 9001]\n window = \"10m\"\n tcp_flags = [%s]\n}\n", i, 22+i, kind.list)
	}
	for _, answered := range []bool{true, false} {
		l := lab.New(t)
		if !answered {
			// Drop the RST before conntrack sees it, because it would delete the entry.
			l.LoadNft("table inet mute {\n chain out {\n type filter hook output priority -301\n tcp flags & rst == rst drop\n }\n}\n")
		}
		d := l.Run(rules.String())
		for i, kind := range kinds {
			for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
				source := lab.Source(i+1, server)
				for round := range 3 {
					for j, k := range []packet.Port{lab.TCP(7001), lab.TCP(4113), lab.TCP(9001)} {
						// Another sequence number; otherwise it would be a
						// retransmission.
						l.Send(forge.Segment{From: source, To: server, SourcePort: uint16(40000 + j), Port: k, Sequence: uint32(round * 1000), Flags: kind.flags})
					}
					event := map[bool]string{true: "opened ", false: "refreshed "}[round == 0]
					d.WaitForCount(max(1, round), event, fmt.Sprintf("door=d%d ", i), "source="+source.String()+" ")
				}
			}
			if traces := !strings.Contains(l.DescribeConntrack(), "nf_conntrack_count 0,"); traces == answered {
				t.Errorf("answered %v: conntrack knows of segments: %v", answered, traces)
			}
		}
	}
}
