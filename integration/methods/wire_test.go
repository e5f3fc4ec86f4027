package methods

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/integration/lab"
)

// wire is a knock by the description of the format alone: nothing here is of internal/spa.
type wire struct {
	host      []byte // the public identity, 32 bytes
	version   byte
	what      byte
	window    uint16
	at        uint64 // Unix milliseconds
	door      string
	source    [16]byte
	signer    ssh.Signer
	algorithm string // "": the signer's own
	namespace string
	long      bool
	// certificate is that of the signer's key, as ssh encodes it; it needs the long form.
	certificate []byte
	// changes of what is sent
	plain  func(p []byte)           // before it is sealed, the signature is made before it
	signed func(message []byte)     // what is signed
	key    ssh.PublicKey            // another one than the signer's is named
	sealed func(enc, ct []byte)     // after it is sealed, before the tag
	sent   func(data []byte) []byte // all of it
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func sshString(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func (w wire) datagram(t *testing.T) string {
	t.Helper()
	public, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(w.host)
	lab.Must(t, err)
	enc, sender, err := hpke.NewSender(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("knockwall spa v1"))
	lab.Must(t, err)
	n := 152
	if w.long {
		n = 1104
	}
	p := make([]byte, n)
	p[0], p[1] = w.version, w.what
	binary.BigEndian.PutUint16(p[2:], w.window)
	binary.BigEndian.PutUint64(p[4:], w.at)
	door := sha256.Sum256([]byte(w.door))
	copy(p[12:20], door[:])
	copy(p[20:36], w.source[:])
	key := w.key
	if key == nil {
		key = w.signer.PublicKey()
	}
	id := sha256.Sum256(key.Marshal())
	copy(p[36:68], id[:])
	message := bytes.Join([][]byte{[]byte("knockwall spa v1"), w.host, enc, p[:68]}, nil)
	if w.signed != nil {
		w.signed(message)
	}
	hash := sha512.Sum512(message)
	preimage := bytes.Join([][]byte{[]byte("SSHSIG"), sshString([]byte(w.namespace)), sshString(nil), sshString([]byte("sha512")), sshString(hash[:])}, nil)
	var s *ssh.Signature
	if w.algorithm == "" {
		s, err = w.signer.Sign(rand.Reader, preimage)
	} else {
		s, err = w.signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, preimage, w.algorithm)
	}
	lab.Must(t, err)
	binary.BigEndian.PutUint16(p[68:], uint16(len(s.Blob)))
	copy(p[70:], s.Blob)
	if len(w.certificate) > 0 {
		at := 70 + len(s.Blob)
		binary.BigEndian.PutUint16(p[at:], uint16(len(w.certificate)))
		if n := copy(p[at+2:], w.certificate); n < len(w.certificate) {
			t.Fatalf("a certificate of %d bytes has no room", len(w.certificate))
		}
	}
	if w.plain != nil {
		w.plain(p)
	}
	ct, err := sender.Seal(nil, p)
	lab.Must(t, err)
	masked := make([]byte, 32)
	for i, b := range mac(mac(w.host, []byte("knockwall spa v1 mask")), ct) {
		masked[i] = enc[i] ^ b
	}
	if w.sealed != nil {
		w.sealed(masked, ct)
	}
	tag := mac(mac(w.host, []byte("knockwall spa v1 mac")), masked, ct)[:16]
	data := bytes.Join([][]byte{tag, masked, ct}, nil)
	if w.sent != nil {
		data = w.sent(data)
	}
	return string(data)
}

// speaker sends knocks by the description to a daemon, at one of the server's addresses, each
// from another source.
type speaker struct {
	*keyed
	d      *lab.Daemon
	host   []byte
	server netip.Addr
	last   uint64 // time of a knock
	n      int    // sources so far
	opened uint64 // windows that the daemon has opened
}

func newSpeaker(k *keyed, server netip.Addr) *speaker {
	k.T.Helper()
	host, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(k.identity.Public().String(), "kw1:"))
	lab.Must(k.T, err)
	return &speaker{keyed: k, d: k.RunFile(k.rules), host: host, server: server}
}

