//go:build linux

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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
)

// steps records what a Dialer does.
type steps struct {
	mu    sync.Mutex
	knock []netip.Addr
	said  []string
}

func (s *steps) knocks() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]netip.Addr(nil), s.knock...)
}

// dialer returns a Dialer whose knocks do what knock says.
func dialer(port packet.Port, knock func(netip.Addr) error) (*Dialer, *steps) {
	s := &steps{}
	return &Dialer{
		Port: port.Number, Timeout: patience,
		Knock: func(_ context.Context, addr netip.Addr) error {
			s.mu.Lock()
			s.knock = append(s.knock, addr)
			s.mu.Unlock()
			return knock(addr)
		},
		Said: func(step string) {
			s.mu.Lock()
			s.said = append(s.said, step)
			s.mu.Unlock()
		},
	}, s
}

func nothing(netip.Addr) error { return nil }

func TestConnectKnocksFirst(t *testing.T) {
	for _, addr := range loopbacks(t) {
		t.Run(addr.String(), func(t *testing.T) {
			service, port := listenTCP(t, addr)
			knock, knockPort := listenUDP(t, addr)
			d, _ := dialer(port, func(addr netip.Addr) error {
				return Knock(t.Context(), addr, []packet.Port{knockPort}, Pace{}, silent)
			})
			conn, err := d.Connect(t.Context(), []netip.Addr{addr})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if n, err := knock.Read(make([]byte, 10)); err != nil || n != 1 {
				t.Errorf("the knock has %d bytes: %v", n, err)
			}
			accepted, err := service.Accept()
			if err != nil {
				t.Fatal(err)
			}
			accepted.Close()
		})
	}
}

func TestTheNextAddressIsTriedWhenOneFails(t *testing.T) {
	addr, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	_, port := listenTCP(t, addr) // so the other address refuses
	d, steps := dialer(port, nothing)
	conn, err := d.Connect(t.Context(), []netip.Addr{other, addr})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != addr {
		t.Errorf("connected to %s", got)
	}
	if knocks := steps.knocks(); len(knocks) < 2 || knocks[0] != other {
		t.Errorf("knocked at %v", knocks)
	}
}

// silentAddr returns an address where a TCP port answers nothing: its backlog is full.
func silentAddr(t *testing.T, text string, port packet.Port) netip.Addr {
	t.Helper()
	addr := netip.MustParseAddr(text)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: addr.As4(), Port: int(port.Number)}),
		syscall.Listen(fd, 0),
	); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := dial(t.Context(), netip.AddrPortFrom(addr, port.Number), 300*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
}

// An address that does not answer costs a quarter of a second, and not the timeout.
func TestTheNextAddressIsTriedWhileOneIsSilent(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	_, port := listenTCP(t, addr)
	mute := silentAddr(t, "127.0.0.3", port)
	d, steps := dialer(port, nothing)
	begin := time.Now()
	conn, err := d.Connect(t.Context(), []netip.Addr{mute, addr})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if took := time.Since(begin); took < attemptDelay || took > firstTry {
		t.Errorf("it took %s", took)
	}
	if diff := cmp.Diff([]string{mute.String(), addr.String()}, texts(steps.knocks())); diff != "" {
		t.Errorf("knocked at (-want +got)\n%s", diff)
	}
}

func texts(addrs []netip.Addr) (all []string) {
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return all
}

// The time for the next address begins after the knocks to the one before, which may take
// longer than a connection.
func TestSlowKnocksAreNotOvertaken(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	_, port := listenTCP(t, addr)
	d, steps := dialer(port, func(netip.Addr) error {
		time.Sleep(2 * attemptDelay) // the pauses between knocks
		return nil
	})
	conn, err := d.Connect(t.Context(), []netip.Addr{addr, netip.MustParseAddr("127.0.0.2")})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if knocks := steps.knocks(); len(knocks) != 1 {
		t.Errorf("knocked at %v", knocks)
	}
}

// A knock may be lost, so a connection that fails is tried again after a second knock.
func TestASecondKnockFollowsIfTheFirstTryFails(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	port := closedPort(t, addr)
	knocks := 0
	d, steps := dialer(port, func(netip.Addr) error {
		if knocks++; knocks == 2 { // the door opens
			l, err := net.Listen("tcp", netip.AddrPortFrom(addr, port.Number).String())
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
		}
		return nil
	})
	conn, err := d.Connect(t.Context(), []netip.Addr{addr})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if knocks != 2 {
		t.Errorf("%d knocks", knocks)
	}
	to := netip.AddrPortFrom(addr, port.Number)
	want := []string{
		fmt.Sprintf("connecting to %s", to), fmt.Sprintf("connecting to %s after the knocks: connection refused", to),
		"once more, as the knocks may be lost: 127.0.0.1", fmt.Sprintf("connecting to %s", to), fmt.Sprintf("connected to %s", to),
	}
	if diff := cmp.Diff(want, steps.said); diff != "" {
		t.Errorf("told (-want +got)\n%s", diff)
	}
}

func TestASilentAddressIsKnockedAtTwiceInTheTimeout(t *testing.T) {
	_, port := listenTCP(t, netip.MustParseAddr("127.0.0.1"))
	mute := silentAddr(t, "127.0.0.3", port)
	d, steps := dialer(port, nothing)
	d.Timeout = 400 * time.Millisecond
	begin := time.Now()
	_, err := d.Connect(t.Context(), []netip.Addr{mute})
	if !isTimeout(err) {
		t.Errorf("the error is %v", err)
	}
	if took := time.Since(begin); took < d.Timeout || took > d.Timeout+patience/2 {
		t.Errorf("it took %s", took)
	}
	if knocks := steps.knocks(); len(knocks) != 2 {
		t.Errorf("knocked at %v", knocks)
	}
}

