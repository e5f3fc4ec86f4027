package spa

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// now is a time with milliseconds, as datagrams have them.
var now = time.UnixMilli(1_795_819_879_123)

func identity(t testing.TB) Identity {
	t.Helper()
	i, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// signerOf returns the public key and the Signer of a private key.
func signerOf(t testing.TB, private crypto.Signer) (ssh.PublicKey, Signer) {
	t.Helper()
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer.PublicKey(), func(data []byte) (*ssh.Signature, error) {
		return signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, data, signatureFormat(signer.PublicKey()))
	}
}

func ed25519Key(t testing.TB) crypto.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func seal(t testing.TB, to Public, k Knock, key ssh.PublicKey, sign Signer) []byte {
	t.Helper()
	datagram, err := Seal(to, k, key, sign)
	if err != nil {
		t.Fatal(err)
	}
	return datagram
}

// opened returns the content of a datagram.
func opened(t testing.TB, host Identity, datagram []byte) *Sealed {
	t.Helper()
	o, err := NewOpener(host)
	if err != nil {
		t.Fatal(err)
	}
	s, err := o.Open(datagram)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestADatagramIsOpenedByItsHost(t *testing.T) {
	host := identity(t)
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		size int
	}{
		{"ed25519", ed25519Key(t), 216},
		{"ECDSA P-256", ecdsaKey(t, elliptic.P256()), 216},
		{"ECDSA P-384", ecdsaKey(t, elliptic.P384()), 1168},
		{"ECDSA P-521", ecdsaKey(t, elliptic.P521()), 1168},
		{"RSA 2048", rsaKey(t, 2048), 1168},
		{"RSA 4096", rsaKey(t, 4096), 1168},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, sign := signerOf(t, tt.key)
			for _, k := range []Knock{
				{What: Open, Time: now, Door: HashDoor("ssh")},
				{What: Close, Time: now, Door: HashDoor("vpn"), Window: 10 * time.Minute, Source: netip.MustParseAddr("192.0.2.7")},
				{What: Open, Time: now, Source: netip.MustParseAddr("2001:db8::1"), Window: maxWindow * time.Second},
			} {
				datagram := seal(t, host.Public(), k, key, sign)
				if len(datagram) != tt.size {
					t.Errorf("%d bytes, want %d", len(datagram), tt.size)
				}
				if !NewScreen(host.Public()).Passes(datagram) {
					t.Error("the screen stops it")
				}
				s := opened(t, host, datagram)
				if diff := cmp.Diff(k, s.Knock, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
					t.Errorf("(-sealed +opened)\n%s", diff)
				}
				if s.Certificate != nil {
					t.Errorf("a certificate: %x", s.Certificate)
				}
				if err := s.Verify(key); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestACertificateComesWithTheDatagram(t *testing.T) {
	host := identity(t)
	ca, err := ssh.NewSignerFromSigner(ed25519Key(t))
	if err != nil {
		t.Fatal(err)
	}
	key, sign := signerOf(t, ed25519Key(t))
	c := &ssh.Certificate{Key: key, KeyId: "alice", CertType: ssh.UserCert, ValidPrincipals: []string{"alice", "admin"}, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	s := opened(t, host, seal(t, host.Public(), Knock{What: Open, Time: now}, c, sign))
	if !bytes.Equal(s.Certificate, c.Marshal()) {
		t.Errorf("the certificate is %x", s.Certificate)
	}
	if err := s.Verify(c.Key); err != nil {
		t.Error(err)
	}
}

// Every byte is covered: by the tag for whoever lacks the identity, by the encryption for
// whoever has it, and by the signature for the host's own view.
func TestAChangedDatagramIsRefused(t *testing.T) {
	host := identity(t)
	key, sign := signerOf(t, ed25519Key(t))
	datagram := seal(t, host.Public(), Knock{What: Open, Time: now}, key, sign)
	o, err := NewOpener(host)
	if err != nil {
		t.Fatal(err)
	}
	screen := NewScreen(host.Public())
	for i := range 8 * len(datagram) {
		changed := bytes.Clone(datagram)
		changed[i/8] ^= 1 << (i % 8)
		if screen.Passes(changed) {
			t.Fatalf("the screen passes bit %d changed", i)
		}
		if _, err := o.Open(changed); i/8 >= tagSize && i%17 == 0 && err == nil {
			t.Fatalf("it opens with bit %d changed", i)
		}
	}
	if screen.Passes(datagram[:len(datagram)-1]) || screen.Passes(append(bytes.Clone(datagram), 0)) || screen.Passes(nil) {
		t.Error("the screen passes another length")
	}
}

func TestADatagramForAnotherHostIsRefused(t *testing.T) {
	host, other := identity(t), identity(t)
	key, sign := signerOf(t, ed25519Key(t))
	datagram := seal(t, host.Public(), Knock{What: Open, Time: now}, key, sign)
	if NewScreen(other.Public()).Passes(datagram) {
		t.Error("the screen passes it")
	}
	o, err := NewOpener(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Open(datagram); err == nil {
		t.Error("it opens")
	}
}

// A host that decrypts a datagram cannot seal its content to another host: the signature
// covers the host's identity and the share.
func TestASignatureIsForOneHost(t *testing.T) {
	first, second := identity(t), identity(t)
	key, sign := signerOf(t, ed25519Key(t))
	var stolen *ssh.Signature
	seal(t, first.Public(), Knock{What: Open, Time: now}, key, func(data []byte) (s *ssh.Signature, err error) {
		stolen, err = sign(data)
		return stolen, err
	})
	replayed := seal(t, second.Public(), Knock{What: Open, Time: now}, key, func([]byte) (*ssh.Signature, error) { return stolen, nil })
	if err := opened(t, second, replayed).Verify(key); err == nil {
		t.Error("the second host accepts a signature for the first")
	}
}

func TestAnotherKeyIsRefused(t *testing.T) {
	host := identity(t)
	key, sign := signerOf(t, ed25519Key(t))
	other, otherSign := signerOf(t, ed25519Key(t))
	s := opened(t, host, seal(t, host.Public(), Knock{What: Open, Time: now}, key, sign))
	if err := s.Verify(other); err == nil {
		t.Error("verified with another key")
	}
	s = opened(t, host, seal(t, host.Public(), Knock{What: Open, Time: now}, key, otherSign))
	if err := s.Verify(key); err == nil {
		t.Error("verified a signature of another key")
	}
}

// userPresent is the flag of a signature for which somebody touched the key.
const userPresent = 1

// softwareToken signs as a FIDO2 key does. Source: PROTOCOL.u2f of OpenSSH.
func softwareToken(private ed25519.PrivateKey, flags byte) (ssh.PublicKey, Signer, error) {
	const application = "ssh:"
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, private.Public().(ed25519.PublicKey), application}))
	return key, func(data []byte) (*ssh.Signature, error) {
		rest := binary.BigEndian.AppendUint32([]byte{flags}, 7)
		app, message := sha256.Sum256([]byte(application)), sha256.Sum256(data)
		blob := bytes.Join([][]byte{app[:], rest, message[:]}, nil)
		return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(private, blob), Rest: rest}, nil
	}, err
}

func TestAHardwareKeyIsTouched(t *testing.T) {
	host := identity(t)
	for _, flags := range []byte{0, userPresent} {
		key, sign, err := softwareToken(ed25519Key(t).(ed25519.PrivateKey), flags)
		if err != nil {
			t.Fatal(err)
		}
		datagram := seal(t, host.Public(), Knock{What: Open, Time: now}, key, sign)
		if len(datagram) != ShortSize {
			t.Errorf("%d bytes", len(datagram))
		}
		s := opened(t, host, datagram)
		if err := s.Verify(key); (err == nil) != (flags == userPresent) {
			t.Errorf("flags %d: %v", flags, err)
		}
	}
}

func TestRSAWithSHA1IsNotSent(t *testing.T) {
	signer, err := ssh.NewSignerFromSigner(rsaKey(t, 2048))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Seal(identity(t).Public(), Knock{What: Open}, signer.PublicKey(), func(data []byte) (*ssh.Signature, error) {
		return signer.Sign(rand.Reader, data) // ssh-rsa
	})
	if err == nil || !strings.Contains(err.Error(), "rsa-sha2-512") {
		t.Errorf("the error is %v", err)
	}
}

func TestAKnockThatCannotBeSealed(t *testing.T) {
	key, sign := signerOf(t, ed25519Key(t))
	for _, k := range []Knock{
		{}, {What: 3}, {What: Open, Window: -time.Second}, {What: Open, Window: time.Millisecond}, {What: Open, Window: 65536 * time.Second},
	} {
		if _, err := Seal(identity(t).Public(), k, key, sign); err == nil {
			t.Errorf("no error for %+v", k)
		}
	}
	large := &ssh.Certificate{Key: key, ValidPrincipals: []string{strings.Repeat("a", 1000)}, SignatureKey: key, Signature: &ssh.Signature{}}
	if _, err := Seal(identity(t).Public(), Knock{What: Open}, large, sign); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a large certificate: %v", err)
	}
}

