package traps

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// Guessing from any number of addresses opens a door no sooner than [sequence.Guesses]
// says. Here there are so few ports that it does open.
func TestGuessingTakesAsLongAsDocumented(t *testing.T) {
	const (
		first  = 40001 // first port
		ports  = 20    // number of ports
		knocks = 3
		each   = 8 // ports that a source tries: as many as it may in a second
	)
	sources := 6000
	if testing.Short() {
		sources = 2000
	}
	for _, c := range []struct {
		name, penalty string
		to            netip.Addr
	}{
		{"IPv4", "", lab.Server4},
		{"IPv6, each address by itself", "penalty_prefix = { ipv6 = 128 }", lab.Server6},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			to := c.to
			l := lab.New(t)
			all := rand.Perm(ports)
			d := l.Run(fmt.Sprintf(`door "ssh" {
  ports          = [22]
  sequence       = [%d, %d, %d]
  traps          = 0
  %s
}`, first+all[0], first+all[1], first+all[2], c.penalty))
			lab.Must(t, l.Client.Do(func() error {
				socket, err := forge.RawSocket(to)
				if err != nil {
					return err
				}
				for n := range sources {
					for i, port := range rand.Perm(ports)[:each] {
						s := forge.Segment{From: lab.Source(n, to), To: to, SourcePort: uint16(1024 + i), Sequence: rand.Uint32(),
							Port: lab.TCP(uint16(first + port)), Flags: packet.SYN}
						if err := s.Send(socket); err != nil {
							return err
						}
					}
				}
				return nil
			}))
			honest := lab.Source(sources+1, to)
			l.Knock(honest, to, lab.TCP(uint16(first+all[0])), lab.TCP(uint16(first+all[1])), lab.TCP(uint16(first+all[2])))
			d.WaitFor("opened", honest.String())
			// A source tries no port twice, and its last attempt begins with its third
			// port from the end. The formula assumes nearly that.
			space := float64(ports*(ports-1)*(ports-2)) / float64(sequence.Orders(knocks))
			want := float64(sources*(each-knocks+1)) / space
			opened := d.Status().Doors[0].Counters.Opened - 1
			t.Logf("%d packets of %d sources have opened the door %d times; %.1f are expected", sources*each, sources, opened, want)
			if float64(opened) > 2*want {
				t.Errorf("the door was opened %d times, want about %.1f", opened, want)
			}
			if opened == 0 {
				t.Error("the door was never opened, so this shows nothing")
			}
		})
	}
}

// A source that tries many unserved ports cannot knock during the penalty, whether it has
// knocked before or not. A source that repeats one port can.
func TestASourceThatSpraysCannotKnockForAWhile(t *testing.T) {
	lab.NeedsProgram(t, "nft")
	for name, to := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			d := l.Run(`door "ssh" {
  ports          = [22]
  sequence       = [4113, 27911, 1840]
  seq_timeout    = "1s"
  traps          = 0
  penalty        = "3s"
  penalty_prefix = { ipv6 = 128 }
}`)
			knocks := []packet.Port{lab.TCP(4113), lab.TCP(27911), lab.TCP(1840)}
			var spray []packet.Port
			for n := range 20 {
				spray = append(spray, lab.TCP(uint16(40001+n)))
			}
			for n, before := range [][]packet.Port{nil, {lab.TCP(4113)}} {
				source := lab.Source(n+1, to)
				l.Knock(source, to, append(before, spray...)...)
				if !sprays(l, source) {
					t.Errorf("%s has sprayed after %d knocks, but is not trapped", source, len(before))
				}
				l.Knock(source, to, knocks...)
				if l.AdmitsAtOnce(source, to, 22) {
					t.Errorf("%s can knock after a spray", source)
				}
				eventually.True(t, "the penalty has ended", func() bool { return !sprays(l, source) })
				l.Knock(source, to, knocks...)
				if !l.Admits(source, to, 22) {
					t.Errorf("%s cannot knock after the penalty", source)
				}
			}
			d.WaitFor("trapped", "nothing serves")

			poller := lab.Source(3, to)
			for range 20 {
				l.Knock(poller, to, lab.TCP(40001))
			}
			l.Knock(poller, to, knocks[0], lab.TCP(40001), knocks[1], lab.TCP(40001), knocks[2])
			if !l.Admits(poller, to, 22) {
				t.Error("a source that tries a port whose service is down cannot knock")
			}
		})
	}
}

// sprays reports whether the kernel blocks a source's knocks because of a spray.
func sprays(l *lab.Lab, source netip.Addr) bool {
	l.T.Helper()
	set := "spraying4"
	if source.Is6() {
		set = "spraying6"
	}
	return strings.Contains(l.Nft("list", "set", "inet", "knockwall", set), " "+source.String()+" ")
}
