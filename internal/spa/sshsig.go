package spa

import (
	"crypto/sha512"
	"encoding/binary"

	"golang.org/x/crypto/ssh"
)

// sshsig returns the data that a key signs so that the signature is one of SSHSIG, for the
// namespace of knocks. Source: PROTOCOL.sshsig of OpenSSH, "Signed Data".
func sshsig(message []byte) []byte {
	sum := sha512.Sum512(message)
	b := []byte("SSHSIG")
	for _, s := range []string{namespace, "", hashAlgorithm, string(sum[:])} { // ssh.Marshal takes ten times as long
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

// signatureFormat returns the only signature format that a key may use: the newest of RSA,
// else the one with the name of the key's type.
func signatureFormat(key ssh.PublicKey) string {
	if key.Type() == ssh.KeyAlgoRSA {
		return ssh.KeyAlgoRSASHA512
	}
	return key.Type()
}

// isInHardware reports whether signatures of the key have flags and a counter.
func isInHardware(key ssh.PublicKey) bool {
	return key.Type() == ssh.KeyAlgoSKED25519 || key.Type() == ssh.KeyAlgoSKECDSA256
}
