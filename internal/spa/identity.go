package spa

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Public is the public half of a host's identity: an X25519 public key. It lets its holder
// recognise datagrams for the host, and make some that cost the host a few microseconds. It
// opens nothing.
type Public [32]byte

// publicPrefix begins the text of a public identity, and PrivatePrefix the line in an identity
// file. The number is the version of the wire format.
const (
	publicPrefix  = "kw1:"
	PrivatePrefix = "kw1-private:"
)

var encoding = base64.RawURLEncoding.Strict()

// String returns the identity as hosts files and invitations have it: "kw1:" and base64url.
func (p Public) String() string { return publicPrefix + encoding.EncodeToString(p[:]) }

// ParsePublic parses the result of String.
func ParsePublic(s string) (p Public, err error) {
	text, ok := strings.CutPrefix(s, publicPrefix)
	if !ok {
		if strings.HasPrefix(s, PrivatePrefix) {
			return p, errors.New("this is a private identity. Write the public one, which `knockwall identity` prints")
		}
		return p, fmt.Errorf("a public identity begins with %q, as `knockwall identity` prints it", publicPrefix)
	}
	b, err := encoding.DecodeString(text)
	if err != nil || len(b) != len(p) {
		return p, fmt.Errorf("a public identity is %q and %d characters, as `knockwall identity` prints it", publicPrefix, encoding.EncodedLen(len(p)))
	}
	p = Public(b)
	return p, p.check()
}

// check returns an error for keys of small order. With these, everybody could read what is
// sealed to them.
func (p Public) check() error {
	pub, err := ecdh.X25519().NewPublicKey(p[:])
	if err != nil {
		return err
	}
	throwaway, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if _, err := throwaway.ECDH(pub); err != nil {
		return errors.New("this public identity is no key that a host can have")
	}
	return nil
}

// key returns the key for HPKE.
func (p Public) key() (hpke.PublicKey, error) {
	pub, err := ecdh.X25519().NewPublicKey(p[:])
	if err != nil {
		return nil, err
	}
	return hpke.NewDHKEMPublicKey(pub)
}

// Identity is the private half of a host's identity. It prints as its public half.
type Identity struct{ private *ecdh.PrivateKey }

// NewIdentity returns a random identity.
func NewIdentity() (Identity, error) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	return Identity{private}, err
}

// ParseIdentity parses the content of an identity file. Its errors do not quote it.
func ParseIdentity(text []byte) (Identity, error) {
	s, ok := strings.CutPrefix(strings.TrimSpace(string(text)), PrivatePrefix)
	if !ok {
		if strings.HasPrefix(string(text), publicPrefix) {
			return Identity{}, errors.New("it holds a public identity. The host needs the private one, which `knockwall identity` makes")
		}
		return Identity{}, errors.New("it holds no identity of a host. `knockwall identity` makes one")
	}
	b, err := encoding.DecodeString(s)
	if err != nil {
		return Identity{}, errors.New("it holds a damaged identity")
	}
	private, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		return Identity{}, errors.New("it holds a damaged identity")
	}
	return Identity{private}, nil
}

// IsSet reports whether this is an identity and not the zero value.
func (i Identity) IsSet() bool { return i.private != nil }

// Text returns what the identity file holds: a secret.
func (i Identity) Text() []byte {
	return []byte(PrivatePrefix + encoding.EncodeToString(i.private.Bytes()) + "\n")
}

// Public returns the public half.
func (i Identity) Public() Public { return Public(i.private.PublicKey().Bytes()) }

// String returns the public half, so that no message contains the private one.
func (i Identity) String() string {
	if !i.IsSet() {
		return "no identity"
	}
	return i.Public().String()
}

// Format prints String for every verb.
func (i Identity) Format(f fmt.State, _ rune) { fmt.Fprint(f, i.String()) }
