package host_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
)

// listens reports whether Ports contains a port.
func listens(t *testing.T, p packet.Port) bool {
	t.Helper()
	ports, err := host.Ports()
	if err != nil {
		t.Fatal(err)
	}
	return ports[p]
}

func portOf(t *testing.T, a net.Addr, protocol packet.Protocol) packet.Port {
	t.Helper()
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return packet.Port{Number: at.Port(), Protocol: protocol}
}

// free waits until Ports no longer contains a port. The kernel's lists may have it for a
// moment after it was closed.
func free(t *testing.T, p packet.Port) {
	t.Helper()
	eventually.True(t, p.String()+" is not listened on", func() bool { return !listens(t, p) })
}

func TestWhoListensIsFound(t *testing.T) {
	for _, test := range []struct{ network, address string }{
		{"tcp4", "127.0.0.1:0"}, {"tcp4", "0.0.0.0:0"}, {"tcp6", "[::1]:0"}, {"tcp6", "[::]:0"}, {"tcp", ":0"},
		{"udp4", "127.0.0.1:0"}, {"udp4", "0.0.0.0:0"}, {"udp6", "[::1]:0"}, {"udp6", "[::]:0"}, {"udp", ":0"},
	} {
		t.Run(test.network+" "+test.address, func(t *testing.T) {
			var socket interface{ Close() error }
			var p packet.Port
			if test.network[0] == 't' {
				l, err := net.Listen(test.network, test.address)
				if err != nil {
					t.Skipf("needs %s on %s: %v", test.network, test.address, err)
				}
				socket, p = l, portOf(t, l.Addr(), packet.TCP)
			} else {
				l, err := net.ListenPacket(test.network, test.address)
				if err != nil {
					t.Skipf("needs %s on %s: %v", test.network, test.address, err)
				}
				socket, p = l, portOf(t, l.LocalAddr(), packet.UDP)
			}
			if !listens(t, p) {
				t.Errorf("nobody is said to listen on %s", p)
			}
			if err := socket.Close(); err != nil {
				t.Fatal(err)
			}
			free(t, p)
		})
	}
}

// A port is open for one protocol only. Another program may use the same number with the
// other protocol, so the test tries several ports.
func TestProtocolsAreToldApart(t *testing.T) {
	const tries = 10
	for range tries {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		p := portOf(t, l.Addr(), packet.UDP)
		if !listens(t, p) {
			return
		}
	}
	t.Errorf("%d TCP ports are all said to be listened on for UDP", tries)
}

// Neither end of a connection counts as a listener.
func TestConnectionsDoNotListen(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := net.Dial("udp4", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if p := portOf(t, client.LocalAddr(), packet.UDP); listens(t, p) {
		t.Errorf("the connected %s is said to listen", p)
	}
	if p := portOf(t, server.LocalAddr(), packet.UDP); !listens(t, p) {
		t.Errorf("nobody is said to listen on %s", p)
	}

	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialled, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if p := portOf(t, dialled.LocalAddr(), packet.TCP); listens(t, p) {
		t.Errorf("the connected %s is said to listen", p)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	free(t, portOf(t, accepted.LocalAddr(), packet.TCP))
}

func TestWhereSomebodyListensIsFound(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
		t.Run(address, func(t *testing.T) {
			l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
			if err != nil {
				t.Skipf("needs %s: %v", address, err)
			}
			defer l.Close()
			all, err := host.Listeners()
			if err != nil {
				t.Fatal(err)
			}
			want := host.Listener{Port: portOf(t, l.Addr(), packet.TCP), Local: netip.MustParseAddr(l.Addr().(*net.TCPAddr).IP.String())}
			if !slices.Contains(all, want) {
				t.Errorf("%v is not among %v", want, all)
			}
		})
	}
}
