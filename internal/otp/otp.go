// Package otp makes and checks one-time passwords as xt_pknock takes them, the
// netfilter match of xtables-addons, to whose knocks they add a secret.
//
// One is a UDP datagram: the 64 lowercase hex digits of
//
//	HMAC-SHA256(secret, source address ‖ Unix time / 60)
//
// and a byte that is not looked at, a NUL or a newline. The address is the one
// that the datagram comes from, 4 or 16 bytes in network order; the time is in
// whole minutes, 4 bytes in little-endian order. Source: has_secret in
// xtables-addons' xt_pknock.c, and knock.sh and gen_hmac.py, which send it. There
// the order of the time's bytes is that of the machine: all that matter are
// little-endian.
package otp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"time"
)

const (
	Size      = 65 // bytes of a datagram
	MaxSecret = 31 // bytes of a secret that xt_pknock can be told
)

// Code is what the digits of a password say.
type Code [sha256.Size]byte

// Datagram returns the one-time password for a source at a time, 64 lowercase hex
// digits and a newline. The source is a valid address, and that which the receiver
// sees: behind NAT, the public one.
func Datagram(key []byte, source netip.Addr, at time.Time) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(appendMessage(nil, source, minute(at)))
	return append(hex.AppendEncode(nil, mac.Sum(nil)), '\n')
}

// appendMessage appends what a password vouches for: the source and the minute.
func appendMessage(b []byte, source netip.Addr, minute int64) []byte {
	if source = source.Unmap(); source.Is4() {
		address := source.As4()
		b = append(b, address[:]...)
	} else {
		address := source.As16()
		b = append(b, address[:]...)
	}
	return binary.LittleEndian.AppendUint32(b, uint32(minute))
}

// minute returns the minute of Unix time that at is in: 0 is the first of 1970.
func minute(at time.Time) int64 {
	seconds := at.Unix()
	m := seconds / 60
	if seconds%60 < 0 { // before 1970: division rounds towards zero
		m--
	}
	return m
}
