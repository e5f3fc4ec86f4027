// Package spa is the wire format of knocks that are signed with an ssh key: one UDP
// datagram, sealed to the public identity of a host.
//
// A datagram is, in bytes:
//
//	 0  16    tag: HMAC-SHA-256 of all that follows, shortened
//	16  32    the sender's ephemeral X25519 share, masked
//	48  n+16  the content, encrypted by HPKE (RFC 9180) in base mode with
//	          DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305
//
// The keys of the tag and of the mask follow from the host's public identity, so only those
// who have it can tell a datagram from random bytes. The mask hides that the highest bit of
// an X25519 share is always 0.
//
// The content is, with integers in network byte order, padded with zeros to n bytes:
//
//	 0    1  version, 1
//	 1    1  what is asked for: 1 open, 2 close
//	 2    2  length of the window in seconds; 0: as long as the door says
//	 4    8  time, Unix milliseconds
//	12    8  first bytes of the SHA-256 of the door's name
//	20   16  source address to open for, IPv4 mapped into IPv6; zero: that of the packet
//	36   32  SHA-256 of the key's public blob
//	68    2  length s of the signature
//	70    s  signature: the blob of ssh, with flags and counter if the key is in hardware
//	70+s  2  length c of the certificate; 0: none (long form only)
//	72+s  c  the certificate
//
// The signature is of SSHSIG (PROTOCOL.sshsig of OpenSSH). It covers the host's public
// identity, the share, and the content before the signature's length, so that no other host
// accepts the datagram.
package spa

import (
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"net/netip"
	"time"
)

// The sizes of the datagrams, in bytes. The short form has a signature of ed25519 or of
// ECDSA with P-256, in hardware or not. The long form has all others, and certificates. It
// fits the smallest MTU of IPv6, 1280 bytes.
const (
	ShortSize = prefix + shortContent + overhead
	LongSize  = prefix + longContent + overhead
)

const (
	tagSize      = 16
	shareSize    = 32
	prefix       = tagSize + shareSize
	overhead     = 16 // of ChaCha20-Poly1305
	shortContent = 152
	longContent  = 1104
)

// The fields of the content.
const (
	version = 1

	atVersion     = 0
	atWhat        = 1
	atWindow      = 2
	atTime        = 4
	atDoor        = 12
	atSource      = 20
	atKey         = 36
	atSigned      = 68 // end of the signed part
	atSignature   = 70
	lengthSize    = 2
	maxShortBlob  = shortContent - atSignature
	maxWindow     = 1<<16 - 1 // seconds
	doorHashSize  = 8
	namespace     = "knock@knockwall"
	hashAlgorithm = "sha512"
)

// The labels of everything that is derived.
const (
	label     = "knockwall spa v1"
	macLabel  = label + " mac"
	maskLabel = label + " mask"
)

// suite returns the key derivation and the encryption of HPKE.
func suite() (hpke.KDF, hpke.AEAD) { return hpke.HKDFSHA256(), hpke.ChaCha20Poly1305() }

// What is what a knock asks for.
type What byte

// The two requests.
const (
	Open  What = 1
	Close What = 2
)

// Knock is a request.
type Knock struct {
	What What
	// Window is how long the window should be open, in whole seconds up to 65535. Zero means
	// as long as the door says.
	Window time.Duration
	Time   time.Time // to the millisecond
	Door   DoorHash
	// Source is the address to open for. The zero Addr means the address that the datagram
	// comes from.
	Source netip.Addr
}

// DoorHash stands for the name of a door.
type DoorHash [doorHashSize]byte

// HashDoor returns the hash of a door's name.
func HashDoor(name string) DoorHash {
	sum := sha256.Sum256([]byte(name))
	return DoorHash(sum[:])
}

// derive returns the key that follows from a public identity for a label.
func derive(p Public, label string) []byte {
	mac := hmac.New(sha256.New, p[:])
	mac.Write([]byte(label))
	return mac.Sum(nil)
}

// mask masks a share, or removes the mask. key is derived for maskLabel, and ciphertext is
// the encrypted content.
func mask(key, share, ciphertext []byte) (masked [shareSize]byte) {
	mac := hmac.New(sha256.New, key)
	mac.Write(ciphertext)
	for i, b := range mac.Sum(nil) {
		masked[i] = share[i] ^ b
	}
	return masked
}
