package knocks

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
)

const firstRules = `
door "ssh" {
  ports    = [22, "53/udp"]
  sequence = [4113, "27911/udp", 1840]
}
`

// The last knock and the first packet are sent back to back, and the first packet must be
// admitted. NFLOG and NFQUEUE are two sockets, and the packet mostly arrives before the
// knock. Each try uses another source, because an open window would hide a failure.
func TestLetInOnTheFirstPacket(t *testing.T) {
	for _, c := range []struct {
		name    string
		server  netip.Addr
		connect func(l *lab.Lab, from, to netip.Addr) error
		tries   int
		spread  bool
		hogs    int
	}{
		{name: "IPv4 TCP", server: lab.Server4, connect: firstSYN, tries: 1000},
		{name: "IPv6 TCP", server: lab.Server6, connect: firstSYN, tries: 1000},
		{name: "IPv4 UDP", server: lab.Server4, connect: firstDatagram, tries: 1000},
		{name: "IPv6 UDP", server: lab.Server6, connect: firstDatagram, tries: 1000},
		{name: "received on several CPUs", server: lab.Server4, connect: firstSYN, tries: 1000, spread: true},
		{name: "IPv6 received on several CPUs", server: lab.Server6, connect: firstSYN, tries: 1000, spread: true},
		{name: "among CPU hogs", server: lab.Server4, connect: firstSYN, tries: 200, hogs: 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			if c.spread {
				lab.NeedsRoot(t, "rps_cpus belongs to the initial user namespace")
				if runtime.NumCPU() < 2 {
					t.Skip("this machine has one CPU, so nothing overtakes")
				}
				l.SpreadOverCPUs()
			}
			l.ServeTCP(22)
			l.ServeUDP(53, c.server)
			d := l.Run(firstRules)
			for range c.hogs {
				hog := exec.Command("sh", "-c", "while :; do :; done")
				lab.Must(t, hog.Start())
				t.Cleanup(func() { hog.Process.Kill(); hog.Wait() })
			}
			tries := c.tries
			if testing.Short() {
				tries /= 4
			}
			for n := range tries {
				if err := c.connect(l, lab.Source(n+1, c.server), c.server); err != nil {
					t.Fatalf("try %d of %d: %v", n+1, tries, err)
				}
			}
			if got := d.Status().Doors[0].Counters.Opened; got != uint64(tries) {
				t.Errorf("%d windows were opened, want %d", got, tries)
			}
		})
	}
}

// firstSYN knocks and connects without a pause. It fails if the SYN was retransmitted.
func firstSYN(l *lab.Lab, from, to netip.Addr) error { return l.OnFirstSYN(from, to, lab.Knocks...) }

// firstDatagram knocks and sends one datagram, which must be answered.
func firstDatagram(l *lab.Lab, from, to netip.Addr) error {
	return l.Client.Do(func() error {
		fd, err := lab.BoundSocket(from, to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range lab.Knocks {
			if err := lab.SendKnock(from, to, p); err != nil {
				return err
			}
		}
		if err := unix.Sendto(fd, []byte("ping"), 0, lab.Sockaddr(to, 53)); err != nil {
			return err
		}
		b := make([]byte, 4)
		if n, err := lab.Receive(fd, b); err != nil || string(b[:n]) != "ping" {
			return fmt.Errorf("no answer to the datagram: %w", err)
		}
		return nil
	})
}
