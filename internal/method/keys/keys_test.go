package keys_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/keys"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/ruleset"
)

var (
	now    = time.UnixMilli(1_795_819_879_123)
	source = netip.MustParseAddr("192.0.2.7")
)

// host is a folder with rule files and the files that they name.
type host struct {
	t        testing.TB
	folder   string
	identity spa.Identity
}

func newHost(t testing.TB) *host {
	t.Helper()
	identity, err := spa.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t, t.TempDir(), identity}
	h.write("identity", string(identity.Text()))
	return h
}

func (h *host) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.folder, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// rules returns a door for each name, with these lines of people. %s in more is the folder.
func (h *host) rules(people, more string, doors ...string) *ruleset.Loaded {
	h.t.Helper()
	at := h.write("people", people)
	var text strings.Builder
	for i, name := range doors {
		fmt.Fprintf(&text, "door %q {\nports = [%d]\nkeys {\nauthorized = [%q]\n%s\n}\n}\n", name, 22+i, at, strings.ReplaceAll(more, "%s", h.folder))
	}
	return ruleset.Load(h.write("rules.hcl", text.String()))
}

// verify returns what a datagram means at a door.
func (h *host) verify(l *ruleset.Loaded, door string, datagram []byte) method.Meaning {
	h.t.Helper()
	if l.Config == nil {
		h.t.Fatal(l.Diagnostics)
	}
	v := l.Config.Door(door).Methods[0].(*keys.Keys).Verifier().(method.SlowVerifier)
	if !v.Screen(datagram) {
		h.t.Fatal("the screen stops it")
	}
	return v.Verify(datagram, source, now)
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// line returns the line of a key.
func line(options string, s ssh.Signer, name string) string {
	return strings.TrimSpace(options+" "+strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))+" "+name) + "\n"
}

// knock returns the datagram of a signer for a door. key is its public key or certificate.
func (h *host) knock(door string, signer ssh.Signer, key ssh.PublicKey) []byte {
	h.t.Helper()
	b, err := spa.Seal(h.identity.Public(), spa.Knock{What: spa.Open, Time: now, Door: spa.HashDoor(door)}, key,
		func(data []byte) (*ssh.Signature, error) { return signer.Sign(rand.Reader, data) })
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// certificate returns a certificate of a key for alice, with the name of an authority.
func certificate(t testing.TB, key, signedBy, says ssh.Signer) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: "alice", Serial: 7, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, signedBy); err != nil {
		t.Fatal(err)
	}
	c.SignatureKey = says.PublicKey()
	return c
}

func TestACertificateOpensForItsPerson(t *testing.T) {
	h, ca, key := newHost(t), newSigner(t), newSigner(t)
	l := h.rules(line("cert-authority", ca, "the authority"), "", "ssh")
	m := h.verify(l, "ssh", h.knock("ssh", key, certificate(t, key, ca, ca)))
	if m.Action != method.Open || m.Person.Name != "alice" || m.Person.Key != ssh.FingerprintSHA256(key.PublicKey()) {
		t.Errorf("%+v", m)
	}
	admits := func(l *ruleset.Loaded) bool {
		return l.Config.Doors[0].Methods[0].(method.Members).Admits(method.ParsePerson(m.Person.Text()), now)
	}
	if !admits(l) {
		t.Error("the window does not stay")
	}
	h.write("revoked", "serial: 7\n")
	if admits(h.rules(line("cert-authority", ca, "the authority"), `revoked = ["%s/revoked"]`, "ssh")) {
		t.Error("the window of a revoked certificate stays")
	}
	if admits(h.rules(line("cert-authority", newSigner(t), "another"), "", "ssh")) {
		t.Error("the window outlasts the authority")
	}
}

// Somebody who knows the host's identity and an authority's public key can write any name
// into a certificate. No event may name that person.
func TestAForgedCertificateNamesNobody(t *testing.T) {
	h, ca, key := newHost(t), newSigner(t), newSigner(t)
	l := h.rules(line("cert-authority", ca, "the authority"), "", "ssh")
	c := certificate(t, key, newSigner(t), ca)
	for _, change := range []func(){func() {}, func() { c.ValidBefore = 1 }, func() { c.ValidPrincipals = []string{"x"} }} {
		change()
		if m := h.verify(l, "ssh", h.knock("ssh", key, c)); m != (method.Meaning{}) {
			t.Errorf("%+v", m)
		}
	}
}

// Of the doors at one port, the first answers for a door that does not exist.
func TestOneDoorAnswersForUnknownDoors(t *testing.T) {
	h, key := newHost(t), newSigner(t)
	l := h.rules(line("", key, "alice"), "", "ssh", "web")
	for door, want := range map[string][2]audit.Code{
		"ssh": {audit.CodeKey, ""}, "web": {"", audit.CodeKey}, "nowhere": {audit.CodeUnknownDoor, ""},
	} {
		datagram := h.knock(door, key, key.PublicKey())
		if got := [2]audit.Code{h.verify(l, "ssh", datagram).Code, h.verify(l, "web", datagram).Code}; got != want {
			t.Errorf("for %s: %q, want %q", door, got, want)
		}
	}
}