// now returns the time, later than the one before.
func (s *speaker) now() uint64 {
	s.last = max(s.last+1, uint64(time.Now().UnixMilli()))
	return s.last
}

func (s *speaker) good(signer ssh.Signer) wire {
	w := wire{host: s.host, version: 1, what: 1, at: s.now(), door: "ssh", signer: signer, namespace: "knock@knockwall"}
	switch signer.PublicKey().Type() {
	case ssh.KeyAlgoRSA:
		w.long, w.algorithm = true, ssh.KeyAlgoRSASHA512
	case ssh.KeyAlgoECDSA384:
		w.long = true
	}
	return w
}

func (s *speaker) source() netip.Addr {
	s.n++
	return lab.Source(s.n, s.server)
}

func (s *speaker) send(datagram string) netip.Addr {
	s.T.Helper()
	from := s.source()
	s.SendDatagram(from, s.server, keyPort, datagram)
	return from
}

// opens sends what opens, and waits for it. All that was sent before it has been judged
// then: it opened nothing.
func (s *speaker) opens(name string, w wire) (datagram string) {
	s.T.Helper()
	datagram = w.datagram(s.T.(*testing.T))
	s.d.WaitFor("opened", "source="+s.send(datagram).String()+" ")
	s.opened++
	if got := s.d.Status().Doors[0].Counters.Opened; got != s.opened {
		s.T.Fatalf("%s: %d windows were opened, not %d", name, got, s.opened)
	}
	return datagram
}

// starts starts the next daemon.
func (s *speaker) starts() {
	s.T.Helper()
	s.d, s.opened = s.RunFile(s.rules), 0
}

