package otp

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"net/netip"
	"time"
)

// MaxSkew is the maximum difference between the clocks of both sides.
const MaxSkew = 10 * time.Minute

// Verifier checks the passwords of one secret. It is not safe for concurrent use.
type Verifier struct {
	mac  hash.Hash
	skew time.Duration

	// Buffers that Verify reuses, so that it allocates nothing.
	message []byte
	sum     []byte
}

// NewVerifier returns a verifier for passwords that clients make with key, and with clocks
// that differ by up to skew. It limits skew to the range from 0 to MaxSkew.
func NewVerifier(key []byte, skew time.Duration) *Verifier {
	return &Verifier{
		mac:     hmac.New(sha256.New, key),
		skew:    min(max(skew, 0), MaxSkew),
		message: make([]byte, 0, len(netip.Addr{}.As16())+4),
		sum:     make([]byte, 0, sha256.Size),
	}
}

// Verify reports whether a datagram is a valid password for a source, and of which
// minute. The password of minute m is valid from 60m - skew until just before 60(m+1) +
// skew seconds of Unix time. The caller has to remember used codes while their minute is
// valid.
//
// Only a datagram of Size bytes that begins with 64 lowercase hex digits costs HMACs: one
// for each minute that skew allows, at most 21. All are computed, whichever matches.
func (v *Verifier) Verify(datagram []byte, source netip.Addr, now time.Time) (code Code, minuteOf int64, ok bool) {
	said, isCode := decode(datagram)
	if !isCode || !source.IsValid() {
		return Code{}, 0, false
	}
	last := minute(now.Add(v.skew))
	for m := minute(now.Add(-v.skew)); m <= last; m++ {
		v.message = appendMessage(v.message[:0], source, m)
		v.mac.Reset()
		v.mac.Write(v.message)
		v.sum = v.mac.Sum(v.sum[:0])
		if subtle.ConstantTimeCompare(v.sum, said[:]) == 1 {
			code, minuteOf, ok = said, m, true
		}
	}
	return code, minuteOf, ok
}

// decode reads the digits of a datagram. Unlike package encoding/hex, it refuses capitals.
func decode(datagram []byte) (code Code, ok bool) {
	if len(datagram) != Size {
		return Code{}, false
	}
	for i := range code {
		high, ok1 := digit(datagram[2*i])
		low, ok2 := digit(datagram[2*i+1])
		if !ok1 || !ok2 {
			return Code{}, false
		}
		code[i] = high<<4 | low
	}
	return code, true
}

func digit(c byte) (value byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
