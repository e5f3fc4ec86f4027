package client

import (
	"net/netip"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/packet"
)

func TestADatagramOfFwknopSaysWhatItIsFor(t *testing.T) {
	keys := fwknop.Keys{Cipher: []byte("a key"), HMAC: []byte("another"), Kind: fwknop.SHA512}
	for _, addr := range loopbacks(t) {
		for _, source := range []Source{{Seen: true}, {Addr: netip.MustParseAddr("192.0.2.7")}, {}} {
			l, port := listenUDP(t, addr)
			f := &Fwknop{Keys: keys, User: "alice", Ports: []packet.Port{{Number: 22, Protocol: packet.TCP}}, Port: port.Number, Timeout: time.Minute, Source: source}
			named, err := f.Knock(t.Context(), addr)
			if err != nil {
				t.Fatal(err)
			}
			if named != source.Addr { // loopback is no public address
				t.Errorf("%+v: it names %s", source, named)
			}
			b := make([]byte, fwknop.MaxSize)
			n, err := l.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			r, _, err := fwknop.NewReader(keys).Read(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			if r.User != "alice" || r.Source != source.Addr || len(r.Ports) != 1 || r.Ports[0] != f.Ports[0] || r.Timeout != time.Minute || time.Since(r.Time).Abs() > time.Minute {
				t.Errorf("%+v: %+v", source, r)
			}
			wantNoMore(t, l)
		}
	}
}