// A client that is written from the description of the format gets in, and each change of
// what it sends keeps the door closed.
func TestTheWireFormatIsAsDescribed(t *testing.T) {
	k := newKeyed(t)
	alice, bob, mallory := newPerson(t, "alice"), newPerson(t, "bob"), newPerson(t, "mallory")
	rsaKey := func(bits int) ssh.Signer {
		private, err := rsa.GenerateKey(rand.Reader, bits)
		lab.Must(t, err)
		s, err := ssh.NewSignerFromSigner(private)
		lab.Must(t, err)
		return s
	}
	carol := person{"carol", rsaKey(2048)}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	lab.Must(t, err)
	signer, err := ssh.NewSignerFromSigner(p384)
	lab.Must(t, err)
	dave := person{"dave", signer}
	k.admit(alice, bob, carol, dave)
	s := newSpeaker(k, lab.Server4)
	for _, p := range []person{alice, bob, carol, dave} {
		s.opens(p.name, s.good(p.signer))
	}
	first := s.opens("again", s.good(alice.signer))

	change := func(f func(w *wire)) wire { w := s.good(alice.signer); f(&w); return w }
	flip := func(i int) func([]byte) { return func(b []byte) { b[i] ^= 1 } }
	refused := map[string]wire{
		"short by one":        change(func(w *wire) { w.sent = func(b []byte) []byte { return b[:len(b)-1] } }),
		"long by one":         change(func(w *wire) { w.sent = func(b []byte) []byte { return append(b, 0) } }),
		"tag":                 change(func(w *wire) { w.sent = func(b []byte) []byte { b[3] ^= 1; return b } }),
		"enc":                 change(func(w *wire) { w.sealed = func(enc, _ []byte) { enc[5] ^= 1 } }),
		"ct":                  change(func(w *wire) { w.sealed = func(_, ct []byte) { ct[5] ^= 1 } }),
		"version":             change(func(w *wire) { w.version = 2 }),
		"what 0":              change(func(w *wire) { w.what = 0 }),
		"what 3":              change(func(w *wire) { w.what = 3 }),
		"another door":        change(func(w *wire) { w.door = "vpn" }),
		"three minutes late":  change(func(w *wire) { w.at -= 180_000 }),
		"three minutes early": change(func(w *wire) { w.at += 180_000 }),
		"time 0":              change(func(w *wire) { w.at = 0 }),
		"time at the end":     change(func(w *wire) { w.at = 1<<64 - 1 }),
		"time beyond int64":   change(func(w *wire) { w.at = 1 << 63 }),
		"another address":     change(func(w *wire) { w.source = netip.MustParseAddr("192.0.2.99").As16() }),
		"an IPv6 address":     change(func(w *wire) { w.source = netip.MustParseAddr("2001:db8::99").As16() }),
		"another host":        change(func(w *wire) { w.host = bytes.Repeat([]byte{9}, 32) }),
		"signed for another":  change(func(w *wire) { w.signed = flip(20) }),
		"another enc":         change(func(w *wire) { w.signed = flip(50) }),
		"window changed":      change(func(w *wire) { w.plain = flip(3) }),
		"door changed":        change(func(w *wire) { w.plain = flip(12) }),
		"time changed":        change(func(w *wire) { w.plain = flip(11) }),
		"signature changed":   change(func(w *wire) { w.plain = flip(80) }),
		"signature cut":       change(func(w *wire) { w.plain = func(p []byte) { p[69]-- } }),
		"signature extended":  change(func(w *wire) { w.plain = func(p []byte) { p[69]++ } }),
		"no signature":        change(func(w *wire) { w.plain = func(p []byte) { p[69] = 0 } }),
		"huge signature":      change(func(w *wire) { w.plain = func(p []byte) { p[68] = 0xff } }),
		"padding":             change(func(w *wire) { w.plain = func(p []byte) { p[len(p)-1] = 1 } }),
		"namespace":           change(func(w *wire) { w.namespace = "file" }),
		"nobody":              change(func(w *wire) { w.signer = mallory.signer }),
		"as somebody else":    change(func(w *wire) { w.key = bob.signer.PublicKey() }),
		"RSA with SHA-256":    func() wire { w := s.good(carol.signer); w.algorithm = ssh.KeyAlgoRSASHA256; return w }(),
		"RSA with SHA-1":      func() wire { w := s.good(carol.signer); w.algorithm = ssh.KeyAlgoRSA; return w }(),
		"a wrong certificate": func() wire {
			w := s.good(alice.signer)
			w.long = true
			w.plain = func(p []byte) { binary.BigEndian.PutUint16(p[70+64:], 300) }
			return w
		}(),
		"huge certificate": func() wire {
			w := s.good(alice.signer)
			w.long = true
			w.plain = func(p []byte) { binary.BigEndian.PutUint16(p[70+64:], 0xffff) }
			return w
		}(),
	}
	for name, w := range refused {
		s.send(w.datagram(t))
		s.opens("after "+name, s.good(bob.signer))
	}
	s.send(first)
	s.send(string(make([]byte, 1168)))
	s.opens("after a replay", s.good(bob.signer))
	s.d.WaitFor("replayed", "person=alice")
}

// The address inside is that of the packet, of either version of IP, or there is none.
func TestTheWireFormatBindsTheAddress(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(server.String(), func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t)
			alice := newPerson(t, "alice")
			k.admit(alice)
			s := newSpeaker(k, server)
			bound := func(to netip.Addr) wire {
				w := s.good(alice.signer)
				w.source = to.As16()
				return w
			}
			s.opens("without an address", s.good(alice.signer))
			s.opens("with its address", bound(lab.Source(s.n+1, server)))
			other := lab.Server6
			if server == lab.Server6 {
				other = lab.Server4
			}
			for _, to := range []netip.Addr{
				lab.Source(999, server), lab.Source(s.n+1, other), server, // the next source, in the other version
				netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::1"),
			} {
				from := s.send(bound(to).datagram(t))
				s.d.WaitFor("reset", "source="+from.String()+" ", "person=alice", "code=not-from")
				s.opens("after one for "+to.String(), s.good(alice.signer))
				if k.AdmitsAtOnce(from, server, 22) {
					t.Errorf("a datagram for %s lets %s in", to, from)
				}
			}
		})
	}
}

