package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
)

// patience is how long a test waits for what it expects.
const patience = 10 * time.Second

// loopbacks are the addresses on which the tests listen. Hosts without IPv6 have only the
// first.
func loopbacks(t *testing.T) []netip.Addr {
	t.Helper()
	all := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		all = append(all, netip.IPv6Loopback())
	} else {
		t.Logf("IPv4 only: %v", err)
	}
	return all
}

func listenTCP(t *testing.T, addr netip.Addr) (*net.TCPListener, packet.Port) {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return l, packet.Port{Number: uint16(l.Addr().(*net.TCPAddr).Port), Protocol: packet.TCP}
}

func listenUDP(t *testing.T, addr netip.Addr) (*net.UDPConn, packet.Port) {
	t.Helper()
	l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return l, packet.Port{Number: uint16(l.LocalAddr().(*net.UDPAddr).Port), Protocol: packet.UDP}
}

// closedPort returns a TCP port on which nothing listens.
func closedPort(t *testing.T, addr netip.Addr) packet.Port {
	t.Helper()
	l, port := listenTCP(t, addr)
	l.Close()
	return port
}

func silent(packet.Port) {}

func TestAUDPKnockIsOneDatagramOfOneNUL(t *testing.T) {
	for _, addr := range loopbacks(t) {
		t.Run(addr.String(), func(t *testing.T) {
			l, port := listenUDP(t, addr)
			if err := Knock(t.Context(), addr, []packet.Port{port, port}, Pace{}, silent); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				b := make([]byte, 100)
				n, from, err := l.ReadFromUDPAddrPort(b)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b[:n], []byte{0}) {
					t.Errorf("the datagram is %x", b[:n])
				}
				if from.Addr().Unmap() != addr {
					t.Errorf("it came from %s", from)
				}
			}
		})
	}
}

