package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v3"
)

func TestPublicAddresses(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "2a00::1": true,
		"10.1.2.3": false, "172.16.0.1": false, "192.168.1.5": false, "100.64.0.1": false, "100.127.255.254": false,
		"100.128.0.1": true, "192.0.0.2": false, "127.0.0.1": false, "169.254.1.1": false, "0.0.0.0": false,
		"224.0.0.1": false, "::1": false, "fe80::1": false, "fd00::1": false, "ff02::1": false,
	} {
		if got := IsPublic(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is public: %t", text, got)
		}
	}
}

func TestTheSourceToName(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	addr := netip.MustParseAddr("198.51.100.7")
	for _, test := range []struct {
		source Source
		want   netip.Addr
	}{
		{Source{}, netip.Addr{}}, // the own address is not public
		{Source{Seen: true}, netip.Addr{}},
		{Source{Addr: addr}, addr},
	} {
		got, err := test.source.Towards(t.Context(), loopback)
		if err != nil || got != test.want {
			t.Errorf("%+v: %v, %v", test.source, got, err)
		}
	}
}

// stunServer answers requests at a loopback address as a server behind NAT would see them.
// It first answers garbage and an answer to somebody else.
func stunServer(t *testing.T, addr, seen netip.Addr) (server string) {
	t.Helper()
	l, port := listenUDP(t, addr)
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := l.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			request := &stun.Message{Raw: b[:n]}
			if request.Decode() != nil || request.Type != stun.BindingRequest {
				continue
			}
			mapped := &stun.XORMappedAddress{IP: seen.AsSlice(), Port: 4000}
			other := stun.MustBuild(stun.TransactionID, stun.BindingSuccess, &stun.XORMappedAddress{IP: addr.AsSlice(), Port: 4000})
			wrong := stun.MustBuild(stun.NewTransactionIDSetter(request.TransactionID), stun.BindingError)
			right := stun.MustBuild(stun.NewTransactionIDSetter(request.TransactionID), stun.BindingSuccess, mapped)
			for _, answer := range [][]byte{[]byte("garbage"), other.Raw, wrong.Raw, right.Raw} {
				_, _ = l.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	return fmt.Sprintf("%s:%d", bracketed(addr), port.Number)
}

func bracketed(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

func TestASTUNServerTellsTheSource(t *testing.T) {
	for _, addr := range loopbacks(t) {
		seen := netip.MustParseAddr("198.51.100.7")
		if addr.Is6() {
			seen = netip.MustParseAddr("2001:db8::7")
		}
		source := Source{STUN: stunServer(t, addr, seen)}
		got, err := source.Towards(t.Context(), addr)
		if err != nil || got != seen {
			t.Errorf("%s sees %v: %v", addr, got, err)
		}
	}
}

func TestASTUNServerThatDoesNotAnswer(t *testing.T) {
	addr := netip.MustParseAddr("127.0.0.1")
	_, port := listenUDP(t, addr)
	source := Source{STUN: fmt.Sprintf("127.0.0.1:%d", port.Number)}
	if _, err := source.Towards(t.Context(), addr); err == nil || !strings.HasSuffix(err.Error(), "it does not answer") {
		t.Errorf("the error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Towards(ctx, addr); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context the error is %v", err)
	}
}

func FuzzSTUN(f *testing.F) {
	request := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
	f.Add(stun.MustBuild(request, stun.BindingSuccess, &stun.XORMappedAddress{IP: []byte{192, 0, 2, 1}, Port: 1}).Raw)
	f.Add([]byte("garbage"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		if addr, ok := readSTUN(datagram, request.TransactionID); ok && !addr.IsValid() {
			t.Error("an address that is not valid")
		}
	})
}
