// Package sshkeys finds the ssh keys with which the user of this machine can sign: in an
// ssh-agent, or in files as ssh-keygen writes them.
package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Key is a key that can sign.
type Key struct {
	Public ssh.PublicKey // the key, or its *ssh.Certificate
	From   string        // where it is, for people: "the agent, alice@laptop"
	// Sign signs with the key. RSA keys sign with rsa-sha2-512. A key in hardware waits until
	// somebody touches it.
	Sign func(data []byte) (*ssh.Signature, error)
}

// String names the key as ssh-keygen -l does, and says where it is.
func (k Key) String() string {
	public, what := k.Public, ""
	if c, ok := public.(*ssh.Certificate); ok {
		public, what = c.Key, fmt.Sprintf(", with the certificate of %q", c.KeyId)
	}
	return fmt.Sprintf("%s %s of %s%s", public.Type(), ssh.FingerprintSHA256(public), k.From, what)
}

// IsInHardware reports whether somebody has to touch a key for each signature.
func (k Key) IsInHardware() bool { return isInHardware(k.Public) }

func isInHardware(public ssh.PublicKey) bool { return strings.HasPrefix(keyType(public), "sk-") }

// Ring holds keys.
type Ring struct {
	Keys  []Key
	agent io.Closer
}

// Close closes the connection to the agent. The keys cannot sign any more.
func (r *Ring) Close() error {
	if r.agent == nil {
		return nil
	}
	return r.agent.Close()
}

// mostKeys is the number of the agent's keys that are used, as many as sshd lets a client
// try.
const mostKeys = 6

// defaults are the key files of ssh that are used without an agent, the first that exists.
var defaults = []string{"id_ed25519", "id_ecdsa", "id_rsa"}

// ErrNone says that there is no key to sign with.
var ErrNone = errors.New("there is no ssh key to sign with: add one to the ssh-agent (ssh-add), or make one (ssh-keygen -t ed25519)")

// Ask asks the user for a secret.
type Ask func(prompt string) ([]byte, error)

// Find returns the keys to sign with.
//
// path is the path of a public or private key, or of a certificate. The key is looked for in
// the agent, then in the file of the private key. If there is a certificate beside it, the
// ring has the key with the certificate, then the key alone.
//
// Without a path the ring has the first keys of the agent: those in hardware only if there
// is no other. If the agent has none, it has the first default key file of ssh.
//
// Find calls ask for the passphrase of a key file. Errors have no secrets.
func Find(path string, ask Ask) (*Ring, error) {
	ring := &Ring{}
	held := ring.dial()
	var err error
	if path == "" {
		err = ring.find(held, ask)
	} else {
		err = ring.findAt(path, held, ask)
	}
	if err != nil {
		ring.Close()
		return nil, err
	}
	return ring, nil
}

// held is the content of an agent. The zero value is empty.
type held struct {
	agent agent.ExtendedAgent
	keys  []*agent.Key
}

// dial connects to the agent, if there is one that answers.
func (r *Ring) dial() held {
	conn, err := dialAgent()
	if err != nil {
		return held{}
	}
	client := agent.NewClient(conn)
	keys, err := client.List()
	if err != nil {
		conn.Close()
		return held{}
	}
	r.agent = conn
	return held{client, keys}
}

func (r *Ring) find(h held, ask Ask) error {
	for _, k := range h.keys {
		public, err := ssh.ParsePublicKey(k.Blob)
		if err == nil && isUsable(public) {
			r.Keys = append(r.Keys, h.key(k, public))
		}
	}
	if slices.ContainsFunc(r.Keys, func(k Key) bool { return !k.IsInHardware() }) {
		r.Keys = slices.DeleteFunc(r.Keys, Key.IsInHardware)
	}
	r.Keys = r.Keys[:min(len(r.Keys), mostKeys)]
	if len(r.Keys) > 0 {
		return nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ErrNone
	}
	for _, name := range defaults {
		path := filepath.Join(home, ".ssh", name)
		if _, err := os.Stat(path); err == nil {
			return r.findAt(path, h, ask)
		}
	}
	return ErrNone
}

func (r *Ring) findAt(path string, h held, ask Ask) error {
	private := strings.TrimSuffix(path, ".pub")
	private, onlyCertificate := strings.CutSuffix(private, "-cert")
	if !strings.HasSuffix(path, ".pub") {
		private, onlyCertificate = path, false
	}
	public, err := readPublic(private + ".pub")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var certificate *ssh.Certificate
	switch c, err := readPublic(private + "-cert.pub"); {
	case err == nil:
		certificate, _ = c.(*ssh.Certificate)
	case !errors.Is(err, fs.ErrNotExist) || onlyCertificate:
		return err
	}
	if public == nil && certificate != nil {
		public = certificate.Key
	}
	if public == nil && path != private {
		return fmt.Errorf("%s does not exist: name the file of a public or private key", path)
	}
	signer := h.signer(public)
	if signer == nil && public != nil && isInHardware(public) {
		return fmt.Errorf("the ssh-agent does not have %s, and only an agent can sign with a key in hardware: ssh-add it", path)
	}
	if signer == nil {
		if signer, err = readPrivate(private, ask); err != nil {
			return err
		}
	}
	if !isUsable(signer.Public) {
		return fmt.Errorf("%s is a key of type %s, which is not taken: make another (ssh-keygen -t ed25519)", path, signer.Public.Type())
	}
	if certificate != nil {
		if !bytes.Equal(certificate.Key.Marshal(), signer.Public.Marshal()) {
			return fmt.Errorf("%s-cert.pub is the certificate of another key than %[1]s.pub: remove one of them", private)
		}
		r.Keys = append(r.Keys, Key{certificate, signer.From, signer.Sign})
	}
	if !onlyCertificate {
		r.Keys = append(r.Keys, *signer)
	}
	return nil
}

// isUsable reports whether keys of a type, or certificates of such keys, can sign a knock:
// those that sshd takes.
func isUsable(public ssh.PublicKey) bool {
	switch keyType(public) {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSA,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return true
	}
	return false
}

// signer returns the agent's key that has this public key, without its certificate. It
// returns nil if the agent has no such key.
func (h held) signer(public ssh.PublicKey) *Key {
	if public == nil {
		return nil
	}
	for _, k := range h.keys {
		theirs, err := ssh.ParsePublicKey(k.Blob)
		if err != nil {
			continue
		}
		if c, ok := theirs.(*ssh.Certificate); ok {
			theirs = c.Key
		}
		if bytes.Equal(theirs.Marshal(), public.Marshal()) {
			key := h.key(k, public)
			return &key
		}
	}
	return nil
}

// key returns a key of the agent.
func (h held) key(k *agent.Key, public ssh.PublicKey) Key {
	var flags agent.SignatureFlags
	if keyType(public) == ssh.KeyAlgoRSA {
		flags = agent.SignatureFlagRsaSha512
	}
	from := "the agent"
	if k.Comment != "" {
		from += ", " + k.Comment
	}
	return Key{public, from, func(data []byte) (*ssh.Signature, error) {
		signature, err := h.agent.SignWithFlags(k, data, flags)
		if err != nil {
			return nil, fmt.Errorf("the ssh-agent does not sign with %s: %w", ssh.FingerprintSHA256(public), err)
		}
		return signature, nil
	}}
}

// keyType returns the type of a key, or of the key in a certificate.
func keyType(public ssh.PublicKey) string {
	if c, ok := public.(*ssh.Certificate); ok {
		return c.Key.Type()
	}
	return public.Type()
}
