//go:build unix

package sshkeys

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/spa"
)

// needs skips the test if a program is missing.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: %v", program, err)
	}
}

func command(t *testing.T, stdin string, arguments ...string) string {
	t.Helper()
	c := exec.Command(arguments[0], arguments[1:]...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", arguments, err, out)
	}
	return string(out)
}

// atHome gives the test a home folder of its own and no agent.
func atHome(t *testing.T) (dotSSH string) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	dotSSH = filepath.Join(home, ".ssh")
	if err := os.Mkdir(dotSSH, 0o700); err != nil {
		t.Fatal(err)
	}
	return dotSSH
}

// keygen makes a key with ssh-keygen and returns its path.
func keygen(t *testing.T, folder, name, kind, bits, passphrase string) string {
	t.Helper()
	needs(t, "ssh-keygen")
	path := filepath.Join(folder, name)
	arguments := []string{"ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", name, "-f", path}
	if bits != "" {
		arguments = append(arguments, "-b", bits)
	}
	command(t, "", arguments...)
	return path
}

// certify makes a certificate for a key.
func certify(t *testing.T, key string) {
	t.Helper()
	ca := keygen(t, t.TempDir(), "ca", "ed25519", "", "")
	command(t, "", "ssh-keygen", "-q", "-s", ca, "-I", "alice", "-n", "alice,ssh", "-V", "+1h", key+".pub")
}

// startAgent starts OpenSSH's ssh-agent for the test, with keys.
func startAgent(t *testing.T, keys ...string) {
	t.Helper()
	needs(t, "ssh-agent")
	folder, err := os.MkdirTemp("", "kw") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket := filepath.Join(folder, "agent")
	c := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	eventually.True(t, "the ssh-agent answers", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	t.Setenv("SSH_AUTH_SOCK", socket)
	for _, key := range keys {
		command(t, "", "ssh-add", "-q", key)
	}
}

func noPassphrase(string) ([]byte, error) { return nil, errors.New("nobody is here to ask") }

func find(t *testing.T, path string) []Key {
	t.Helper()
	ring, err := Find(path, noPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ring.Close() })
	return ring.Keys
}

// kinds are the keys of ssh-keygen that need no hardware.
var kinds = []struct{ kind, bits string }{
	{"ed25519", ""}, {"ecdsa", "256"}, {"ecdsa", "384"}, {"ecdsa", "521"}, {"rsa", "2048"}, {"rsa", "4096"},
}

// Each kind of key signs a knock, from the agent and from its file. OpenSSH accepts the
// signature.
func TestOpenSSHAcceptsTheSignatureInAKnock(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.kind+kind.bits, func(t *testing.T) {
			key := keygen(t, atHome(t), "key", kind.kind, kind.bits, "")
			for _, inAgent := range []bool{false, true} {
				if inAgent {
					startAgent(t, key)
				}
				keys := find(t, key+".pub")
				if len(keys) != 1 || strings.Contains(keys[0].From, "agent") != inAgent {
					t.Fatalf("the keys are %v", keys)
				}
				verifyKnock(t, key+".pub", keys[0])
			}
		})
	}
}

func TestAKnockHasTheCertificate(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.kind+kind.bits, func(t *testing.T) {
			key := keygen(t, atHome(t), "key", kind.kind, kind.bits, "")
			certify(t, key)
			for _, inAgent := range []bool{false, true} {
				if inAgent {
					startAgent(t, key)
				}
				for path, want := range map[string]int{key: 2, key + ".pub": 2, key + "-cert.pub": 1} {
					keys := find(t, path)
					if len(keys) != want {
						t.Fatalf("%s: the keys are %v", path, keys)
					}
					certificate, ok := keys[0].Public.(*ssh.Certificate)
					if !ok || certificate.KeyId != "alice" {
						t.Fatalf("%s: the first key is %v", path, keys[0])
					}
					if kind.bits == "4096" { // its signature and certificate do not fit one datagram
						continue
					}
					verifyKnock(t, key+".pub", keys[0])
				}
			}
		})
	}
}

