package sessions

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// hearUDP starts a program on a UDP port of the server that answers only pings.
func hearUDP(l *lab.Lab, port int) (heard func() int) {
	l.T.Helper()
	heardNow := make(chan int, 1)
	heardNow <- 0
	lab.Must(l.T, l.Server.Do(func() error {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		l.T.Cleanup(func() { conn.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				if string(b[:n]) == "ping" {
					conn.WriteToUDPAddrPort(b[:n], from)
				}
				heardNow <- <-heardNow + 1
			}
		}()
		return nil
	}))
	return func() int {
		n := <-heardNow
		heardNow <- n
		return n
	}
}

// A UDP session lasts through silence for as long as its door says, answered or not, also
// after its window has expired.
func TestDatagramSessionsLastThroughSilence(t *testing.T) {
	for _, tt := range []struct {
		attribute string
		want      time.Duration
	}{
		{"", 5 * time.Minute},
		{`udp_timeout = "2m"`, 2 * time.Minute},
	} {
		for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
			t.Run(fmt.Sprintf("%s %s", server, tt.want), func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				heard := hearUDP(l, 51820)
				d := l.Run(fmt.Sprintf(`door "vpn" {
  ports    = ["51820/udp"]
  sequence = [4113, "27911/udp", 1840]
  window   = "8s"
  %s
}`, tt.attribute))
				guest := lab.Source(1, server)
				l.Knock(guest, server, lab.Knocks...)
				flow := dialUDP(l, guest, server, 51820)
				lasts := func(when string) {
					t.Helper()
					for _, f := range flows(l, guest) {
						if f.TupleOrig.Proto.DestinationPort != 51820 {
							continue
						}
						left := time.Duration(f.Timeout) * time.Second
						if left > tt.want || left < tt.want-lab.Deadline {
							t.Errorf("%s, conntrack remembers it for %s, want %s", when, left, tt.want)
						}
						return
					}
					t.Errorf("%s, conntrack does not know it", when)
				}
				_, err := io.WriteString(flow, "quiet")
				lab.Must(t, err)
				eventually.True(t, "the first datagram is heard", func() bool { return heard() == 1 })
				lasts("unanswered")
				lab.Must(t, lab.Exchange(flow))
				lasts("answered")
				d.WaitForExpiry()
				lab.Must(t, lab.Exchange(flow)) // after two seconds conntrack takes it for a stream
				lasts("as a stream, when its window is over,")
				if !isDead(dialUDP(l, guest, server, 51820)) {
					t.Error("another session gets in after the window has expired")
				}
			})
		}
	}
}
