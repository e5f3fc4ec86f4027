package spa

import (
	"bytes"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Screen recognises datagrams for a host by their tag. One goroutine at a time may use it.
type Screen struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

// NewScreen returns a Screen for a host.
func NewScreen(host Public) *Screen {
	return &Screen{mac: hmac.New(sha256.New, derive(host, macLabel))}
}

// Passes reports whether a datagram has the size and the tag of a knock for the host. Then
// its sender knows the host's public identity. It takes less than a microsecond and
// allocates nothing.
func (s *Screen) Passes(datagram []byte) bool {
	if len(datagram) != ShortSize && len(datagram) != LongSize {
		return false
	}
	s.mac.Reset()
	s.mac.Write(datagram[tagSize:])
	return hmac.Equal(s.mac.Sum(s.sum[:0])[:tagSize], datagram[:tagSize])
}

// Opener decrypts datagrams. It is safe for concurrent use. It remembers the last few, as
// each door at a port gets the same datagram.
type Opener struct {
	host    Public
	private hpke.PrivateKey
	mask    []byte // its key

	mu   sync.Mutex
	last [remembered]result
	next int // index of the oldest in last
}

const remembered = 4

// result is what Open returned for a datagram.
type result struct {
	datagram []byte
	sealed   *Sealed
	err      error
}

// NewOpener returns an Opener with the private identity of a host.
func NewOpener(i Identity) (*Opener, error) {
	private, err := hpke.NewDHKEMPrivateKey(i.private)
	if err != nil {
		return nil, err
	}
	return &Opener{host: i.Public(), private: private, mask: derive(i.Public(), maskLabel)}, nil
}

// Public returns the public identity of the host.
func (o *Opener) Public() Public { return o.host }

// Sealed is the content of a datagram. Nothing in it is true until [Sealed.Verify] has
// checked its signature.
type Sealed struct {
	Knock
	Fingerprint [sha256.Size]byte // SHA-256 of the public blob of the key that signed
	Certificate []byte            // of that key, in the wire format of ssh; nil: none

	signature []byte
	preimage  []byte
}

// errNotSealed is the error for datagrams that were not made by Seal.
var errNotSealed = errors.New("not a knock that is sealed to this host")

// Open decrypts a datagram that passed a [Screen]. It takes about 70 microseconds. The
// content aliases nothing of the datagram, and is not to be changed.
func (o *Opener) Open(datagram []byte) (*Sealed, error) {
	o.mu.Lock()
	for i := range o.last {
		if r := &o.last[i]; r.datagram != nil && bytes.Equal(r.datagram, datagram) {
			defer o.mu.Unlock()
			return r.sealed, r.err
		}
	}
	o.mu.Unlock()
	s, err := o.open(datagram)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last[o.next] = result{append(o.last[o.next].datagram[:0], datagram...), s, err}
	o.next = (o.next + 1) % remembered
	return s, err
}

func (o *Opener) open(datagram []byte) (*Sealed, error) {
	if len(datagram) != ShortSize && len(datagram) != LongSize {
		return nil, errNotSealed
	}
	ciphertext := datagram[prefix:]
	share := mask(o.mask, datagram[tagSize:prefix], ciphertext)
	kdf, aead := suite()
	recipient, err := hpke.NewRecipient(share[:], o.private, kdf, aead, []byte(label))
	if err != nil {
		return nil, errNotSealed
	}
	content, err := recipient.Open(nil, ciphertext)
	if err != nil {
		return nil, errNotSealed
	}
	s, err := parse(content)
	if err != nil {
		return nil, err
	}
	s.preimage = preimage(o.host, share[:], content[:atSigned])
	return s, nil
}

// parse parses the content of a datagram.
func parse(b []byte) (*Sealed, error) {
	if b[atVersion] != version {
		return nil, fmt.Errorf("version %d of the format is unknown", b[atVersion])
	}
	s := &Sealed{Knock: Knock{
		What:   What(b[atWhat]),
		Window: time.Duration(binary.BigEndian.Uint16(b[atWindow:])) * time.Second,
		Door:   DoorHash(b[atDoor:]),
	}, Fingerprint: [sha256.Size]byte(b[atKey:])}
	if s.What != Open && s.What != Close {
		return nil, fmt.Errorf("request %d is unknown", b[atWhat])
	}
	ms := binary.BigEndian.Uint64(b[atTime:])
	if ms > math.MaxInt64 {
		return nil, errors.New("the time is out of range")
	}
	s.Time = time.UnixMilli(int64(ms))
	if source := b[atSource:atKey]; !isZero(source) {
		s.Source = netip.AddrFrom16([16]byte(source)).Unmap()
	}
	rest := b[atSigned:]
	var ok bool
	if s.signature, rest, ok = cutField(rest); !ok {
		return nil, errors.New("the signature is longer than the datagram")
	}
	if len(b) == longContent {
		if s.Certificate, rest, ok = cutField(rest); !ok {
			return nil, errors.New("the certificate is longer than the datagram")
		}
	}
	if !isZero(rest) {
		return nil, errors.New("the padding is not zero")
	}
	return s, nil
}

// cutField cuts a field with its length from b. An empty field is nil.
func cutField(b []byte) (field, rest []byte, ok bool) {
	if len(b) < lengthSize {
		return nil, b, false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[lengthSize:]
	if n > len(b) {
		return nil, b, false
	}
	if n == 0 {
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// hardwareRest is the size of the flags and the counter of a hardware key's signature.
const hardwareRest = 5

// userVerified is the flag of a signature whose key has checked its user. Source:
// PROTOCOL.u2f of OpenSSH.
const userVerified = 4

// UserVerified reports whether the key is in hardware, and has checked its user by a PIN or
// fingerprint for this signature. It is true only if Verify has returned nil.
func (s *Sealed) UserVerified(key ssh.PublicKey) bool {
	at := len(s.signature) - hardwareRest
	return isInHardware(key) && at >= 0 && s.signature[at]&userVerified != 0
}

// Verify checks the signature. The caller has found the key by the Fingerprint. A hardware key
// must have been touched for it.
func (s *Sealed) Verify(key ssh.PublicKey) error {
	signature := ssh.Signature{Format: signatureFormat(key), Blob: s.signature}
	if isInHardware(key) {
		at := len(s.signature) - hardwareRest
		if at < 0 {
			return errors.New("the signature is too short")
		}
		signature.Blob, signature.Rest = s.signature[:at], s.signature[at:]
	}
	return key.Verify(s.preimage, &signature)
}
