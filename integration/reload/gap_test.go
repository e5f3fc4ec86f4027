//go:build !race

package reload

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// gapRules returns rule files that guard the same ports and differ in every part of the
// table. There is one door for each kind of set that a verdict can depend on.
func gapRules(variant int) string {
	return fmt.Sprintf(`wall {
  trusted = ["10.1.4.0/24", "198.51.100.0/%[1]d", "2001:db8:1::400/120", "2001:db8:5::/%[2]d"]
}
door "traps" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  traps    = %[3]d
}
door "ranges" {
  ports    = ["8000-8009", "9000-%[4]d"]
  sequence = [4213, 1841, 27912]
  traps    = 0
}
door "address" {
  ports    = [2201]
  sequence = [4313, 1842, 27913]
  to       = [%[5]q, %[6]q]
  traps    = 0
}
door "prefixes" {
  ports    = [2202]
  sequence = [4413, 1843, 27914]
  to       = ["192.0.2.0/28", "203.0.113.0/%[1]d", "2001:db8::/112", "2001:db8:6::/%[2]d"]
  traps    = 0
}
door "friends" {
  ports    = [2204, "51830/udp"]
  sequence = [4513, 1844, 27915]
  trusted  = ["10.1.5.0/24", "203.0.113.0/%[1]d", "2001:db8:1::500/120", "2001:db8:6::/%[2]d"]
  traps    = 0
}
door "datagrams" {
  ports    = ["51820/udp", "5300-%[7]d/udp"]
  sequence = [4613, 1845, 27916]
  traps    = 0
}
`, 24+variant, 48+variant, 64+variant, 9010+variant, lab.Server4, lab.Server6, 5310+variant)
}

// apartRules returns such rule files without adjacent ports and traps. The kernel then
// finds a door by a list; only sources and addresses are ranges.
func apartRules(variant int) string {
	return fmt.Sprintf(`wall {
  trusted = ["10.1.4.0/24", "198.51.100.0/%[1]d", "2001:db8:1::400/120", "2001:db8:5::/%[2]d"]
}
door "prefixes" {
  ports    = [2202]
  sequence = [4413, 1843, 27914]
  to       = ["192.0.2.0/28", "203.0.113.0/%[1]d", "2001:db8::/112", "2001:db8:6::/%[2]d"]
  traps    = 0
}
door "friends" {
  ports    = [2204, "51830/udp"]
  sequence = [4513, 1845, 27916]
  trusted  = ["10.1.5.0/24", "203.0.113.0/%[1]d", "2001:db8:1::500/120", "2001:db8:6::/%[2]d"]
  traps    = 0
}
door "datagrams" {
  ports    = ["51820/udp"]
  sequence = [4613, 1847, 27918]
  to       = ["192.0.2.0/28", "203.0.113.0/%[1]d", "2001:db8::/112", "2001:db8:6::/%[2]d"]
  traps    = 0
}
`, 24+variant, 48+variant)
}

// Trusted sources: of the wall, and of the door "friends" only.
const (
	wallsFriend = 0x401
	doorsFriend = 0x501
)

// siegeOf is a kind of rule files with their guarded ports.
type siegeOf struct {
	rules    func(variant int) string
	tcp, udp []packet.Port
}

var (
	everyKind  = siegeOf{gapRules, []packet.Port{lab.TCP(22), lab.TCP(8005), lab.TCP(9003), lab.TCP(2201), lab.TCP(2202), lab.TCP(2204)}, []packet.Port{lab.UDP(51820), lab.UDP(5305), lab.UDP(51830)}}
	portsApart = siegeOf{apartRules, []packet.Port{lab.TCP(2202), lab.TCP(2204)}, []packet.Port{lab.UDP(51820), lab.UDP(51830)}}
	rollingToo = siegeOf{func(variant int) string { return gapRules(variant) + gapRolling() }, everyKind.tcp, everyKind.udp}
)

