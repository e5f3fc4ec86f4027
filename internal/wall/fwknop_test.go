package wall_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

func TestAClientOfFwknopOpensForItsPerson(t *testing.T) {
	keys := fwknop.Keys{Cipher: []byte("the key of alice"), HMAC: []byte("the hmac key of alice")}
	k := newKeyed(t)
	rules := k.write("rules.hcl", fmt.Sprintf(`
door "ssh" {
  ports = [22]
  fwknop "alice" {
    key      = %q
    hmac_key = %q
  }
}`, base64.StdEncoding.EncodeToString(keys.Cipher), base64.StdEncoding.EncodeToString(keys.HMAC)))
	l := ruleset.Load(rules)
	if l.Config == nil {
		t.Fatal(l.Diagnostics)
	}
	guarded(t, config(l.Config.Doors...), func(h *host) {
		a := h.client(alice)
		datagram := func() []byte {
			b, err := fwknop.Datagram(keys, fwknop.Request{User: "alice", Time: time.Now(), Kind: fwknop.Access, Source: alice, Ports: []packet.Port{tcp(22)}})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		first := datagram()
		a.sendsKey("a knock", first, "opened ssh 192.0.2.1")
		if w := h.wall.Windows(wall.WindowQuery{}); len(w) != 1 || w[0].Person != "alice" {
			t.Errorf("windows: %+v", w)
		}
		a.sendsKey("another", datagram(), "refreshed ssh 192.0.2.1")
		time.Sleep(audit.SumInterval)
		a.sendsKey("the first again", first, "replayed ssh 192.0.2.1")
		time.Sleep(audit.SumInterval)
		changed := slices.Clone(first)
		changed[20] ^= 1
		h.trail.take()
		a.datagram(keyPort, changed)
		synctest.Wait()
		if got := h.trail.take(); len(got) != 1 || got[0][:5] != "reset" {
			t.Errorf("a changed datagram: %q", got)
		}
	})
}
