package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/internal/sshkeys"
)

func newKey(t *testing.T) sshkeys.Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return sshkeys.Key{Public: signer.PublicKey(), From: "the test", Sign: func(data []byte) (*ssh.Signature, error) { return signer.Sign(nil, data) }}
}

// Each key signs a datagram. Their times differ, as a host takes no two of one time.
func TestEachKeySignsAKnock(t *testing.T) {
	identity, err := spa.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	opener, err := spa.NewOpener(identity)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range loopbacks(t) {
		for _, source := range []Source{{}, {Seen: true}, {Addr: addr}, {Addr: netip.MustParseAddr("192.0.2.7")}} {
			l, port := listenUDP(t, addr)
			var said []netip.Addr
			k := &Keyed{
				Identity: identity.Public(), Door: "ssh", Port: port.Number, What: spa.Open, Source: source,
				Keys: []sshkeys.Key{newKey(t), newKey(t)},
				Said: func(_ netip.Addr, _ sshkeys.Key, source netip.Addr) { said = append(said, source) },
			}
			begin := time.Now().Truncate(time.Millisecond)
			var before time.Time
			for range 2 {
				if err := k.Knock(t.Context(), addr); err != nil {
					t.Fatal(err)
				}
				for _, key := range k.Keys {
					b := make([]byte, 2*spa.LongSize)
					n, from, err := l.ReadFromUDPAddrPort(b)
					if err != nil {
						t.Fatal(err)
					}
					sealed, err := opener.Open(b[:n])
					if err != nil {
						t.Fatal(err)
					}
					if err := sealed.Verify(key.Public); err != nil {
						t.Error(err)
					}
					if sealed.What != spa.Open || sealed.Door != spa.HashDoor("ssh") || sealed.Window != 0 || sealed.Source != source.Addr {
						t.Errorf("%+v: the knock is %+v", source, sealed.Knock)
					}
					if sealed.Time.Before(begin) || sealed.Time.After(time.Now().Add(time.Second)) || !sealed.Time.After(before) {
						t.Errorf("the time is %v, after %v", sealed.Time, before)
					}
					before = sealed.Time
					if from.Addr().Unmap() != addr {
						t.Errorf("it came from %s", from)
					}
				}
			}
			for _, s := range said {
				if s != source.Addr {
					t.Errorf("%+v: told the source %v", source, s)
				}
			}
			wantNoMore(t, l)
		}
	}
}

func TestASignedKnockThatCannotBeMade(t *testing.T) {
	identity, err := spa.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	refusing := key
	refused := errors.New("the user said no")
	refusing.Sign = func([]byte) (*ssh.Signature, error) { return nil, refused }
	k := &Keyed{Identity: identity.Public(), Door: "ssh", Port: 62201, What: spa.Open, Said: func(netip.Addr, sshkeys.Key, netip.Addr) {}}
	k.Keys = []sshkeys.Key{refusing}
	if err := k.Knock(t.Context(), netip.MustParseAddr("127.0.0.1")); !errors.Is(err, refused) || !strings.Contains(err.Error(), ssh.FingerprintSHA256(key.Public)) {
		t.Errorf("the error is %v", err)
	}
	k.Keys = []sshkeys.Key{refusing, refusing}
	if err := k.Knock(t.Context(), netip.MustParseAddr("127.0.0.1")); err == nil || strings.Count(err.Error(), refused.Error()) != 2 {
		t.Errorf("the error of two keys is %v", err)
	}
	k.Keys = []sshkeys.Key{key}
	k.Source = Source{Addr: netip.MustParseAddr("127.0.0.1")} // loopback cannot send to other hosts
	if err := k.Knock(t.Context(), netip.MustParseAddr("192.0.2.1")); err == nil || !strings.Contains(err.Error(), "sending a signed knock to 62201/udp of 192.0.2.1: ") {
		t.Errorf("the error is %v", err)
	}
}

func TestAKeyThatCannotSignStopsNoOther(t *testing.T) {
	identity, err := spa.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	good, refusing := newKey(t), newKey(t)
	refusing.Sign = func([]byte) (*ssh.Signature, error) { return nil, errors.New("the user said no") }
	for _, keys := range [][]sshkeys.Key{{refusing, good}, {good, refusing}} {
		addr := netip.MustParseAddr("127.0.0.1")
		l, port := listenUDP(t, addr)
		k := &Keyed{
			Identity: identity.Public(), Door: "ssh", Port: port.Number, What: spa.Open, Keys: keys,
			Said: func(netip.Addr, sshkeys.Key, netip.Addr) {},
		}
		if err := k.Knock(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.ReadFromUDPAddrPort(make([]byte, 2*spa.LongSize)); err != nil {
			t.Error(err)
		}
		wantNoMore(t, l)
	}
}

// Somebody who ends the program is not asked by the other keys.
func TestNoKeySignsAfterTheEnd(t *testing.T) {
	identity, err := spa.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	asked := 0
	ending := newKey(t)
	ending.Sign = func([]byte) (*ssh.Signature, error) {
		asked++
		end()
		return nil, errors.New("the user said no")
	}
	k := &Keyed{
		Identity: identity.Public(), Door: "ssh", Port: 62201, What: spa.Open, Keys: []sshkeys.Key{ending, ending},
		Said: func(netip.Addr, sshkeys.Key, netip.Addr) {},
	}
	if err := k.Knock(ctx, netip.MustParseAddr("127.0.0.1")); !errors.Is(err, context.Canceled) || asked != 1 {
		t.Errorf("%d keys were asked, and the error is %v", asked, err)
	}
}