// The wall has no gap while its table is replaced: packets of strangers at full speed do
// not reach programs, and no connection of a trusted source is refused.
func TestNoReplacementOfTheTableLetsStrangersThrough(t *testing.T) {
	lab.NeedsProgram(t, "nft")
	for _, c := range []struct {
		name        string
		times, less int // with -short
		of          siegeOf
		replace     func(g *siege, times int)
	}{
		{"reloads", 12, 6, everyKind, (*siege).reloads},
		{"reloads, with ports apart", 6, 3, portsApart, (*siege).reloads},
		{"restarts", 2, 1, everyKind, (*siege).restarts},
		{"steps of rolling doors", 3, 2, rollingToo, (*siege).turns},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &siege{Lab: lab.New(t), of: c.of}
			for _, p := range g.of.tcp {
				g.ServeTCP(int(p.Number))
			}
			g.CountStrangers()
			watchFriends(g.Lab)
			g.daemon = g.Run(g.nextRules())
			times := c.times
			if testing.Short() {
				times = c.less
			}
			streams := []forge.Stream{
				{To: lab.Server4, Ports: g.of.tcp}, {To: lab.Server4, Ports: g.of.udp, Payload: 64},
				{To: lab.Server6, Ports: g.of.tcp}, {To: lab.Server6, Ports: g.of.udp, Payload: 64},
				{To: lab.Server4, From: lab.Source(wallsFriend, lab.Server4), Ports: g.of.udp, Payload: 64},
				{To: lab.Server6, From: lab.Source(doorsFriend, lab.Server6), Ports: []packet.Port{lab.UDP(51830)}, Payload: 64},
			}
			received := g.ReceivedPackets()
			var floods []*lab.Flood
			for _, s := range streams {
				floods = append(floods, g.Stream(s))
			}
			for _, f := range floods {
				eventually.True(t, "the flood is on", func() bool { return f.Sent() > 1000 })
			}
			stop := g.friendsMeanwhile()
			began := time.Now()
			c.replace(g, times)
			lasted := time.Since(began)
			connects, refused := stop()
			var sent int64
			for i, f := range floods {
				f.Stop()
				sent += f.Sent()
				s := streams[i]
				from := "strangers"
				if s.From.IsValid() {
					from = "the trusted " + s.From.String()
				}
				t.Logf("%s of %s to %s: %d packets sent, %.0f/s", s.Ports[0].Protocol, from, s.To, f.Sent(), f.Rate())
				if f.Took() < lasted {
					t.Error("a flood ended before the test did")
				}
			}
			received = g.ReceivedPackets() - received
			t.Logf("%d times in %s; %d packets sent, %d received; %d connects of trusted clients",
				times, lasted.Round(time.Millisecond), sent, received, connects)
			if received < uint64(sent)/2 {
				t.Error("most of the flood did not arrive")
			}
			if connects < times {
				t.Errorf("%d connects of trusted clients prove nothing", connects)
			}
			if refused > 0 {
				t.Errorf("%d of %d connects of trusted clients were refused", refused, connects)
			}
			for _, through := range g.StrangersThrough() {
				t.Errorf("strangers' packets have reached a program: %s", through)
			}
			came, through := g.PacketCounts("friends", "before"), g.PacketCounts("friends", "after")
			if !slices.Equal(came, through) || slices.Contains(came, 0) {
				t.Errorf("of trusted datagrams, IPv4 and IPv6, %d reached the wall, and %d passed it", came, through)
			}
		})
	}
}

// siege is a wall whose table is replaced while strangers send.
type siege struct {
	*lab.Lab
	of     siegeOf
	daemon *lab.Daemon
	files  int // rule files written so far
}

// nextRules writes another rule file than the last one.
func (g *siege) nextRules() string {
	g.files++
	return g.of.rules(g.files % 2)
}

func (g *siege) reloads(times int) {
	client := control.NewClient(g.daemon.Control)
	for range times {
		g.WriteRules(g.nextRules())
		// The daemon of a slow machine may answer too late.
		eventually.True(g.T, "the rules are reloaded", func() bool {
			_, err := client.Reload(context.Background(), "")
			return err == nil
		})
	}
}

// restarts starts daemons on a wall that is in force.
func (g *siege) restarts(times int) {
	for n := range times {
		g.daemon.Stop([]syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[n%2])
		g.daemon = g.Run(g.nextRules())
	}
}

// gapSteps are steps in seconds. Together, doors with different steps change often.
var gapSteps = []int64{5, 6, 7, 8, 9, 11, 13}

func gapRolling() (doors string) {
	for i, step := range gapSteps {
		doors += fmt.Sprintf(`door "rolling%d" {
  ports = [%d]
  rolling {
    secret = %q
    length = 4
    ports  = "20000-29999"
    step   = "%ds"
  }
}
`, i, 6000+i, "hipjazz", step)
	}
	return doors
}

// turns waits until rolling doors have changed to their next step that many times.
func (g *siege) turns(times int) {
	before := g.Listing()
	turned := 0
	for second := time.Now().Unix() + 1; turned < times; second++ {
		if !slices.ContainsFunc(gapSteps, func(step int64) bool { return second%step == 0 }) {
			continue
		}
		time.Sleep(time.Until(time.Unix(second, 0))) // steps begin with the clock
		turned++
	}
	eventually.True(g.T, "the table has changed", func() bool { return g.Listing() != before })
}

// friendsMeanwhile lets trusted clients connect until stop is called. stop returns how
// often they connected, and how often that took more than one SYN.
func (g *siege) friendsMeanwhile() (stop func() (connects, refused int)) {
	var all sync.WaitGroup
	var stopped atomic.Bool
	var tries, failures atomic.Int64
	for friend, ports := range map[int][]packet.Port{wallsFriend: g.of.tcp, doorsFriend: {lab.TCP(2204)}} {
		for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
			all.Go(func() {
				for n := 0; !stopped.Load(); n++ {
					err := g.OnFirstSYNAfter(lab.Source(friend, to), to, ports[n%len(ports)].Number, func() error { return nil })
					tries.Add(1)
					if err != nil {
						failures.Add(1)
					}
					time.Sleep(2 * time.Millisecond) // otherwise sockets pile up on the server
				}
			})
		}
	}
	finish := sync.OnceFunc(func() {
		stopped.Store(true)
		all.Wait()
	})
	g.T.Cleanup(finish)
	return func() (int, int) {
		finish()
		return int(tries.Load()), int(failures.Load())
	}
}

// watchFriends counts datagrams of trusted sources just before the wall, after connection
// tracking, and again after all other tables.
func watchFriends(l *lab.Lab) {
	l.T.Helper()
	const rules = "\t\tip saddr 10.1.4.0/23 meta l4proto udp counter\n\t\tip6 saddr 2001:db8:1::400/119 meta l4proto udp counter\n"
	l.LoadNft("table inet friends {\n\tchain before {\n\t\ttype filter hook prerouting priority -160;\n" + rules +
		"\t}\n\tchain after {\n\t\ttype filter hook input priority 300;\n" + rules + "\t}\n}\n")
}
