package fwknop

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

const (
	version      = "3.0.0"
	randomDigits = 16
)

// Datagram returns a datagram that asks for ports, with random numbers of its own. It uses
// mode CBC and a SHA-256 digest, as clients do by default. Kind must be Access.
func Datagram(k Keys, r Request) ([]byte, error) {
	switch {
	case len(k.Cipher) == 0 || len(k.Cipher) > MaxKey || len(k.HMAC) == 0 || len(k.HMAC) > MaxHMACKey:
		return nil, errors.New("a key is missing or too long")
	case r.Kind != Access || len(r.Ports) == 0:
		return nil, errors.New("no ports are asked for")
	case r.User == "" || strings.ContainsFunc(r.User, func(c rune) bool { return c < ' ' || c > '~' }):
		return nil, errors.New("the user is missing, or is not printable ASCII")
	}
	number, err := rand.Int(rand.Reader, new(big.Int).Exp(big.NewInt(10), big.NewInt(randomDigits), nil))
	if err != nil {
		return nil, fmt.Errorf("making a random number: %w", err)
	}
	datagram := seal(k, withDigest(format(fmt.Sprintf("%0*d", randomDigits, number), r)))
	if len(datagram) > MaxSize {
		return nil, fmt.Errorf("the datagram would have %d bytes, and fwknop accepts at most %d: ask for fewer ports", len(datagram), MaxSize)
	}
	return datagram, nil
}

// withDigest appends the digest of content.
func withDigest(content string) string {
	digest := sha256.Sum256([]byte(content))
	return content + ":" + encoding.EncodeToString(digest[:])
}

// seal encrypts a text, and adds the HMAC.
func seal(k Keys, text string) []byte {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	plain := pad([]byte(text))
	block, iv := newCipher(k.Cipher, salt)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(plain, plain)

	return withHMAC(k, encoding.EncodeToString([]byte(marker+string(salt)+string(plain))))
}

// withHMAC returns the datagram of an encrypted part in base64.
func withHMAC(k Keys, sealed string) []byte {
	mac := hmac.New(hashes[k.Kind].make, k.HMAC)
	mac.Write([]byte(sealed))
	return []byte(sealed[len(unsent):] + encoding.EncodeToString(mac.Sum(nil)))
}

// format returns the content of a datagram.
func format(random string, r Request) string {
	source := "0.0.0.0"
	if r.Source.IsValid() {
		source = r.Source.Unmap().String()
	}
	message := []string{source}
	for _, p := range r.Ports {
		protocol := "tcp"
		if p.Protocol == packet.UDP {
			protocol = "udp"
		}
		message = append(message, protocol+"/"+strconv.Itoa(int(p.Number)))
	}
	kind := "1"
	if r.Timeout > 0 {
		kind = "3"
	}
	fields := []string{
		random, encoding.EncodeToString([]byte(r.User)), strconv.FormatInt(r.Time.Unix(), 10), version,
		kind, encoding.EncodeToString([]byte(strings.Join(message, ","))),
	}
	if r.Timeout > 0 {
		fields = append(fields, strconv.FormatInt(int64(r.Timeout.Seconds()), 10))
	}
	return strings.Join(fields, ":")
}
