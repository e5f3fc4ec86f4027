package client

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/otp"
)

var (
	otpKey  = []byte("hipjazz")
	otpTime = time.Unix(1740000000, 0)
)

// wantOTP receives a datagram and checks that it is the password for source.
func wantOTP(t *testing.T, l *net.UDPConn, source netip.Addr) (from netip.Addr) {
	t.Helper()
	b := make([]byte, 2*otp.Size)
	n, sender, err := l.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := otp.NewVerifier(otpKey, 0).Verify(b[:n], source, otpTime); !ok {
		t.Errorf("%q is not the password for %s", b[:n], source)
	}
	return sender.Addr().Unmap()
}

// wantNoMore checks that nothing else was sent: the next datagram that arrives is its
// own.
func wantNoMore(t *testing.T, l *net.UDPConn) {
	t.Helper()
	conn, err := net.Dial("udp", l.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const last = "last"
	if _, err := conn.Write([]byte(last)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2*otp.Size)
	n, err := l.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:n]) != last {
		t.Errorf("%q was sent, too", b[:n])
	}
}

func TestAnOTPIsForTheAddressThatItComesFrom(t *testing.T) {
	for _, addr := range loopbacks(t) {
		t.Run(addr.String(), func(t *testing.T) {
			l, port := listenUDP(t, addr)
			if err := SendOTP(t.Context(), addr, port.Number, otpKey, netip.Addr{}, otpTime); err != nil {
				t.Fatal(err)
			}
			if from := wantOTP(t, l, addr); from != addr {
				t.Errorf("it came from %s", from)
			}
			wantNoMore(t, l)
		})
	}
}

func TestAnOTPIsSentFromTheSourceThatIsNamed(t *testing.T) {
	server := netip.MustParseAddr("127.0.0.1")
	client := netip.MustParseAddr("127.0.0.5")
	l, port := listenUDP(t, server)
	for _, source := range []netip.Addr{client, netip.AddrFrom16(client.As16())} { // IPv4 within IPv6
		if err := SendOTP(t.Context(), server, port.Number, otpKey, source, otpTime); err != nil {
			t.Fatal(err)
		}
		if from := wantOTP(t, l, client); from != client {
			t.Errorf("it came from %s", from)
		}
	}
	wantNoMore(t, l)
}

// Behind NAT, the source is no address of this machine. Behind NAT64, it is not even of
// the host's address family.
func TestAnOTPForAnAddressElsewhereIsSentFromHere(t *testing.T) {
	for _, addr := range loopbacks(t) {
		for _, public := range []string{"192.0.2.7", "2001:db8::7"} {
			l, port := listenUDP(t, addr)
			source := netip.MustParseAddr(public)
			if err := SendOTP(t.Context(), addr, port.Number, otpKey, source, otpTime); err != nil {
				t.Fatal(err)
			}
			if from := wantOTP(t, l, source); from != addr {
				t.Errorf("it came from %s", from)
			}
			wantNoMore(t, l)
		}
	}
}

// linkLocal returns a link-local address of this machine, with its zone.
func linkLocal(t *testing.T) netip.Addr {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is6() && prefix.Addr().IsLinkLocalUnicast() {
				return prefix.Addr().WithZone(link.Name)
			}
		}
	}
	t.Skip("no link has an IPv6 link-local address")
	return netip.Addr{}
}

func TestAnOTPCanBeForALinkLocalAddress(t *testing.T) {
	addr := linkLocal(t)
	l, port := listenUDP(t, addr)
	for _, source := range []netip.Addr{{}, addr, addr.WithZone("")} {
		if err := SendOTP(t.Context(), addr, port.Number, otpKey, source, otpTime); err != nil {
			t.Fatal(err)
		}
		if from := wantOTP(t, l, addr); from != addr {
			t.Errorf("for %v it came from %s", source, from)
		}
	}
}

func TestAnOTPToAClosedPortIsSent(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	l, port := listenUDP(t, addr)
	l.Close()
	if err := SendOTP(t.Context(), addr, port.Number, otpKey, netip.Addr{}, otpTime); err != nil {
		t.Error(err)
	}
}

func TestAnOTPThatCannotBeSentIsAnErrorWithItsPort(t *testing.T) {
	// Loopback cannot send to other hosts.
	host, source := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")
	err := SendOTP(t.Context(), host, 2000, otpKey, source, otpTime)
	if err == nil || !strings.Contains(err.Error(), "sending a one-time password to 2000/udp of 192.0.2.1: ") {
		t.Errorf("the error is %v", err)
	}
}

func TestNoSourceTowardsNowhere(t *testing.T) {
	host := netip.MustParseAddr("fe80::1%no-such-link")
	const want = "finding this machine's address towards fe80::1%no-such-link: "
	if _, err := SourceTowards(t.Context(), host); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error is %v", err)
	}
	if err := SendOTP(t.Context(), host, 2000, otpKey, netip.Addr{}, otpTime); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error is %v", err)
	}
}

func TestACancelledContextSendsNoOTP(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	l, port := listenUDP(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, source := range []netip.Addr{{}, addr} {
		if err := SendOTP(ctx, addr, port.Number, otpKey, source, otpTime); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
	}
	wantNoMore(t, l)
}
