package lab

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

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/forge"
)

// Flood is a stream of packets at full speed.
type Flood struct {
	*forge.Flood
	t testing.TB
}

// Flood sends SYNs to the ports, from this source. If it is the zero address, the sources
// are random.
func (l *Lab) Flood(from, to netip.Addr, ports ...uint16) *Flood {
	l.T.Helper()
	return l.Stream(forge.Stream{To: to, From: from, Packets: 20 << 20}, ports...)
}

// Stream sends SYNs to these ports and to those of the stream, for two minutes at most.
// The test ends the flood if the caller does not.
func (l *Lab) Stream(s forge.Stream, ports ...uint16) *Flood {
	l.T.Helper()
	s.Among, s.Time = flood4, 2*time.Minute
	if s.To.Is6() {
		s.Among = flood6
	}
	for _, p := range ports {
		s.Ports = append(s.Ports, TCP(p))
	}
	Must(l.T, l.Server.Do(func() error {
		link, err := netlink.LinkByName(l.ServerLink)
		if err != nil {
			return err
		}
		s.Hardware = link.Attrs().HardwareAddr
		// The server ignores knocks from sources to which it has no route.
		for p, via := range map[netip.Prefix]netip.Addr{flood4: Client4, flood6: Client6} {
			if err := netlink.RouteReplace(&netlink.Route{Dst: IPNet(p), Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		return nil
	}))
	started, err := forge.StartFlood(l.Client, l.ClientLink, s)
	Must(l.T, err)
	f := &Flood{Flood: started, t: l.T}
	l.T.Cleanup(f.Stop)
	return f
}

// The sources of floods. They are behind the client, which drops the server's answers to
// them.
var (
	flood4 = netip.MustParsePrefix("10.128.0.0/9")
	flood6 = netip.MustParsePrefix("2001:db8:2::/64")
)

// Stop ends the flood. The test fails if the flood had ended before.
func (f *Flood) Stop() {
	f.t.Helper()
	if err := f.End(); err != nil {
		f.t.Errorf("the flood ended early: %v", err)
	}
}

// CheckKeptUp fails the test if the flood waited for the daemon for most of its time.
// Reading a knock costs less than sending it, on every machine.
func (f *Flood) CheckKeptUp() {
	f.t.Helper()
	if f.Rested() > f.Took()*3/4 {
		f.t.Errorf("of %s the flood has waited %s for the daemon to read", f.Took(), f.Rested())
	}
}

// ReceivedPackets returns how many packets have arrived at the server's end of the cable.
func (l *Lab) ReceivedPackets() (n uint64) {
	l.T.Helper()
	Must(l.T, l.Server.Do(func() error {
		link, err := netlink.LinkByName(l.ServerLink)
		if err == nil {
			n = link.Attrs().Statistics.RxPackets
		}
		return err
	}))
	return n
}

// DescribeConntrack returns how many entries the server's connection table has, how many
// it may have, and how many it has dropped, for messages.
func (l *Lab) DescribeConntrack() string {
	l.T.Helper()
	var words []string
	Must(l.T, l.Server.Do(func() error {
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

// FloodLogLines returns how many lines a flood of one door can add to the log in a time, by
// the limits of [audit.Summer]. Each source has events of nine sorts at a door with three
// knocks: the knocks, their ends after one or two of them in the wrong order or too late, a
// trap, and refusals. In each interval 32 leading sources have one line of each sort, before
// it the sums of the others, and at the end a sum of each. There is a sum for all others of
// each of the four kinds. One more line reports an overload.
func FloodLogLines(d time.Duration) int {
	const leading, sorts, kinds = 32, 9, 4
	intervals := int(d/audit.SumInterval) + 2
	return intervals*(leading*sorts*(1+sorts)+kinds) + 1
}
