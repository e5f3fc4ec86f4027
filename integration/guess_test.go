package integration

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// Whoever sprays ports from as many addresses as he likes opens a door no sooner than
// [sequence.Guesses] says. The ports are few here, so that he does open it.
func TestGuessingTakesAsLongAsIsSaid(t *testing.T) {
	const (
		first  = 40001 // port,
		ports  = 20    // of so many
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
			// No port is tried twice by a source, and its last try begins with the third from
			// last: nearly what the sum takes for granted.
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
