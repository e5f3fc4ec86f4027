package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/otp"
)

// Each command sends the password for the wanted source: from that address if this machine
// has it, and over the protocol that fits.
func TestPasswordsThatCommandsSend(t *testing.T) {
	const key = "hipjazz"
	file := filepath.Join(t.TempDir(), "otp.key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		host         string
		flags        []string
		source, from string
	}{
		{"127.0.0.1", nil, "127.0.0.1", "127.0.0.1"},
		{"127.0.0.1", []string{"--otp-source=127.0.0.5"}, "127.0.0.5", "127.0.0.5"},
		{"127.0.0.1", []string{"--otp-source=192.0.2.7", "-u"}, "192.0.2.7", "127.0.0.1"},
		{"::1", nil, "::1", "::1"},
		{"::1", []string{"--otp-source=2001:db8::7"}, "2001:db8::7", "::1"},
		{"::1", []string{"--otp-source=192.0.2.7", "-6"}, "192.0.2.7", "::1"}, // NAT64
	} {
		host := netip.MustParseAddr(test.host)
		service, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, 0)))
		if err != nil {
			t.Logf("skipped: %v", err)
			continue
		}
		defer service.Close()
		go func() {
			for {
				conn, err := service.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		listener, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, 0)))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		portOf := func(a net.Addr) string { return strconv.Itoa(int(netip.MustParseAddrPort(a.String()).Port())) }
		port := portOf(listener.LocalAddr())

		for _, arguments := range [][]string{
			{"knock", "-v", test.host, port},
			{"connect", test.host, portOf(service.Addr()), port + "/udp"},
		} {
			arguments = append(append(arguments, "--otp-file", file), test.flags...)
			t.Run(strings.Join(append(arguments[:1:1], test.flags...), " ")+" "+test.host, func(t *testing.T) {
				var out, errs strings.Builder
				if code := run(t.Context(), arguments, strings.NewReader(""), &out, &errs); code != exitDone {
					t.Fatalf("exit code %d: %s", code, errs.String())
				}
				want := ""
				if arguments[0] == "knock" {
					want = fmt.Sprintf("sending a one-time password to %s/udp of %s, for source %s\n", port, test.host, test.source)
				}
				if out.String() != want {
					t.Errorf("it says %q, want %q", out.String(), want)
				}
				if err := listener.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 2*otp.Size)
				n, from, err := listener.ReadFromUDPAddrPort(b)
				if err != nil {
					t.Fatal(err)
				}
				source := netip.MustParseAddr(test.source)
				if _, _, ok := otp.NewVerifier([]byte(key), time.Minute).Verify(b[:n], source, time.Now()); !ok {
					t.Errorf("%q is not the password for %s", b[:n], source)
				}
				if got := from.Addr().Unmap().String(); got != test.from {
					t.Errorf("it came from %s, want %s", got, test.from)
				}
			})
		}
	}
}