// verifyKnock seals a knock with a key, reads the datagram by the description of its format,
// with no code of package spa, and lets ssh-keygen verify the signature.
func verifyKnock(t *testing.T, publicFile string, key Key) {
	t.Helper()
	identity, err := spa.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	host := identity.Public()
	datagram, err := spa.Seal(host, spa.Knock{
		What: spa.Open, Time: time.Now(), Door: spa.HashDoor("ssh"), Source: netip.MustParseAddr("192.0.2.7"),
	}, key.Public, key.Sign)
	if err != nil {
		t.Fatal(err)
	}

	hash := func(key []byte, parts ...[]byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(bytes.Join(parts, nil))
		return mac.Sum(nil)
	}
	if tag := hash(hash(host[:], []byte("knockwall spa v1 mac")), datagram[16:])[:16]; !bytes.Equal(tag, datagram[:16]) {
		t.Fatal("the tag is wrong")
	}
	share := hash(hash(host[:], []byte("knockwall spa v1 mask")), datagram[48:])
	for i := range share {
		share[i] ^= datagram[16+i]
	}
	_, text, _ := strings.Cut(strings.TrimSpace(string(identity.Text())), ":")
	scalar, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().NewPrivateKey(scalar)
	if err != nil {
		t.Fatal(err)
	}
	private, err := hpke.NewDHKEMPrivateKey(x25519)
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := hpke.NewRecipient(share, private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("knockwall spa v1"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := recipient.Open(nil, datagram[48:])
	if err != nil {
		t.Fatal(err)
	}
	plain := key.Public
	if c, ok := plain.(*ssh.Certificate); ok {
		plain = c.Key
	}
	blob := content[70 : 70+int(binary.BigEndian.Uint16(content[68:]))]
	signature := ssh.Marshal(struct {
		Magic          [6]byte
		Version        uint32
		Public         []byte
		Namespace      string
		Reserved, Hash string
		Signature      []byte
	}{[6]byte([]byte("SSHSIG")), 1, plain.Marshal(), "knock@knockwall", "", "sha512", ssh.Marshal(ssh.Signature{Format: format(plain), Blob: blob})})
	message := bytes.Join([][]byte{[]byte("knockwall spa v1"), host[:], share, content[:68]}, nil)

	folder := t.TempDir()
	public, err := os.ReadFile(publicFile)
	if err != nil {
		t.Fatal(err)
	}
	allowed, armored := filepath.Join(folder, "allowed"), filepath.Join(folder, "signature")
	for path, text := range map[string][]byte{
		allowed: append([]byte("alice "), public...),
		armored: pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: signature}),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := []string{"ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "alice", "-n", "knock@knockwall", "-s", armored}
	command(t, string(message), verify...)

	message[len(message)-1] ^= 1
	c := exec.Command(verify[0], verify[1:]...)
	c.Stdin = bytes.NewReader(message)
	if out, err := c.CombinedOutput(); err == nil {
		t.Errorf("ssh-keygen accepts another message: %s", out)
	}
}

// format returns the signature format of a key: PROTOCOL.sshsig of OpenSSH.
func format(public ssh.PublicKey) string {
	if public.Type() == "ssh-rsa" {
		return "rsa-sha2-512"
	}
	return public.Type()
}

func TestThePassphraseIsAskedFor(t *testing.T) {
	key := keygen(t, atHome(t), "key", "ed25519", "", "correct horse")
	var prompts []string
	answers := []string{"wrong", "correct horse"}
	ring, err := Find(key, func(prompt string) ([]byte, error) {
		prompts = append(prompts, prompt)
		return []byte(answers[len(prompts)-1]), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	verifyKnock(t, key+".pub", ring.Keys[0])
	if len(prompts) != 2 || prompts[0] != "Passphrase of "+key+": " {
		t.Errorf("the prompts are %q", prompts)
	}

	asked := 0
	_, err = Find(key, func(string) ([]byte, error) { asked++; return []byte("wrong"), nil })
	if err == nil || !strings.HasSuffix(err.Error(), ": the passphrase is wrong") || asked != attempts {
		t.Errorf("asked %d times, and the error is %v", asked, err)
	}

	startAgent(t)
	// The agent has the key, so nobody is asked.
	t.Setenv("SSH_ASKPASS_REQUIRE", "force")
	script := filepath.Join(t.TempDir(), "askpass")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho 'correct horse'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_ASKPASS", script)
	command(t, "", "ssh-add", "-q", key)
	find(t, key)
}

func TestWithoutAPathTheAgentComesFirst(t *testing.T) {
	dotSSH := atHome(t)
	keygen(t, dotSSH, "id_rsa", "rsa", "2048", "")
	keygen(t, dotSSH, "id_ed25519", "ed25519", "", "")
	other := keygen(t, t.TempDir(), "other", "ecdsa", "256", "")

	if keys := find(t, ""); len(keys) != 1 || keys[0].From != filepath.Join(dotSSH, "id_ed25519") {
		t.Errorf("without an agent the keys are %v", keys)
	}
	startAgent(t)
	if keys := find(t, ""); len(keys) != 1 || keys[0].From != filepath.Join(dotSSH, "id_ed25519") {
		t.Errorf("with an empty agent the keys are %v", keys)
	}
	command(t, "", "ssh-add", "-q", other)
	if keys := find(t, ""); len(keys) != 1 || keys[0].From != "the agent, other" {
		t.Errorf("with an agent the keys are %v", keys)
	}
	var many []string
	for i := range mostKeys {
		many = append(many, keygen(t, t.TempDir(), fmt.Sprint("key", i), "ed25519", "", ""))
	}
	command(t, "", append([]string{"ssh-add", "-q"}, many...)...)
	if keys := find(t, ""); len(keys) != mostKeys {
		t.Errorf("of %d keys in the agent %d are used", mostKeys+1, len(keys))
	}
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	dotSSH := atHome(t)
	if _, err := Find("", noPassphrase); !errors.Is(err, ErrNone) {
		t.Errorf("without any key the error is %v", err)
	}
	key := keygen(t, dotSSH, "key", "ed25519", "", "")
	other := keygen(t, dotSSH, "other", "ed25519", "", "")
	certify(t, other)
	open := keygen(t, dotSSH, "open", "ed25519", "", "")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"lonely.pub": text(t, key+".pub"), "broken.pub": "ssh-ed25519 AAAA\n", "noise": "noise\n",
		"key-cert.pub": text(t, other+"-cert.pub"), "large": strings.Repeat("x", maxFileSize+1),
	} {
		if err := os.WriteFile(filepath.Join(dotSSH, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"none.pub":   "none.pub does not exist: name the file of a public or private key",
		"none":       "none.pub, and the file of its private key does not exist",
		"lonely.pub": "the ssh-agent does not have the key",
		"broken.pub": "broken.pub is not a public key of ssh",
		"noise":      "reading the private key",
		"large":      "large is too large for a key of ssh",
		"open":       "open: run chmod 600",
		"key":        "key-cert.pub is the certificate of another key",
	} {
		path := filepath.Join(dotSSH, name)
		if _, err := Find(path, noPassphrase); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %q in it", name, err, want)
		}
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hardware is an agent with one key in hardware.
type hardware struct {
	agent.ExtendedAgent
	public ssh.PublicKey
	others []*agent.Key
}

func (h hardware) List() ([]*agent.Key, error) {
	return append([]*agent.Key{{Format: h.public.Type(), Blob: h.public.Marshal(), Comment: "token"}}, h.others...), nil
}

func TestAKeyInHardwareIsUsedIfItIsTheOnlyOneOrNamed(t *testing.T) {
	dotSSH := atHome(t)
	public, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, make([]byte, 32), "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dotSSH, "id_ed25519_sk.pub")
	if err := os.WriteFile(path, ssh.MarshalAuthorizedKey(public), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(path, noPassphrase); err == nil || !strings.Contains(err.Error(), "only an agent can sign with a key in hardware") {
		t.Errorf("without an agent the error is %v", err)
	}
	soft := keygen(t, dotSSH, "soft", "ed25519", "", "")
	softPublic, err := readPublic(soft + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	for _, others := range [][]*agent.Key{nil, {{Format: softPublic.Type(), Blob: softPublic.Marshal()}}} {
		serve(t, hardware{ExtendedAgent: agent.NewKeyring().(agent.ExtendedAgent), public: public, others: others})
		keys := find(t, "")
		if len(keys) != 1 || keys[0].IsInHardware() != (others == nil) {
			t.Errorf("without a path the keys are %v", keys)
		}
		if keys := find(t, path); len(keys) != 1 || !keys[0].IsInHardware() {
			t.Errorf("the keys at %s are %v", path, keys)
		}
	}
}

// serve lets the environment name an agent.
func serve(t *testing.T, a agent.Agent) {
	t.Helper()
	folder, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket := filepath.Join(folder, "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("SSH_AUTH_SOCK", socket)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(a, conn)
			}()
		}
	}()
}
