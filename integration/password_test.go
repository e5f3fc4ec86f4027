package integration

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// thisMinute is the minute of Unix time that it is.
func thisMinute() int64 { return time.Now().Unix() / 60 }

// password has openssl make the digits of a one-time password, as nothing of
// knockwall is to vouch for itself.
func (l *lab) password(key string, source netip.Addr, minute int64) string {
	l.t.Helper()
	openssl := exec.Command(needs(l.t, "openssl"), "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString([]byte(key)))
	openssl.Stdin = bytes.NewReader(binary.LittleEndian.AppendUint32(source.AsSlice(), uint32(minute)))
	out, err := openssl.Output()
	must(l.t, err)
	_, digits, _ := strings.Cut(strings.TrimSpace(string(out)), "= ")
	return digits
}

// sendData sends a datagram from one of the client's addresses.
func (l *lab) sendData(from, to netip.Addr, port uint16, data string) {
	l.t.Helper()
	must(l.t, l.client.Do(func() error { return dataFrom(from, to, port, data) }))
}

func dataFrom(from, to netip.Addr, port uint16, data string) error {
	fd, err := boundSocket(from, to, unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte(data), 0, sockaddr(to, port))
}

// awayFromTurns waits until the minute is not about to turn.
func awayFromTurns() {
	const enough = 3 * time.Second
	now := time.Now()
	if left := now.Truncate(time.Minute).Add(time.Minute).Sub(now); left < enough {
		time.Sleep(left)
	}
}

// sending returns what sends the password of an address, made beforehand.
func (l *lab) sending(from, to netip.Addr, port uint16) func() error {
	l.t.Helper()
	password := l.password(otpOpens, from, thisMinute()) + "\n"
	return func() error { return dataFrom(from, to, port, password) }
}

func garbageFrom(from, to netip.Addr, port uint16, n int) error {
	fd, err := boundSocket(from, to, unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i := range n {
		if err := unix.Sendto(fd, fmt.Appendf(nil, "%064x\n", i), 0, sockaddr(to, port)); err != nil {
			return err
		}
	}
	return nil
}
