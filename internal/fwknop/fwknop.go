// Package fwknop makes and reads the datagrams of fwknop 2.5 and later, called SPA (single
// packet authorization). It builds on every system.
//
// A datagram is text: an encrypted part in base64, then the base64 of an HMAC over it. The
// first 10 characters of the encrypted part are always the same, and are not sent. The HMAC
// counts them. Keys and initial vectors are derived as `openssl enc` does it (EVP_BytesToKey
// with MD5). Sources: the manuals fwknop(8) and fwknopd(8), and datagrams of the client
// 2.6.10.
//
// The package reads datagrams with an HMAC only. So it does not know the modes "legacy",
// which has none, and "asymmetric", which is GPG.
package fwknop

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// The limits of datagrams and keys, in bytes.
const (
	MinSize    = 140
	MaxSize    = 1500
	MaxKey     = 32
	MaxHMACKey = 128
)

// Port is the number of the UDP port that clients send to by default.
const Port = 62201

// Skew is how much the clocks of both sides may differ.
const Skew = 2 * time.Minute

// FirstBytes are the bytes with which a datagram can begin. The first character holds four
// fixed bits and two of the salt.
const FirstBytes = "+/89"

// unsent is how the base64 of every encrypted part begins: that of "Salted__".
const unsent = "U2FsdGVkX1"

// marker and saltSize are the beginning of the encrypted part.
const (
	marker   = "Salted__"
	saltSize = 8
)

// encoding is the base64 of datagrams. With decode it accepts only one text for the same
// bytes.
var encoding = base64.RawStdEncoding.Strict()

// decode decodes base64. It refuses the ends of lines, which package base64 skips.
func decode(text []byte) ([]byte, error) {
	if bytes.ContainsAny(text, "\r\n") {
		return nil, errForm
	}
	return encoding.AppendDecode(nil, text)
}

// HMAC is a kind of HMAC, by its hash.
type HMAC uint8

// The kinds of HMAC. The zero value is the clients' default.
const (
	SHA256 HMAC = iota
	MD5
	SHA1
	SHA384
	SHA512
	SHA3x256
	SHA3x512
)

// hashes has the names and functions of the kinds.
var hashes = [...]struct {
	name string
	make func() hash.Hash
	size int // in bytes
}{
	SHA256:   {"sha256", sha256.New, sha256.Size},
	MD5:      {"md5", md5.New, md5.Size},
	SHA1:     {"sha1", sha1.New, sha1.Size},
	SHA384:   {"sha384", sha512.New384, sha512.Size384},
	SHA512:   {"sha512", sha512.New, sha512.Size},
	SHA3x256: {"sha3_256", func() hash.Hash { return sha3.New256() }, 32},
	SHA3x512: {"sha3_512", func() hash.Hash { return sha3.New512() }, 64},
}

// ParseHMAC returns the kind with a name as in HMAC_DIGEST_TYPE, in any case: md5, sha1,
// sha256, sha384, sha512, sha3_256 or sha3_512.
func ParseHMAC(name string) (HMAC, error) {
	for kind, h := range hashes {
		if strings.EqualFold(name, h.name) {
			return HMAC(kind), nil
		}
	}
	return 0, errors.New("write md5, sha1, sha256, sha384, sha512, sha3_256 or sha3_512")
}

// String returns the name of the kind.
func (h HMAC) String() string { return hashes[h].name }

// textSize is the size of the HMAC in a datagram.
func (h HMAC) textSize() int { return encoding.EncodedLen(hashes[h].size) }

// Sizes returns the possible sizes of datagrams, in bytes and in ascending order.
func (h HMAC) Sizes() (sizes []uint16) {
	for n := len(marker) + saltSize + blockSize; ; n += blockSize {
		size := encoding.EncodedLen(n) - len(unsent) + h.textSize()
		if size > MaxSize {
			return sizes
		}
		if size >= MinSize {
			sizes = append(sizes, uint16(size))
		}
	}
}

// Kind is what a client asks for.
type Kind uint8

// The kinds.
const (
	Command  Kind = iota // to run a command
	Access               // to open ports
	NAT                  // to open ports that lead to another host
	LocalNAT             // to open ports that lead to another port of the host
)

// Request is the content of a datagram.
type Request struct {
	User    string // the client's user, or another name
	Time    time.Time
	Kind    Kind
	Source  netip.Addr    // the address to open for; not valid: that of the datagram
	Ports   []packet.Port // the ports to open; none for a Command
	To      NATTarget     // of NAT and LocalNAT
	Timeout time.Duration // how long to open, in whole seconds; 0: as the server says
}

// NATTarget is where a client wants ports to lead to.
type NATTarget struct {
	Host string // an address, or a name that the server resolves
	Port uint16
}

func (t NATTarget) String() string { return fmt.Sprintf("%s port %d", t.Host, t.Port) }

// Keys are the two keys that client and server share.
type Keys struct {
	Cipher []byte // 1 to MaxKey bytes
	HMAC   []byte // 1 to MaxHMACKey bytes
	Kind   HMAC
}

// ParseKey decodes KEY_BASE64 or HMAC_KEY_BASE64, with or without padding. most is the
// maximum size of the key in bytes. The error does not show the text.
func ParseKey(text []byte, most int) ([]byte, error) {
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(string(text), "="))
	switch {
	case err != nil:
		return nil, errors.New("this is not base64. fwknop --key-gen makes keys in base64. For a passphrase, write its base64: printf %s PASSPHRASE | base64")
	case len(key) == 0:
		return nil, errors.New("the key is empty")
	case len(key) > most:
		return nil, fmt.Errorf("the key has %d bytes. fwknop uses at most %d", len(key), most)
	}
	return key, nil
}
