package methods

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
)

// The secrets of the doors that one-time passwords open.
const (
	otpOpens = "hipjazz"
	otpShuts = "superawesome"
)

// otpDoor is a door that one-time passwords open, and close.
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

// patient is for a door whose passwords are still good when the minute turns in the
// midst of a test.
const patient = `skew = "1m"`

// awayFromTurns waits until the minute is not about to turn.
func awayFromTurns() {
	const enough = 3 * time.Second
	now := time.Now()
	if left := now.Truncate(time.Minute).Add(time.Minute).Sub(now); left < enough {
		time.Sleep(left)
	}
}

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
