package lab

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// Password returns the digits of a one-time password. openssl computes them, so that the
// tests do not compare knockwall with itself. minute is in minutes of Unix time.
func (l *Lab) Password(key string, source netip.Addr, minute int64) string {
	l.T.Helper()
	openssl := exec.Command(NeedsProgram(l.T, "openssl"), "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString([]byte(key)))
	openssl.Stdin = bytes.NewReader(binary.LittleEndian.AppendUint32(source.AsSlice(), uint32(minute)))
	out, err := openssl.Output()
	Must(l.T, err)
	_, digits, _ := strings.Cut(strings.TrimSpace(string(out)), "= ")
	return digits
}

// PreparePassword computes the password of an address for this minute, and returns a
// function that sends it from the caller's host.
func (l *Lab) PreparePassword(key string, from, to netip.Addr, port uint16) func() error {
	l.T.Helper()
	password := l.Password(key, from, Minute()) + "\n"
	return func() error { return SendData(from, to, port, password) }
}

// Minute returns the current time in minutes of Unix time.
func Minute() int64 { return time.Now().Unix() / 60 }
