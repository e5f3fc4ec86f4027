package flood

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// With on_failure = "open" a dead daemon keeps nobody out, even during a flood: the rate
// limits, which protect the daemon, do not apply then. While the daemon lives, the sources
// of the flood are strangers.
func TestADeadDaemonKeepsNobodyOutOfAnOpenDoorInAFlood(t *testing.T) {
	lab.NeedsProgram(t, "nft")
	for _, c := range []struct {
		name   string
		server netip.Addr
		flood  packet.Port
		port   packet.Port // another port of the same door, because a flooded program loses datagrams by itself
	}{
		{"IPv4", lab.Server4, lab.TCP(22), lab.TCP(22)},
		{"IPv6", lab.Server6, lab.TCP(22), lab.TCP(22)},
		{"IPv4, datagrams", lab.Server4, lab.UDP(5305), lab.UDP(5306)},
		{"IPv6, datagrams", lab.Server6, lab.UDP(5305), lab.UDP(5306)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			l.ServeTCP(22)
			l.ServeUDP(5305, netip.IPv6Unspecified())
			l.ServeUDP(5306, netip.IPv6Unspecified())
			l.CountStrangers()
			d := l.Run(`door "ssh" {
  ports      = [22, "5305-5306/udp"]
  sequence   = [4113, "27911/udp", 1840]
  on_failure = "open"
}`)
			enters := func(from netip.Addr) error {
				if c.port.Protocol == packet.UDP {
					return l.EchoesUDP(from, c.server, c.port.Number, time.Second)
				}
				return l.OnFirstSYN(from, c.server)
			}
			f := l.Stream(forge.Stream{To: c.server, Ports: []packet.Port{c.flood}, Payload: 16, Rate: 20_000})
			eventually.True(t, "the flood is on", func() bool { return f.Sent() > 20_000 })
			if l.AdmitsAtOnce(lab.Source(1000, c.server), c.server, 22) {
				t.Error("while the daemon runs, a stranger gets in")
			}
			for _, through := range l.StrangersThrough() {
				t.Errorf("while the daemon runs, the flood's packets have reached the program: %s", through)
			}

			d.Stop(syscall.SIGKILL)
			sent := f.Sent()
			eventually.True(t, "the bursts of the rate limits are used up", func() bool { return f.Sent() > sent+20_000 })
			honest, in := 50, 0
			var first error
			began := time.Now()
			for n := range honest {
				if err := enters(lab.Source(n+1, c.server)); err == nil {
					in++
				} else if first == nil {
					first = err
				}
				time.Sleep(20 * time.Millisecond) // so that the flood lasts
			}
			took := time.Since(began)
			f.Stop()
			t.Logf("%.0f packets a second; %d of %d honest strangers got in by their first packet, in %s; %s", f.Rate(), in, honest, took, l.DescribeConntrack())
			if in != honest {
				t.Errorf("with the daemon dead, %d of %d got in by their first packet; the first error: %v", in, honest, first)
			}
		})
	}
}
