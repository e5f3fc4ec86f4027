package integration

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// floodLines returns how many lines a flood of one door can write in a time, by the
// limits of [audit.Summer]. In each interval there are 32 leading events of the three
// kinds that are summed up, before each of them the sums of its source's other two kinds,
// at the end a sum for each source, and one for all others of a kind. One more line
// reports an overload.
func floodLines(d time.Duration) int {
	intervals := int(d/audit.SumInterval) + 2
	return intervals*(3*32*4+3) + 1
}

// All knocks are SYNs, so that a flood knocks as well.
var synKnocks = []packet.Port{tcp(4113), tcp(27911), tcp(1840)}

// On a slow machine a flood needs time between two knocks of a source.
const synRules = `door "ssh" {
  ports       = [22]
  sequence    = [4113, 27911, 1840]
  seq_timeout = "2m"
}`

// conntrack describes how full the server's connection table is.
func (l *lab) conntrack() string {
	l.t.Helper()
	var words []string
	must(l.t, l.server.Do(func() error {
		for _, name := range []string{"nf_conntrack_count", "nf_conntrack_max"} {
			b, err := os.ReadFile("/proc/sys/net/netfilter/" + name)
			if err != nil {
				return err
			}
			words = append(words, name+" "+strings.TrimSpace(string(b)))
		}
		b, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
		if err != nil {
			return nil // not every kernel has it
		}
		rows := strings.Split(strings.TrimSpace(string(b)), "\n")
		names := strings.Fields(rows[0])
		for i, name := range names {
			if !slices.Contains([]string{"insert_failed", "drop", "early_drop"}, name) {
				continue
			}
			var sum uint64
			for _, row := range rows[1:] {
				n, err := strconv.ParseUint(strings.Fields(row)[i], 16, 64)
				if err != nil {
					return err
				}
				sum += n
			}
			words = append(words, fmt.Sprintf("%s %d", name, sum))
		}
		return nil
	}))
	return strings.Join(words, ", ")
}

// The sources of floods. They are behind the client, which drops the server's answers to
// them.
var (
	flood4 = netip.MustParsePrefix("10.128.0.0/9")
	flood6 = netip.MustParsePrefix("2001:db8:2::/64")
)

// flood is a stream of SYNs at full speed.
type flood struct {
	*forge.Flood
	t testing.TB
}

// flood sends SYNs to the ports, from random sources if from is the zero address, else
// from that one.
func (l *lab) flood(from, to netip.Addr, ports ...uint16) *flood {
	l.t.Helper()
	return l.stream(forge.Stream{To: to, From: from, Packets: 20 << 20}, ports...)
}

// stream sends SYNs to the ports, for two minutes at most.
func (l *lab) stream(s forge.Stream, ports ...uint16) *flood {
	l.t.Helper()
	s.Among, s.Time = flood4, 2*time.Minute
	if s.To.Is6() {
		s.Among = flood6
	}
	for _, p := range ports {
		s.Ports = append(s.Ports, tcp(p))
	}
	must(l.t, l.server.Do(func() error {
		link, err := netlink.LinkByName(l.serverLink)
		if err != nil {
			return err
		}
		s.Hardware = link.Attrs().HardwareAddr
		// The server ignores knocks from sources to which it has no route.
		for p, via := range map[netip.Prefix]netip.Addr{flood4: client4, flood6: client6} {
			if err := netlink.RouteReplace(&netlink.Route{Dst: ipNet(p), Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		return nil
	}))
	started, err := forge.StartFlood(l.client, l.clientLink, s)
	must(l.t, err)
	f := &flood{Flood: started, t: l.t}
	l.t.Cleanup(f.end)
	return f
}

// follow sends SYNs as fast as this machine makes them and the daemon reads them. Faster
// packets are lost, on every machine, and a client that knocks at that time must knock
// again.
func (d *daemon) follow(s forge.Stream, ports ...uint16) *flood {
	d.lab.t.Helper()
	s.Behind = d.behind
	return d.lab.stream(s, ports...)
}

// fallenBehind is how many bytes may wait in a socket of the daemon. In batches that is
// some thousand knocks, and less than the limit of any user's sockets.
const fallenBehind = 256 << 10

// behind reports whether the daemon has fallen behind. The flood calls it from a thread
// that cannot end the test, so on an error it returns false and the flood goes on.
func (d *daemon) behind() bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", d.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line) // socket, protocol, port, groups, bytes to read
		if len(fields) < 5 || fields[1] != strconv.Itoa(unix.NETLINK_NETFILTER) {
			continue
		}
		if waiting, err := strconv.Atoi(fields[4]); err == nil && waiting > fallenBehind {
			return true
		}
	}
	return false
}

// checkKeptUp fails the test if the flood waited for the daemon nearly all the time.
// Reading a knock costs less than sending it, on every machine.
func (f *flood) checkKeptUp() {
	f.t.Helper()
	if f.Rested() > f.Took()*3/4 {
		f.t.Errorf("of %s the flood has waited %s for the daemon to read", f.Took(), f.Rested())
	}
}

// end stops the flood.
func (f *flood) end() {
	f.t.Helper()
	if err := f.End(); err != nil {
		f.t.Errorf("the flood ended early: %v", err)
	}
}