// A copied datagram is refused by the next daemon, whether the one before was stopped,
// killed, or ended with the host, which leaves the files and nothing in the kernel.
func TestTheWireFormatIsGoodOnceAcrossRestarts(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(server.String(), func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t)
			alice, ca := newPerson(t, "alice"), newPerson(t, "ca")
			lab.WriteFile(t, k.path("people"), "cert-authority "+publicLine(ca)+publicLine(alice), 0o600)
			s := newSpeaker(k, server)
			by := s.certified(newPerson(t, "bob"), ca, nil)
			var copies []string
			s.opens("alice", s.good(alice.signer))
			for name, end := range map[string]func(){
				"a restart": func() { s.d.Stop(syscall.SIGTERM) },
				"kill -9":   func() { s.d.Stop(syscall.SIGKILL) },
				"a restart of the host": func() {
					s.d.Stop(syscall.SIGKILL)
					k.Nft("delete", "table", "inet", "knockwall")
				},
			} {
				// One datagram that was taken right before the end, and one with a certificate.
				copies = append(copies, s.opens("before "+name, by()), s.opens("before "+name, s.good(alice.signer)))
				end()
				s.starts()
				for _, datagram := range copies {
					from := s.send(datagram)
					s.d.WaitFor("replayed", "source="+from.String()+" ")
					if k.AdmitsAtOnce(from, server, 22) {
						t.Errorf("after %s a copy lets in", name)
					}
				}
				s.opens("after "+name, s.good(alice.signer))
				s.opens("after "+name, by())
			}
		})
	}
}

// publicLine returns a person's line of a people file.
func publicLine(p person) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p.signer.PublicKey()))) + " " + p.name + "\n"
}

