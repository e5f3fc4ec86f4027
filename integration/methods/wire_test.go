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
	"net/netip"
	"strings"
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
	d := k.RunFile(k.rules)
	host, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(k.identity.Public().String(), "kw1:"))
	lab.Must(t, err)

	last := uint64(0)
	now := func() uint64 { // each is later than the one before
		last = max(last+1, uint64(time.Now().UnixMilli()))
		return last
	}
	good := func(p person) wire {
		w := wire{host: host, version: 1, what: 1, at: now(), door: "ssh", signer: p.signer, namespace: "knock@knockwall"}
		if p.name == "carol" {
			w.long, w.algorithm = true, ssh.KeyAlgoRSASHA512
		}
		w.long = w.long || p.name == "dave"
		return w
	}
	opened, n := uint64(0), 0
	source := func() netip.Addr { n++; return lab.Source(n, lab.Server4) }
	send := func(datagram string) netip.Addr {
		t.Helper()
		from := source()
		k.SendDatagram(from, lab.Server4, keyPort, datagram)
		return from
	}
	// opens sends what opens, and waits for it. All that was sent before it has been judged
	// then.
	opens := func(name string, w wire) string {
		t.Helper()
		datagram := w.datagram(t)
		d.WaitFor("opened", "source="+send(datagram).String()+" ")
		opened++
		if got := d.Status().Doors[0].Counters.Opened; got != opened {
			t.Fatalf("%s: %d windows were opened, not %d", name, got, opened)
		}
		return datagram
	}
	for _, p := range []person{alice, bob, carol, dave} {
		opens(p.name, good(p))
	}
	first := opens("again", good(alice))

	change := func(f func(w *wire)) wire { w := good(alice); f(&w); return w }
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
		"RSA with SHA-256":    func() wire { w := good(carol); w.algorithm = ssh.KeyAlgoRSASHA256; return w }(),
		"RSA with SHA-1":      func() wire { w := good(carol); w.algorithm = ssh.KeyAlgoRSA; return w }(),
		"a wrong certificate": func() wire {
			w := good(alice)
			w.long = true
			w.plain = func(p []byte) { binary.BigEndian.PutUint16(p[70+64:], 300) }
			return w
		}(),
		"huge certificate": func() wire {
			w := good(alice)
			w.long = true
			w.plain = func(p []byte) { binary.BigEndian.PutUint16(p[70+64:], 0xffff) }
			return w
		}(),
	}
	for name, w := range refused {
		send(w.datagram(t))
		opens("after "+name, good(bob))
	}
	send(first)
	send(string(make([]byte, 1168)))
	opens("after a replay", good(bob))
	d.WaitFor("replayed", "person=alice")
}
