package integration

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// Guessing from any number of addresses opens a door no sooner than [sequence.Guesses]
// says. The ports are few here, so that it does open.
func TestGuessingTakesAsLongAsIsSaid(t *testing.T) {
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
		{"IPv4", "", server4},
		{"IPv6, each address by itself", "penalty_prefix = { ipv6 = 128 }", server6},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			to := c.to
			l := newLab(t)
			all := rand.Perm(ports)
			d := l.run(fmt.Sprintf(`door "ssh" {
  ports          = [22]
  sequence       = [%d, %d, %d]
  traps          = 0
  %s
}`, first+all[0], first+all[1], first+all[2], c.penalty))
			must(t, l.client.Do(func() error {
				socket, err := forge.RawSocket(to)
				if err != nil {
					return err
				}
				for n := range sources {
					for i, port := range rand.Perm(ports)[:each] {
						s := forge.Segment{From: nth(n, to), To: to, SourcePort: uint16(1024 + i), Sequence: rand.Uint32(),
							Port: tcp(uint16(first + port)), Flags: packet.SYN}
						if err := s.Send(socket); err != nil {
							return err
						}
					}
				}
				return nil
			}))
			honest := nth(sources+1, to)
			l.knock(honest, to, tcp(uint16(first+all[0])), tcp(uint16(first+all[1])), tcp(uint16(first+all[2])))
			d.waitFor("opened", honest.String())
			// A source tries no port twice, and its last attempt begins with its third
			// port from the end. The formula assumes nearly that.
			space := float64(ports*(ports-1)*(ports-2)) / float64(sequence.Orders(knocks))
			want := float64(sources*(each-knocks+1)) / space
			opened := d.status().Doors[0].Counters.Opened - 1
			t.Logf("%d packets of %d sources have opened the door %d times; %.1f are expected", sources*each, sources, opened, want)
			if float64(opened) > 2*want {
				t.Errorf("the door was opened %d times, want about %.1f", opened, want)
			}
			if opened == 0 {
				t.Error("the door was never opened, so that this shows nothing")
			}
		})
	}
}

// A source that tries many unserved ports cannot knock during the penalty, whether it has
// knocked before or not. A source that repeats one port can.
func TestWhoSpraysCannotKnockForAWhile(t *testing.T) {
	needs(t, "nft")
	for name, to := range map[string]netip.Addr{"IPv4": server4, "IPv6": server6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.serve(22)
			d := l.run(`door "ssh" {
  ports          = [22]
  sequence       = [4113, 27911, 1840]
  seq_timeout    = "1s"
  traps          = 0
  penalty        = "3s"
  penalty_prefix = { ipv6 = 128 }
}`)
			knocks := []packet.Port{tcp(4113), tcp(27911), tcp(1840)}
			var spray []packet.Port
			for n := range 20 {
				spray = append(spray, tcp(uint16(40001+n)))
			}
			for n, before := range [][]packet.Port{nil, {tcp(4113)}} {
				source := nth(n+1, to)
				l.knock(source, to, append(before, spray...)...)
				if !l.sprays(source) {
					t.Errorf("%s has sprayed after %d knocks, and is not trapped", source, len(before))
				}
				l.knock(source, to, knocks...)
				if l.admits(source, to, 22) {
					t.Errorf("%s is heard after a spray", source)
				}
				eventually(t, "the penalty is over", func() bool { return !l.sprays(source) })
				l.knock(source, to, knocks...)
				if !l.letsIn(source, to, 22) {
					t.Errorf("%s cannot knock after the penalty", source)
				}
			}
			d.waitFor("trapped", "nothing serves")

			poller := nth(3, to)
			for range 20 {
				l.knock(poller, to, tcp(40001))
			}
			l.knock(poller, to, knocks[0], tcp(40001), knocks[1], tcp(40001), knocks[2])
			if !l.letsIn(poller, to, 22) {
				t.Error("whoever tries a port whose service is down cannot knock beside it")
			}
		})
	}
}

// sprays reports whether the kernel blocks a source's knocks because of a spray.
func (l *lab) sprays(source netip.Addr) bool {
	l.t.Helper()
	set := "spraying4"
	if source.Is6() {
		set = "spraying6"
	}
	return strings.Contains(l.nft("list", "set", "inet", "knockwall", set), " "+source.String()+" ")
}
