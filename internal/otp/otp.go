// Package otp makes and checks one-time passwords in the format of xt_pknock, the netfilter
// match of xtables-addons for port knocking.
//
// A password is a UDP datagram with the 64 lowercase hex digits of
//
//	HMAC-SHA256(secret, source address ‖ Unix time / 60)
//
// and one byte that is ignored, usually a NUL or a newline. The address is the source
// address of the datagram, 4 or 16 bytes in network order. The time is in whole minutes,
// 4 bytes in little-endian order. Sources: has_secret in xt_pknock.c of xtables-addons,
// and the senders knock.sh and gen_hmac.py. There the time is in the byte order of the
// machine, which is little-endian on all machines that matter.
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
	Size      = 65 // size of a datagram in bytes
	MaxSecret = 31 // maximum size of a secret of xt_pknock in bytes
)

// Code is the HMAC in a password.
type Code [sha256.Size]byte

// Datagram returns the one-time password for a source at a time: 64 lowercase hex digits
// and a newline. The source must be a valid address, and the one that the receiver sees:
// behind NAT, the public address.
func Datagram(key []byte, source netip.Addr, at time.Time) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(appendMessage(nil, source, minute(at)))
	return append(hex.AppendEncode(nil, mac.Sum(nil)), '\n')
}

// appendMessage appends the message that the password authenticates: the source and the
// minute.
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

// minute returns the number of a minute of Unix time. The first minute of 1970 is 0.
func minute(at time.Time) int64 {
	seconds := at.Unix()
	m := seconds / 60
	if seconds%60 < 0 { // before 1970: division rounds towards zero
		m--
	}
	return m
}