func TestATCPKnockIsAConnectionWithoutData(t *testing.T) {
	for _, addr := range loopbacks(t) {
		t.Run(addr.String(), func(t *testing.T) {
			l, port := listenTCP(t, addr)
			if err := Knock(t.Context(), addr, []packet.Port{port}, Pace{}, silent); err != nil {
				t.Fatal(err)
			}
			conn, err := l.Accept()
			if err != nil {
				t.Fatalf("no SYN arrived: %v", err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(conn)
			if err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
			if len(data) > 0 {
				t.Errorf("the knock says %q", data)
			}
		})
	}
}

func TestAKnockThatIsRefusedWasHeard(t *testing.T) {
	for _, addr := range loopbacks(t) {
		if err := Knock(t.Context(), addr, []packet.Port{closedPort(t, addr)}, Pace{}, silent); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestKnocksAreSentInOrderAndToldBefore(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	first, firstPort := listenUDP(t, addr)
	_, secondPort := listenTCP(t, addr)
	third, thirdPort := listenUDP(t, addr)
	want := []packet.Port{firstPort, secondPort, thirdPort}
	var told []packet.Port
	err := Knock(t.Context(), addr, want, Pace{}, func(p packet.Port) {
		if p == firstPort {
			// Nothing is sent before this.
			if err := first.SetReadDeadline(time.Now()); err != nil {
				t.Error(err)
			}
			if _, err := first.Read(make([]byte, 1)); err == nil {
				t.Error("the knock was sent before it was told of")
			}
			if err := first.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Error(err)
			}
		}
		if p == thirdPort {
			// Loopback delivers a datagram before sendto returns, so the first knock is
			// here.
			if _, err := first.Read(make([]byte, 1)); err != nil {
				t.Errorf("the first knock has not come before the third: %v", err)
			}
		}
		told = append(told, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := third.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got)\n%s", diff)
	}
}

func TestThePauseIsBetweenKnocksAndNotBeforeOrAfter(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	_, port := listenUDP(t, addr)

	const pause = 50 * time.Millisecond
	var at []time.Time
	err := Knock(t.Context(), addr, []packet.Port{port, port, port}, Pace{Pause: pause}, func(packet.Port) { at = append(at, time.Now()) })
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(at); i++ {
		if d := at[i].Sub(at[i-1]); d < pause {
			t.Errorf("knock %d came %s after the one before", i+1, d)
		}
	}

	// The pause would outlast the test, so this shows that one knock has none.
	if err := Knock(t.Context(), addr, []packet.Port{port}, Pace{Pause: time.Hour}, silent); err != nil {
		t.Error(err)
	}
}

func TestACancelledContextEndsThePause(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	_, port := listenUDP(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	knocks := 0
	err := Knock(ctx, addr, []packet.Port{port, port}, Pace{Pause: time.Hour}, func(packet.Port) {
		knocks++
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if knocks != 1 {
		t.Errorf("%d knocks were sent", knocks)
	}
}

func TestACancelledContextEndsKnocksWithoutPause(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	_, port := listenUDP(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	knocks := 0
	err := Knock(ctx, addr, []packet.Port{port, port}, Pace{}, func(packet.Port) {
		knocks++
		cancel()
	})
	if !errors.Is(err, context.Canceled) || knocks != 1 {
		t.Errorf("%d knocks were sent, and the error is %v", knocks, err)
	}
}

func TestAKnockThatCannotBeSentIsAnErrorWithItsPort(t *testing.T) {
	// 255.255.255.255 is a broadcast address. The socket lacks SO_BROADCAST, so sending
	// fails.
	err := Knock(t.Context(), netip.MustParseAddr("255.255.255.255"), []packet.Port{{Number: 7, Protocol: packet.UDP}}, Pace{}, silent)
	if err == nil || !strings.Contains(err.Error(), "knocking at 7/udp of 255.255.255.255") {
		t.Errorf("the error is %v", err)
	}
}

func TestAZoneThatIsNoInterfaceIsAnError(t *testing.T) {
	addr := netip.MustParseAddr("fe80::1%no-such-link")
	if err := Knock(t.Context(), addr, []packet.Port{{Number: 7, Protocol: packet.UDP}}, Pace{}, silent); err == nil {
		t.Error("no error")
	}
}

func TestResolveGivesAddressesOfTheFamilyThatIsWanted(t *testing.T) {
	links, err := net.Interfaces()
	if err != nil || len(links) == 0 {
		t.Fatalf("no interface: %v", err)
	}
	link := links[0]
	for _, test := range []struct {
		network, host string
		want          []netip.Addr // nil: an error
	}{
		{"ip", "192.0.2.1", []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{"ip4", "192.0.2.1", []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{"ip6", "192.0.2.1", nil},
		{"ip", "2001:db8::1", []netip.Addr{netip.MustParseAddr("2001:db8::1")}},
		{"ip4", "2001:db8::1", nil},
		{"ip", "[2001:db8::1]", []netip.Addr{netip.MustParseAddr("2001:db8::1")}},
		{"ip6", "fe80::1%" + link.Name, []netip.Addr{netip.MustParseAddr("fe80::1%" + link.Name)}},
		{"ip", "[fe80::1%" + link.Name + "]", []netip.Addr{netip.MustParseAddr("fe80::1%" + link.Name)}},
		{"ip", fmt.Sprintf("fe80::1%%%d", link.Index), []netip.Addr{netip.MustParseAddr("fe80::1%" + link.Name)}},
		{"ip4", "fe80::1%" + link.Name, nil},
		{"ip", "fe80::1", nil},
		{"ip", "fe80::1%no-such-link", nil},
		{"ip", "[2001:db8::1", nil},
		{"ip", "no-such-host.invalid", nil},
		{"ip", "", nil},
	} {
		got, err := Resolve(t.Context(), test.network, test.host)
		if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s %q (-want +got)\n%s", test.network, test.host, diff)
		}
		if (err == nil) != (test.want != nil) {
			t.Errorf("%s %q: the error is %v", test.network, test.host, err)
		}
	}
}

// A carrier's proxy keeps a SYN until the client has waited for the answer.
func TestATCPKnockCanWaitForTheAnswer(t *testing.T) {
	for _, addr := range loopbacks(t) {
		service, port := listenTCP(t, addr)
		closed := closedPort(t, addr)
		accepted := make(chan error, 1)
		go func() {
			conn, err := service.Accept()
			if err == nil {
				_, err = conn.Read(make([]byte, 1)) // the handshake was completed, then closed
			}
			accepted <- err
		}()
		if err := Knock(t.Context(), addr, []packet.Port{port, closed}, Pace{Wait: patience}, silent); err != nil {
			t.Error(err)
		}
		if err := <-accepted; !errors.Is(err, io.EOF) {
			t.Errorf("the knock ended with %v, and not with FIN", err)
		}
	}
}
