package spa

import (
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"
)

// Signer signs with a key of ssh. It returns a signature of the data, with SHA-512 if the
// key is an RSA key.
type Signer func(data []byte) (*ssh.Signature, error)

// Seal makes the datagram of a knock for a host. key is the public key with which sign
// signs, or its certificate.
func Seal(to Public, k Knock, key ssh.PublicKey, sign Signer) ([]byte, error) {
	pub, err := to.key()
	if err != nil {
		return nil, err
	}
	kdf, aead := suite()
	share, sender, err := hpke.NewSender(pub, kdf, aead, []byte(label))
	if err != nil {
		return nil, err
	}
	var certificate []byte
	if c, ok := key.(*ssh.Certificate); ok {
		certificate, key = c.Marshal(), c.Key
	}
	signed, err := k.signedPart(key)
	if err != nil {
		return nil, err
	}
	signature, err := sign(preimage(to, share, signed))
	if err != nil {
		return nil, err
	}
	if want := signatureFormat(key); signature.Format != want {
		return nil, fmt.Errorf("the key signed with %q and not with %q", signature.Format, want)
	}
	content, err := contentOf(signed, append(signature.Blob[:len(signature.Blob):len(signature.Blob)], signature.Rest...), certificate)
	if err != nil {
		return nil, err
	}
	ciphertext, err := sender.Seal(nil, content)
	if err != nil {
		return nil, err
	}
	masked := mask(derive(to, maskLabel), share, ciphertext)
	datagram := append(append(make([]byte, tagSize, prefix+len(ciphertext)), masked[:]...), ciphertext...)
	mac := hmac.New(sha256.New, derive(to, macLabel))
	mac.Write(datagram[tagSize:])
	copy(datagram, mac.Sum(nil)[:tagSize])
	return datagram, nil
}

// signedPart returns the content before the signature's length.
func (k Knock) signedPart(key ssh.PublicKey) ([]byte, error) {
	seconds := k.Window / time.Second
	switch {
	case k.What != Open && k.What != Close:
		return nil, errors.New("a knock opens or closes")
	case seconds < 0 || seconds > maxWindow || k.Window%time.Second != 0:
		return nil, fmt.Errorf("a window is whole seconds, at most %d", maxWindow)
	}
	b := make([]byte, atSigned, longContent)
	b[atVersion], b[atWhat] = version, byte(k.What)
	binary.BigEndian.PutUint16(b[atWindow:], uint16(seconds))
	binary.BigEndian.PutUint64(b[atTime:], uint64(k.Time.UnixMilli()))
	copy(b[atDoor:], k.Door[:])
	if k.Source.IsValid() {
		source := k.Source.As16()
		copy(b[atSource:], source[:])
	}
	fingerprint := sha256.Sum256(key.Marshal())
	copy(b[atKey:], fingerprint[:])
	return b, nil
}

// contentOf completes the content, in the short form if it fits.
func contentOf(signed, signature, certificate []byte) ([]byte, error) {
	size := shortContent
	b := binary.BigEndian.AppendUint16(signed, uint16(len(signature)))
	b = append(b, signature...)
	if len(certificate) > 0 || len(b) > shortContent {
		size = longContent
		b = binary.BigEndian.AppendUint16(b, uint16(len(certificate)))
		b = append(b, certificate...)
	}
	if len(b) > size {
		return nil, fmt.Errorf("the signature and the certificate are %d bytes too large for one datagram. Use an ed25519 key, or a certificate with fewer principals", len(b)-size)
	}
	return append(b, make([]byte, size-len(b))...), nil
}

// preimage returns what is signed: the form of SSHSIG for the message of a knock.
func preimage(to Public, share, signed []byte) []byte {
	message := append([]byte(label), to[:]...)
	message = append(message, share...)
	return sshsig(append(message, signed...))
}