func TestConnectSaysWhyEachAddressFailed(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	port := closedPort(t, addr)
	other := netip.MustParseAddr("127.0.0.2")
	d, _ := dialer(port, func(to netip.Addr) error {
		if to == other {
			return syscall.ENETUNREACH
		}
		return nil
	})
	_, err := d.Connect(t.Context(), []netip.Addr{addr, other})
	failed, ok := errors.AsType[*ConnectError](err)
	if !ok || len(failed.Failures) != 2 || !errors.Is(err, errRefused) || !errors.Is(err, syscall.ENETUNREACH) {
		t.Fatalf("the error is %v", err)
	}
	for _, f := range failed.Failures {
		if f.Knocked != (f.Addr == addr) {
			t.Errorf("%s: knocked is %t", f.Addr, f.Knocked)
		}
	}
	if !strings.Contains(err.Error(), addr.String()) {
		t.Errorf("%q does not name %s", err, addr)
	}
}

func TestConnectDoesNotConnectWhereItCannotKnock(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	l, port := listenTCP(t, addr)
	d, _ := dialer(port, func(netip.Addr) error { return syscall.ENETUNREACH })
	if _, err := d.Connect(t.Context(), []netip.Addr{addr}); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("the error is %v", err)
	}
	// No connection was made before this one.
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != conn.LocalAddr().String() {
		t.Error("there was a connection before")
	}
}

func TestTheVersionsOfIPTakeTurns(t *testing.T) {
	for _, test := range [][2]string{
		{"", ""},
		{"2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2", "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2"},
		{"192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1", "192.0.2.1 2001:db8::1 192.0.2.2 192.0.2.3"},
		{"192.0.2.1 192.0.2.2", "192.0.2.1 192.0.2.2"},
	} {
		var addrs []netip.Addr
		for _, text := range strings.Fields(test[0]) {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		if got := strings.Join(texts(inTurns(addrs)), " "); got != test[1] {
			t.Errorf("%s in turns: %s, want %s", test[0], got, test[1])
		}
	}
}

// connected returns both ends of a connection.
func connected(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, _ := listenTCP(t, netip.MustParseAddr("127.0.0.1"))
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	if err := far.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return near.(*net.TCPConn), far.(*net.TCPConn)
}

func TestTheEndOfInputIsPassedOnAndTheAnswerIsStillRead(t *testing.T) {
	near, far := connected(t)
	answered := make(chan error, 1)
	go func() {
		// The server answers after the client has closed its side.
		said, err := io.ReadAll(far)
		if err == nil {
			_, err = far.Write(bytes.ToUpper(said))
		}
		answered <- errors.Join(err, far.Close())
	}()
	var out bytes.Buffer
	if err := Join(near, strings.NewReader("hello"), &out); err != nil {
		t.Error(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if out.String() != "HELLO" {
		t.Errorf("the answer is %q", out.String())
	}
}

func TestJoinEndsWithTheOtherSideThoughInputGoesOn(t *testing.T) {
	near, far := connected(t)
	in, keepOpen := io.Pipe()
	defer keepOpen.Close()
	if _, err := far.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	far.Close()
	var out bytes.Buffer
	if err := Join(near, in, &out); err != nil {
		t.Error(err)
	}
	if out.String() != "bye" {
		t.Errorf("the answer is %q", out.String())
	}
}

func TestJoinReportsAConnectionThatBreaks(t *testing.T) {
	near, far := connected(t)
	in, keepOpen := io.Pipe()
	defer keepOpen.Close()
	if err := far.SetLinger(0); err != nil { // closing now resets the connection
		t.Fatal(err)
	}
	far.Close()
	err := Join(near, in, io.Discard)
	if want := fmt.Sprintf("the connection to %s has broken: connection reset by peer", near.RemoteAddr()); !errors.Is(err, syscall.ECONNRESET) || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

// Errors are in the system's words, and name the cure where there is one.
func TestErrorsHaveNoWordsOfGo(t *testing.T) {
	refused := closedPort(t, netip.MustParseAddr("127.0.0.1"))
	_, noAnswer := dial(t.Context(), netip.AddrPortFrom(silentAddr(t, "127.0.0.3", refused), refused.Number), 10*time.Millisecond)
	_, isRefused := dial(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), refused.Number), patience)
	_, noName := Resolve(t.Context(), "ip6", "127.0.0.1")
	_, noZone := Resolve(t.Context(), "ip", "fe80::1")
	_, noLink := Resolve(t.Context(), "ip", "fe80::1%nolink")
	_, noRoute := SourceTowards(t.Context(), netip.MustParseAddr("fe80::1"))
	for want, err := range map[string]error{
		"no answer":          reason(noAnswer),
		"connection refused": reason(isRefused),
		"looking up 127.0.0.1: no suitable address":                                        noName,
		"fe80::1 may be another host on each link: name the interface, as in fe80::1%eth0": noZone,
		"fe80::1%nolink: there is no interface nolink here":                                noLink,
		"finding this machine's address towards fe80::1: ":                                 noRoute,
	} {
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		for _, word := range []string{"dial ", "i/o timeout", "lookup ", "connect:", "route ip+net"} {
			if err != nil && strings.Contains(err.Error(), word) {
				t.Errorf("%q has %q, which is Go's", err, word)
			}
		}
	}
	for err, want := range map[error]bool{reason(isRefused): true, reason(noAnswer): false} {
		if f := (Failure{Err: fmt.Errorf("connecting: %w", err)}); f.IsRefused() != want {
			t.Errorf("%v is refused: %t", err, !want)
		}
	}
}
