package sshkeys

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/internal/ownership"
)

// maxFileSize is the maximum size of a key file in bytes. RSA keys of 16384 bits fit.
const maxFileSize = 64 << 10

// readPublic reads the file of a public key or certificate.
func readPublic(path string) (ssh.PublicKey, error) {
	text, _, err := read(path)
	if err != nil {
		return nil, err
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not a public key of ssh", path)
	}
	return public, nil
}

// attempts is how often the user may mistype a passphrase, as with ssh.
const attempts = 3

// readPrivate reads the file of a private key.
func readPrivate(path string, ask Ask) (*Key, error) {
	text, mode, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the ssh-agent does not have the key %s.pub, and the file of its private key does not exist: ssh-add it", path)
	}
	if err != nil {
		return nil, err
	}
	if mode&0o077 != 0 {
		return nil, fmt.Errorf("others can read or write the private key %s: run chmod 600 %[1]s", path)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
		signer, err = decrypt(path, text, ask)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the private key %s: %w", path, err)
	}
	return &Key{signer.PublicKey(), path, func(data []byte) (*ssh.Signature, error) {
		if rsa, ok := signer.(ssh.AlgorithmSigner); ok && signer.PublicKey().Type() == ssh.KeyAlgoRSA {
			return rsa.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
		}
		return signer.Sign(rand.Reader, data)
	}}, nil
}

func decrypt(path string, text []byte, ask Ask) (signer ssh.Signer, err error) {
	for range attempts {
		passphrase, err := ask(fmt.Sprintf("Passphrase of %s: ", path))
		if err != nil {
			return nil, err
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(text, passphrase)
		clear(passphrase)
		if !errors.Is(err, x509.IncorrectPasswordError) {
			return signer, err
		}
	}
	return nil, errors.New("the passphrase is wrong")
}

// read reads a small file and returns its permission bits.
func read(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(text) > maxFileSize {
		err = fmt.Errorf("%s is too large for a key of ssh", path)
	}
	return text, ownership.Mode(info), err
}