func TestDatagramsLookRandom(t *testing.T) {
	host := identity(t)
	key, sign := signerOf(t, ed25519Key(t))
	const n = 400
	ones := make([]int, 8*ShortSize)
	for range n {
		for i, b := range seal(t, host.Public(), Knock{What: Open, Time: now}, key, sign) {
			for bit := range 8 {
				ones[8*i+bit] += int(b >> bit & 1)
			}
		}
	}
	for i, count := range ones { // 7 standard deviations
		if count < n/2-70 || count > n/2+70 {
			t.Errorf("bit %d of byte %d is 1 in %d of %d datagrams", i%8, i/8, count, n)
		}
	}
}

func TestTheScreenAllocatesNothing(t *testing.T) {
	host := identity(t)
	screen := NewScreen(host.Public())
	key, sign := signerOf(t, ed25519Key(t))
	good, bad := seal(t, host.Public(), Knock{What: Open}, key, sign), make([]byte, ShortSize)
	if n := testing.AllocsPerRun(100, func() {
		if !screen.Passes(good) || screen.Passes(bad) {
			t.Fatal("the screen errs")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIdentities(t *testing.T) {
	i := identity(t)
	again, err := ParseIdentity(i.Text())
	if err != nil || again.Public() != i.Public() {
		t.Errorf("parsed: %v, %v", again, err)
	}
	public, err := ParsePublic(i.Public().String())
	if err != nil || public != i.Public() {
		t.Errorf("parsed: %v, %v", public, err)
	}
	for _, text := range []string{"", "kw1:", "kw1:AAAA", "kw2:" + i.Public().String()[4:], i.Public().String() + "A", string(i.Text()),
		Public{}.String(), Public{1}.String()} {
		if _, err := ParsePublic(text); err == nil {
			t.Errorf("%q is a public identity", text)
		} else if strings.Contains(err.Error(), string(i.Text()[len(PrivatePrefix):])) {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
	for _, text := range []string{"", i.Public().String(), "kw1-private:", "kw1-private:AAAA", string(i.Text()[:20])} {
		if _, err := ParseIdentity([]byte(text)); err == nil {
			t.Errorf("%q is an identity", text)
		}
	}
}

func TestAnIdentityPrintsItsPublicHalf(t *testing.T) {
	i := identity(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if s := fmt.Sprintf(verb, i); s != i.Public().String() {
			t.Errorf("%s prints %s", verb, s)
		}
		if s := fmt.Sprintf(verb, struct{ I Identity }{i}); strings.Contains(s, strings.TrimSpace(string(i.Text()[len(PrivatePrefix):]))) {
			t.Errorf("%s prints %s", verb, s)
		}
	}
	if s := (Identity{}).String(); s != "no identity" {
		t.Error(s)
	}
}

// FuzzOpen opens what a sender who knows the identity can send.
func FuzzOpen(f *testing.F) {
	host := identity(f)
	key, sign := signerOf(f, ed25519Key(f))
	f.Add(make([]byte, shortContent))
	f.Add(append([]byte{1, 1}, make([]byte, longContent)...))
	signed, err := Knock{What: Open, Time: now}.signedPart(key)
	if err != nil {
		f.Fatal(err)
	}
	signature, err := sign([]byte("something else"))
	if err != nil {
		f.Fatal(err)
	}
	content, err := contentOf(signed, signature.Blob, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	o, err := NewOpener(host)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := o.Open(b); err == nil {
			t.Error("a datagram that nobody sealed opens")
		}
		if len(b) != shortContent && len(b) != longContent {
			return
		}
		s, err := parse(b)
		if err != nil {
			return
		}
		if s.What != Open && s.What != Close {
			t.Errorf("request %d", s.What)
		}
		s.preimage = b[:atSigned]
		if s.Verify(key) == nil {
			t.Error("verified without a signature of the key")
		}
	})
}

func BenchmarkScreenOfGarbage(b *testing.B) {
	screen := NewScreen(identity(b).Public())
	garbage := make([]byte, ShortSize)
	for b.Loop() {
		screen.Passes(garbage)
	}
}

func BenchmarkOpenAndVerify(b *testing.B) {
	host := identity(b)
	key, sign := signerOf(b, ed25519Key(b))
	datagram := seal(b, host.Public(), Knock{What: Open, Time: now}, key, sign)
	o, err := NewOpener(host)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := o.Open(datagram)
		if err != nil || s.Verify(key) != nil {
			b.Fatal(err)
		}
	}
}
