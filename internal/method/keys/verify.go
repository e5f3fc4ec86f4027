package keys

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/people"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/spa"
)

// verifier checks datagrams, each check being cheaper than the next.
type verifier struct {
	*Keys
	screen *spa.Screen
}

// Screen reports whether the sender knows the host's public identity.
func (v *verifier) Screen(datagram []byte) bool { return v.screen.Passes(datagram) }

// Verify returns the meaning of a datagram that Screen has passed. It takes about 130
// microseconds, or 70 if the datagram has no valid signature of a known key. Such a datagram
// means nothing.
func (v *verifier) Verify(datagram []byte, from netip.Addr, now time.Time) method.Meaning {
	s, err := v.opener.Open(datagram)
	if err != nil || s.Door != v.hash && (!v.first || slices.Contains(v.all, s.Door)) {
		return method.Meaning{}
	}
	line, key, certificate := v.find(s)
	if line == nil || s.Verify(key) != nil {
		return method.Meaning{}
	}
	// From here on the person has proved to have sent the datagram, and the audit trail says
	// why the door stays closed.
	fingerprint := people.Fingerprint(s.Fingerprint)
	m := method.Meaning{Person: method.Person{Name: line.Name, Key: fingerprint.String(), Grant: keyGrant}}
	from = from.WithZone("")
	mismatch := v.mismatch(s, from)
	if certificate != nil {
		m.Person.Name, m.Person.Grant = people.NameOf(certificate), certificateGrant(line, certificate)
		err = v.People.CheckCertificate(line, certificate, now, from, s.UserVerified(key))
	} else {
		err = v.People.Check(line, fingerprint, now, from, s.UserVerified(key))
	}
	reject := func(code audit.Code, reason string) method.Meaning {
		m.Code, m.Reason = code, reason
		return m
	}
	off := s.Time.Sub(now)
	switch refused, _ := errors.AsType[*people.Refusal](err); {
	case v.closed:
		return reject(audit.CodeNotAllowed, "the list of revoked keys cannot be read, so no key opens the door")
	case s.Door != v.hash:
		return reject(audit.CodeUnknownDoor, "no door of this host has the name that the client's hosts file says")
	case off.Abs() > v.Skew:
		return reject(audit.CodeClock, clockText(off, v.Skew))
	case refused != nil:
		return reject(codeOf(refused.Reason), refused.Text)
	case err != nil:
		return reject(audit.CodeNotAllowed, err.Error())
	case !line.Opens(v.door):
		return reject(audit.CodeNotAllowed, fmt.Sprintf("doors= in line %d of %s does not name this door", line.Number, line.File))
	case mismatch != "":
		return reject(audit.CodeNotFrom, mismatch)
	}
	m.Action, m.Code, m.Reason = method.Open, audit.CodeKey, "a knock signed with a key"
	if s.What == spa.Close {
		m.Action, m.Code, m.Reason = method.Close, audit.CodeCloseKey, "a knock to close, signed with a key"
	}
	m.Window, m.Most = s.Window, line.Window
	m.Once = method.Use{Begins: s.Time, Early: v.Skew, Kind: Kind.Name, Detail: m.Person.Key, Ordered: true, By: m.Person}
	return m
}

// find returns the line of the key that signed, that key, and its certificate, if it has one,
// which the line's key has signed. The key has the fingerprint in the datagram.
func (v *verifier) find(s *spa.Sealed) (*people.Line, ssh.PublicKey, *ssh.Certificate) {
	if s.Certificate == nil {
		line := v.People.ByKey(s.Fingerprint)
		if line == nil {
			return nil, nil, nil
		}
		return line, line.Key, nil
	}
	parsed, err := ssh.ParsePublicKey(s.Certificate)
	if err != nil {
		return nil, nil, nil
	}
	c, ok := parsed.(*ssh.Certificate)
	if !ok || people.FingerprintOf(c.Key) != s.Fingerprint {
		return nil, nil, nil
	}
	line := v.People.ByAuthority(c)
	if line == nil {
		return nil, nil, nil
	}
	return line, c.Key, c
}

// codeOf returns the audit code of a refusal.
func codeOf(r people.RefusalReason) audit.Code {
	switch r {
	case people.Expired:
		return audit.CodeExpired
	case people.NotFrom:
		return audit.CodeNotFrom
	}
	return audit.CodeNotAllowed
}

// clockText says how far a client's clock is from this host's.
func clockText(off, skew time.Duration) string {
	which := "ahead of"
	if off < 0 {
		which = "behind"
	}
	return fmt.Sprintf("the client's clock is %s %s this host's, and skew allows %s", printable.Time(off.Abs().Round(time.Second)), which, printable.Time(skew))
}

// keyGrant is the grant of somebody whose own key is listed. certificateGrant is the grant
// of somebody with a certificate: its authority and serial number.
const keyGrant = "key"

func certificateGrant(line *people.Line, c *ssh.Certificate) string {
	return fmt.Sprintf("ca=%s,serial=%d", line.Fingerprint.Short(), c.Serial)
}

// grant is what a window remembers of the person that opened it.
type grant struct {
	key       string // the fingerprint
	authority string // shortened; "": the key itself is listed
	serial    uint64
}

func parseGrant(p method.Person) (g grant, ok bool) {
	g.key = p.Key
	if p.Grant == keyGrant || p.Grant == "" { // the memory of used knocks has only keys
		return g, true
	}
	authority, rest, ok := strings.Cut(strings.TrimPrefix(p.Grant, "ca="), ",serial=")
	if !ok {
		return g, false
	}
	serial, err := strconv.ParseUint(rest, 10, 64)
	g.authority, g.serial = authority, serial
	return g, err == nil
}
