// Package natslab makes what a NATS server and the members of a group need to trust each
// other: certificates, keys and permissions.
package natslab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nkeys"
)

// Certify makes an authority (ca.pem), and the certificate (cert.pem) of servers with these
// addresses with its key (key.pem), in a folder. They are valid for an hour.
func Certify(folder string, servers ...netip.Addr) error {
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	if err := write("ca.pem", "CERTIFICATE", der); err != nil {
		return err
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	certificate := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	for _, a := range servers {
		certificate.IPAddresses = append(certificate.IPAddresses, a.AsSlice())
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if der, err = x509.CreateCertificate(rand.Reader, certificate, ca, key.Public(), caKey); err != nil {
		return err
	}
	if err := write("cert.pem", "CERTIFICATE", der); err != nil {
		return err
	}
	if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return err
	}
	return write("key.pem", "PRIVATE KEY", der)
}

// NewKey writes the seed of a new NKey to a file, and returns the public key.
func NewKey(path string) (public string, err error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return "", err
	}
	seed, err := user.Seed()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, seed, 0o600); err != nil {
		return "", err
	}
	return user.PublicKey()
}

// User returns the user of a server's configuration who may do what a member may: publish as
// itself, and hear the group.
func User(public, group, name string) string {
	return fmt.Sprintf("{ nkey: %s, permissions: { publish: \"knockwall.%s.%s.>\", subscribe: \"knockwall.%s.>\" } }\n", public, group, name, group)
}