// Listed are those who may open the door now with a key of their own.
func TestListed(t *testing.T) {
	h, revoked := newHost(t), newSigner(t)
	h.write("revoked", ssh.FingerprintSHA256(revoked.PublicKey())+"\n")
	l := h.rules(line("", newSigner(t), "alice")+line(`from="198.51.100.1"`, newSigner(t), "bob")+
		line(`doors="web"`, newSigner(t), "of another door")+line(`expiry-time="20200101"`, newSigner(t), "expired")+
		line("", revoked, "revoked")+line("cert-authority", newSigner(t), "an authority"), `revoked = ["%s/revoked"]`, "ssh", "web")
	if l.Config == nil {
		t.Fatal(l.Diagnostics)
	}
	got := l.Config.Door("ssh").Methods[0].(method.Members).Listed(now)
	slices.Sort(got)
	if want := []string{"alice", "bob"}; !slices.Equal(got, want) {
		t.Errorf("listed are %q, want %q", got, want)
	}
}

// A list of revoked keys that cannot be read lets nobody in, where the daemon has to start
// with it.
func TestABrokenListOfRevokedKeysAdmitsNobody(t *testing.T) {
	h, key := newHost(t), newSigner(t)
	h.write("revoked", "")
	const revoked = `revoked = ["%s/revoked"]`
	l := h.rules(line("", key, "alice"), revoked, "ssh")
	kept := filepath.Join(t.TempDir(), "kept")
	if err := l.Save(kept); err != nil {
		t.Fatal(err)
	}
	h.write("revoked", "alice\n")
	if l := h.rules(line("", key, "alice"), revoked, "ssh"); l.Config != nil {
		t.Error("no error")
	}
	l, err := ruleset.Recall(kept, filepath.Join(h.folder, "rules.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	m := h.verify(l, "ssh", h.knock("ssh", key, key.PublicKey()))
	if m.Action != method.Nothing || m.Code != audit.CodeNotAllowed {
		t.Errorf("%+v", m)
	}
}

// A mistake in a people file is reported once, at its place, however many doors name it.
func TestProblemsAreReportedOnceAtTheirPlace(t *testing.T) {
	h := newHost(t)
	people := line("", newSigner(t), "alice") + line(`from="192.0.2.0/24",doors="shh"`, newSigner(t), "bob") + line("", newSigner(t), "carol")
	l := h.rules(people, "", "ssh", "web")
	if l.Config == nil || len(l.Diagnostics) != 1 {
		t.Fatal(l.Diagnostics)
	}
	d := l.Diagnostics[0]
	if marked := people[d.Subject.Start.Byte:d.Subject.End.Byte]; d.Summary != "No such door" || marked != `doors="shh"` || d.Subject.Start.Line != 2 {
		t.Errorf("%s: %q is marked in line %d", d.Summary, marked, d.Subject.Start.Line)
	}
	l = h.rules("alice\n", "", "ssh", "web")
	if len(l.Diagnostics) != 1 || l.Diagnostics[0].Summary != "Line without a key" {
		t.Error(l.Diagnostics)
	}
}

// A file with a secret may be named by mistake. Nothing of it is printed.
func TestNoExcerptShowsASecret(t *testing.T) {
	const secret = "hipjazz4Dq9yWk2+abcdefgh="
	h, key := newHost(t), newSigner(t)
	for _, tt := range []struct{ people, revoked string }{
		{secret + "\n", ""},
		{"# x\n\t" + secret, ""},
		{line("", key, "alice"), secret},
		{"key = " + secret + "\n", ""},
	} {
		h.write("revoked", tt.revoked)
		l := h.rules(tt.people, `revoked = ["%s/revoked"]`, "ssh")
		var text strings.Builder
		if err := l.WriteText(&text, 80, false); err != nil {
			t.Fatal(err)
		}
		if l.Config != nil || strings.Contains(text.String(), "hipjazz") || strings.Contains(text.String(), "abcdefgh") {
			t.Errorf("%q: %s", tt, &text)
		}
	}
	for _, private := range []string{string(h.identity.Text()), "-----BEGIN OPENSSH PRIVATE KEY-----\nhipjazz\n"} {
		if l := h.rules(private, "revoked = []", "ssh"); len(l.Diagnostics) != 1 || l.Diagnostics[0].Summary != "Private key" {
			t.Errorf("a private key: %v", l.Diagnostics)
		}
	}
	// What is public is shown.
	l := h.rules(line(`door="ssh"`, key, "alice"), "", "ssh")
	var text strings.Builder
	if err := l.WriteText(&text, 80, false); err != nil || !strings.Contains(text.String(), `door="ssh" ssh-ed25519 AAAA`) {
		t.Errorf("%s", &text)
	}
}

// Whoever knows the host's identity and the key of an authority can make up a certificate of
// a key that takes long to verify with. The host checks the authority's signature first.
func BenchmarkMadeUpCertificate(b *testing.B) {
	h := newHost(b)
	authority, other := newSigner(b), newSigner(b)
	private, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	key, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		b.Fatal(err)
	}
	v := h.rules(line("cert-authority", authority, "ca"), "", "ssh").Config.Door("ssh").Methods[0].(*keys.Keys).Verifier()
	var datagrams [][]byte // more than are remembered
	for range 8 {
		datagrams = append(datagrams, h.knock("ssh", key, certificate(b, key, other, authority)))
	}
	for n := 0; b.Loop(); n++ {
		if m := v.Verify(datagrams[n%len(datagrams)], source, now); m.Code != "" {
			b.Fatalf("%+v", m)
		}
	}
}
