package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/spa"
)

// signed is a knock signed with an ssh key.
type signed struct {
	// too says that the door also has a sequence, by which every second client comes.
	too   bool
	flood func(*signed) ([][]byte, error)

	host    spa.Public
	person  ssh.Signer
	last    time.Time // of the person's last knock
	clients int
}

func (s *signed) rules(folder string) (wall, door string, err error) {
	identity, err := spa.NewIdentity()
	if err != nil {
		return "", "", err
	}
	s.host = identity.Public()
	if s.person, err = newPerson(); err != nil {
		return "", "", err
	}
	private, people := filepath.Join(folder, "identity"), filepath.Join(folder, "people")
	for path, text := range map[string][]byte{private: identity.Text(), people: ssh.MarshalAuthorizedKey(s.person.PublicKey())} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", "", err
		}
	}
	door = fmt.Sprintf("  keys { authorized = [%q] }\n", people)
	if s.too {
		_, others, _ := plain{}.rules(folder)
		door += others
	}
	return fmt.Sprintf("  identity = %q\n", private), door, nil
}

func newPerson() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromSigner(private)
}

// knock returns a datagram of somebody. Each is later than the one before, as a person's
// knocks are.
func (s *signed) knock(by ssh.Signer) ([]byte, error) {
	s.last = later(s.last.Add(time.Millisecond), time.Now())
	return spa.Seal(s.host, spa.Knock{What: spa.Open, Time: s.last, Door: spa.HashDoor("ssh")}, by.PublicKey(),
		func(data []byte) (*ssh.Signature, error) { return by.Sign(rand.Reader, data) })
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *signed) knocks(from netip.Addr) ([]forge.Segment, error) {
	if s.clients++; s.too && s.clients%2 == 0 {
		return portKnocks(from), nil
	}
	b, err := s.knock(s.person)
	return []forge.Segment{{From: from, To: server, SourcePort: 40000, Port: spaPort, Payload: b}}, err
}

func (s *signed) noise() (noise, error) {
	data, err := s.flood(s)
	return noise{port: spaPort, data: data}, err
}

// manyDatagrams is how many datagrams a flood sends in turn.
const manyDatagrams = 256

// garbage returns datagrams of the right size, as somebody sends them who does not know the
// host's identity.
func garbage(*signed) (all [][]byte, err error) {
	for range manyDatagrams {
		b := make([]byte, spa.ShortSize)
		rand.Read(b)
		all = append(all, b)
	}
	return all, nil
}

// strange returns knocks of somebody who knows the host's identity, but whose key the host
// does not know.
func strange(s *signed) (all [][]byte, err error) {
	stranger, err := newPerson()
	for range manyDatagrams {
		if err != nil {
			return nil, err
		}
		var b []byte
		b, err = s.knock(stranger)
		all = append(all, b)
	}
	return all, err
}

// replay returns one knock of the person, which is good once.
func replay(s *signed) ([][]byte, error) {
	b, err := s.knock(s.person)
	return [][]byte{b}, err
}