// certificate returns a certificate of a person by an authority, with that person's name.
func certificate(t testing.TB, p, ca person, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{
		Key: p.signer.PublicKey(), Serial: 5, CertType: ssh.UserCert, KeyId: p.name, ValidPrincipals: []string{"ops"},
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if change != nil {
		change(c)
	}
	lab.Must(t, c.SignCert(rand.Reader, ca.signer))
	return c
}

// certified returns what makes knocks with a certificate.
func (s *speaker) certified(p, ca person, change func(*ssh.Certificate)) func() wire {
	s.T.Helper()
	c := certificate(s.T, p, ca, change).Marshal()
	return func() wire {
		w := s.good(p.signer)
		w.long, w.certificate = true, c
		return w
	}
}

// Certificates let in by what their authority says, and others neither let in nor are told.
func TestTheWireFormatHasCertificates(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	ca, strangers, alice := newPerson(t, "ca"), newPerson(t, "strangers"), newPerson(t, "alice")
	lab.WriteFile(t, k.path("people"), `cert-authority,principals="ops,dev" `+publicLine(ca)+publicLine(alice), 0o600)
	revoked := newPerson(t, "revoked-key")
	lab.WriteFile(t, k.path("revoked"), "serial: 70-79\nid: revoked-id\n"+publicLine(revoked), 0o600)
	k.rules = k.WriteRules(fmt.Sprintf(`
wall { identity = %q }
door "ssh" {
  ports  = [22]
  window = "1h"
  keys {
    authorized = [%q]
    revoked    = [%q]
  }
}
`, k.path("identity"), k.path("people"), k.path("revoked")))
	s := newSpeaker(k, lab.Server4)

	var good func() wire
	for name, change := range map[string]func(*ssh.Certificate){
		"one-principal":  nil,
		"two-principals": func(c *ssh.Certificate) { c.ValidPrincipals = []string{"web", "dev"} },
		"for-ever":       func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity },
		"extensions":     func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-pty": "", "unknown@example": "x"} },
		"source-address": func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": lab.Many4.String()}
		},
		"serial-80": func(c *ssh.Certificate) { c.Serial = 80 },
	} {
		good = s.certified(newPerson(t, name), ca, change)
		s.opens(name, good())
		s.d.WaitFor("opened", "person="+name+" ")
	}

	hour := uint64(time.Hour / time.Second)
	for name, tt := range map[string]struct {
		code   string
		change func(*ssh.Certificate)
	}{
		"wrong-principal": {"not-allowed", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"web"} }},
		"no-principal":    {"not-allowed", func(c *ssh.Certificate) { c.ValidPrincipals = nil }},
		"expired":         {"expired", func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = c.ValidAfter-hour, c.ValidAfter }},
		"not-yet":         {"expired", func(c *ssh.Certificate) { c.ValidAfter = c.ValidBefore - 1 }},
		"of-a-host":       {"not-allowed", func(c *ssh.Certificate) { c.CertType = ssh.HostCert }},
		"first-serial":    {"not-allowed", func(c *ssh.Certificate) { c.Serial = 70 }},
		"last-serial":     {"not-allowed", func(c *ssh.Certificate) { c.Serial = 79 }},
		"revoked-id":      {"not-allowed", nil},
		"elsewhere": {"not-from", func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": "203.0.113.0/24"}
		}},
		"moon": {"not-allowed", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"moon-phase": "full"} }},
	} {
		datagram := s.certified(newPerson(t, name), ca, tt.change)().datagram(t)
		s.d.WaitFor("reset", "source="+s.send(datagram).String()+" ", "person="+name+" ", "code="+tt.code)
		s.opens("after "+name, good())
	}
	s.d.WaitFor("reset", "source="+s.send(s.certified(revoked, ca, nil)().datagram(t)).String()+" ", "person=revoked-key ", "code=not-allowed")

	bob := newPerson(t, "bob")
	slow, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	lab.Must(t, err)
	slowSigner, err := ssh.NewSignerFromSigner(slow)
	lab.Must(t, err)
	forged := certificate(t, bob, strangers, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ops"} })
	forged.SignatureKey = ca.signer.PublicKey()
	for name, w := range map[string]wire{
		"of another authority":            s.certified(bob, strangers, nil)(),
		"of another authority, P-521":     s.certified(person{"slow", slowSigner}, strangers, nil)(),
		"made up":                         func() wire { w := good(); w.signer, w.certificate = bob.signer, forged.Marshal(); return w }(),
		"signed with a key it is not of":  func() wire { w := good(); w.signer = bob.signer; return w }(),
		"of the key, and another signs":   func() wire { w := good(); w.key, w.signer = w.signer.PublicKey(), bob.signer; return w }(),
		"no certificate in the long form": func() wire { w := good(); w.certificate = nil; return w }(),
		"cut":                             func() wire { w := good(); w.certificate = w.certificate[:len(w.certificate)-1]; return w }(),
		"with more behind it":             func() wire { w := good(); w.certificate = append(bytes.Clone(w.certificate), 0); return w }(),
		"a key in place of a certificate": func() wire { w := good(); w.certificate = w.signer.PublicKey().Marshal(); return w }(),
		"the authority's own key":         s.good(ca.signer),
		"a certificate of a listed key":   s.certified(alice, strangers, nil)(),
		"the certificate of another":      func() wire { w := s.good(alice.signer); w.long, w.certificate = true, good().certificate; return w }(),
		"changed after it was signed": func() wire {
			w := good()
			c := bytes.Clone(w.certificate)
			c[len(c)/2] ^= 1
			w.certificate = c
			return w
		}(),
		"random bytes for the certificate": func() wire { w := good(); w.certificate = bytes.Repeat([]byte{0xff}, 900); return w }(),
	} {
		from := s.send(w.datagram(t))
		s.opens("after one "+name, good())
		if n := s.d.Logged("source=" + from.String() + " "); n != 0 {
			t.Errorf("%s: told %d times", name, n)
		}
	}
}
