package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

const firstRules = `
door "ssh" {
  ports    = [22, "53/udp"]
  sequence = [4113, "27911/udp", 1840]
}
`

var firstKnocks = []packet.Port{tcp(4113), udp(27911), tcp(1840)}

// The last knock and the first packet are sent back to back, and the first packet must be
// admitted. NFLOG and NFQUEUE are two sockets, and the packet mostly arrives before the
// knock. Each try uses another source, because an open window would hide a failure.
func TestLetInOnTheFirstPacket(t *testing.T) {
	for _, c := range []struct {
		name    string
		server  netip.Addr
		connect func(l *lab, from, to netip.Addr) error
		tries   int
		spread  bool
		hogs    int
	}{
		{name: "IPv4 TCP", server: server4, connect: firstSYN, tries: 1000},
		{name: "IPv6 TCP", server: server6, connect: firstSYN, tries: 1000},
		{name: "IPv4 UDP", server: server4, connect: firstDatagram, tries: 1000},
		{name: "IPv6 UDP", server: server6, connect: firstDatagram, tries: 1000},
		{name: "received on several CPUs", server: server4, connect: firstSYN, tries: 1000, spread: true},
		{name: "IPv6 received on several CPUs", server: server6, connect: firstSYN, tries: 1000, spread: true},
		{name: "among CPU hogs", server: server4, connect: firstSYN, tries: 200, hogs: 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			if c.spread {
				needsRoot(t, "rps_cpus belongs to the initial user namespace")
				if runtime.NumCPU() < 2 {
					t.Skip("this machine has one CPU, so nothing overtakes")
				}
				l.spread()
			}
			l.serve(22)
			l.serveUDP(53, c.server)
			d := l.run(firstRules)
			for range c.hogs {
				hog := exec.Command("sh", "-c", "while :; do :; done")
				must(t, hog.Start())
				t.Cleanup(func() { hog.Process.Kill(); hog.Wait() })
			}
			tries := c.tries
			if testing.Short() {
				tries /= 4
			}
			for n := range tries {
				if err := c.connect(l, nth(n+1, c.server), c.server); err != nil {
					t.Fatalf("try %d of %d: %v", n+1, tries, err)
				}
			}
			if got := d.status().Doors[0].Counters.Opened; got != uint64(tries) {
				t.Errorf("%d windows were opened, want %d", got, tries)
			}
		})
	}
}

// firstSYN knocks and connects without a pause. It fails if the SYN was retransmitted.
func firstSYN(l *lab, from, to netip.Addr) error { return l.onFirstSYN(from, to, firstKnocks...) }

// onFirstSYN knocks, if there are knocks, and connects to port 22 without a pause. It
// fails if the SYN was retransmitted.
func (l *lab) onFirstSYN(from, to netip.Addr, knocks ...packet.Port) error {
	return l.onFirstSYNAfter(from, to, 22, func() error {
		for _, p := range knocks {
			if err := knockFrom(from, to, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// onFirstSYNAfter connects to a port right after calling first. It fails if the SYN was
// retransmitted.
func (l *lab) onFirstSYNAfter(from, to netip.Addr, port uint16, first func() error) error {
	return l.client.Do(func() error {
		fd, err := boundSocket(from, to, unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// The end of the connection is not tested.
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err := first(); err != nil {
			return err
		}
		if err := connect(fd, sockaddr(to, port)); err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		if info.Total_retrans != 0 {
			return fmt.Errorf("let in only after %d retransmissions", info.Total_retrans)
		}
		return nil
	})
}

// firstDatagram knocks and sends one datagram, which must be answered.
func firstDatagram(l *lab, from, to netip.Addr) error {
	return l.client.Do(func() error {
		fd, err := boundSocket(from, to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range firstKnocks {
			if err := knockFrom(from, to, p); err != nil {
				return err
			}
		}
		if err := unix.Sendto(fd, []byte("ping"), 0, sockaddr(to, 53)); err != nil {
			return err
		}
		b := make([]byte, 4)
		if n, err := receive(fd, b); err != nil || string(b[:n]) != "ping" {
			return fmt.Errorf("no answer to the datagram: %w", err)
		}
		return nil
	})
}

// connect and receive continue after a signal: Go's scheduler sends signals, and a socket
// with a time limit returns EINTR.
func connect(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	for errors.Is(err, unix.EINTR) {
		err = unix.Connect(fd, to) // waits for the same connection
	}
	if errors.Is(err, unix.EISCONN) {
		return nil
	}
	return err
}

func receive(fd int, b []byte) (n int, err error) {
	for {
		n, _, err = unix.Recvfrom(fd, b, 0)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// boundSocket makes a blocking socket with deadline as its time limit.
func boundSocket(from, to netip.Addr, kind int) (int, error) {
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	timeout := unix.NsecToTimeval(int64(deadline))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &timeout); err != nil {
			return fd, err
		}
	}
	return fd, bindAny(fd, from)
}
