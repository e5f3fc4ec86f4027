//go:build !race

package flood

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/spa"
)

// keyPort is the default port of signed knocks.
const keyPort = 62201

// Whatever is sent to the port of signed knocks, clients with a key and clients with a
// sequence are admitted on their first SYN.
func TestAFloodOfSignedKnocksKeepsNobodyOut(t *testing.T) {
	identity, err := spa.NewIdentity()
	lab.Must(t, err)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	lab.Must(t, err)
	signer, err := ssh.NewSignerFromSigner(private)
	lab.Must(t, err)
	last := time.Now()
	knock := func() []byte {
		if now := time.Now(); now.After(last.Add(time.Millisecond)) {
			last = now
		} else {
			last = last.Add(time.Millisecond)
		}
		b, err := spa.Seal(identity.Public(), spa.Knock{What: spa.Open, Time: last, Door: spa.HashDoor("keyed")}, signer.PublicKey(),
			func(data []byte) (*ssh.Signature, error) { return signer.Sign(rand.Reader, data) })
		lab.Must(t, err)
		return b
	}
	garbage, tagged := make([][]byte, 256), make([][]byte, 256)
	for i := range tagged {
		tagged[i] = withTag(t, identity.Public())
		garbage[i] = slices.Concat(tagged[i][1:], tagged[i][:1])
	}
	replayed := [][]byte{knock()}
	for _, c := range []struct {
		name string
		data [][]byte
	}{
		{"garbage of the right size", garbage},
		{"garbage from somebody who knows the identity", tagged},
		{"a replay", replayed},
	} {
		t.Run(c.name, func(t *testing.T) {
			const clients = 50
			l := lab.New(t)
			folder := t.TempDir()
			lab.WriteFile(t, filepath.Join(folder, "identity"), string(identity.Text()), 0o600)
			lab.WriteFile(t, filepath.Join(folder, "people"), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))+" alice\n", 0o600)
			l.ServeTCP(22)
			d := l.Run(fmt.Sprintf("wall { identity = %q }\ndoor \"keyed\" {\nports = [22]\nkeys { authorized = [%q] }\n}\n%s",
				filepath.Join(folder, "identity"), filepath.Join(folder, "people"), synRules))
			began, before := time.Now(), readVitals(d)
			f := follow(d, forge.Stream{To: lab.Server4, Ports: []packet.Port{lab.UDP(keyPort)}, Data: c.data, Sources: 100})
			eventually.True(t, "the flood is on", func() bool { return f.Sent() > 20_000 })
			for n := range clients {
				source := lab.Source(n+1, lab.Server4)
				datagram := string(knock())
				if err := l.OnFirstSYNAfter(source, lab.Server4, 22, func() error { return lab.SendData(source, lab.Server4, keyPort, datagram) }); err != nil {
					t.Fatalf("client %d of %d with a key: %v", n+1, clients, err)
				}
				source = lab.Source(clients+n+1, lab.Server4)
				if err := l.OnFirstSYN(source, lab.Server4, synKnocks...); err != nil {
					t.Fatalf("client %d of %d with a sequence: %v", n+1, clients, err)
				}
			}
			took, after := time.Since(began), readVitals(d)
			f.Stop()
			t.Logf("%.0f datagrams a second for %s; CPU %.2f; memory %d KiB", float64(f.Sent())/took.Seconds(), took.Round(time.Millisecond),
				(after.cpu-before.cpu).Seconds()/took.Seconds(), after.rss)
		})
	}
}

// withTag returns a datagram that passes the first check, and then has nothing in it.
func withTag(t *testing.T, host spa.Public) []byte {
	t.Helper()
	b := make([]byte, spa.ShortSize)
	_, err := rand.Read(b)
	lab.Must(t, err)
	of := func(key, text []byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(text)
		return h.Sum(nil)
	}
	copy(b, of(of(host[:], []byte("knockwall spa v1 mac")), b[16:])[:16])
	if !spa.NewScreen(host).Passes(b) {
		t.Fatal("the tag is wrong")
	}
	return b
}
