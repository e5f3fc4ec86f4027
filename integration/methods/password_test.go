package methods

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
)

// The secrets that open and close the doors of these tests.
const (
	otpOpens = "hipjazz"
	otpShuts = "superawesome"
)

// otpDoor returns a door that one-time passwords open and close.
func otpDoor(name string, guards, port int, more string) string {
	return fmt.Sprintf(`door %q {
  ports  = [%d]
  window = "10m"
  otp {
    port         = "%d/udp"
    open_secret  = %q
    close_secret = %q
    %s
  }
}
`, name, guards, port, otpOpens, otpShuts, more)
}

// patient is an attribute for doors whose passwords stay good if a minute ends during a
// test.
const patient = `skew = "1m"`

// awayFromTurns waits for the next minute if this one is about to end.
func awayFromTurns() {
	const enough = 3 * time.Second
	now := time.Now()
	if left := now.Truncate(time.Minute).Add(time.Minute).Sub(now); left < enough {
		time.Sleep(left)
	}
}

// garbageFrom sends n datagrams with garbage of a password's length from the caller's host.
func garbageFrom(from, to netip.Addr, port uint16, n int) error {
	fd, err := lab.BoundSocket(from, to, unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i := range n {
		if err := unix.Sendto(fd, fmt.Appendf(nil, "%064x\n", i), 0, lab.Sockaddr(to, port)); err != nil {
			return err
		}
	}
	return nil
}
