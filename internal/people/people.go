// Package people reads who may knock with an ssh key: files in the format of
// authorized_keys (sshd(8)), and lists of revoked keys and certificates.
//
// It honours the options from, expiry-time, cert-authority, principals and verify-required
// as sshd does, and has two of its own: doors="ssh,vpn" and window="10m". It ignores the
// options that only concern a session, and reports options that neither knows.
package people

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// The limits of a file.
const (
	MaxSize  = 8 << 20 // bytes
	maxLines = 1 << 16
	// maxName is how long the name of a person may be, in bytes.
	maxName = 48
)

// Fingerprint is the SHA-256 of a key's public blob.
type Fingerprint [sha256.Size]byte

// String returns the form of ssh-keygen -l: "SHA256:…".
func (f Fingerprint) String() string { return "SHA256:" + base64.RawStdEncoding.EncodeToString(f[:]) }

// Short returns 96 bits of the fingerprint, which tells apart the authorities of a host.
func (f Fingerprint) Short() string { return base64.RawStdEncoding.EncodeToString(f[:12]) }

// parseFingerprint parses the result of String, also with padding.
func parseFingerprint(s string) (f Fingerprint, ok bool) {
	text, ok := cutPrefixFold(s, "SHA256:")
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if !ok || err != nil || len(b) != len(f) {
		return f, false
	}
	return Fingerprint(b), true
}

// FingerprintOf returns the fingerprint of a key.
func FingerprintOf(key ssh.PublicKey) Fingerprint { return sha256.Sum256(key.Marshal()) }

// List is who may knock: the lines of one or more files, less what is revoked.
type List struct {
	keys        map[Fingerprint]*Line
	authorities map[Fingerprint]*Line
	revoked     revoked
}

// NewList returns a List of nobody.
func NewList() *List {
	return &List{keys: map[Fingerprint]*Line{}, authorities: map[Fingerprint]*Line{}}
}

// Len returns the number of keys and authorities.
func (l *List) Len() int { return len(l.keys) + len(l.authorities) }

// Lines returns all lines, in no order.
func (l *List) Lines() []*Line {
	var all []*Line
	for _, of := range []map[Fingerprint]*Line{l.keys, l.authorities} {
		for _, line := range of {
			all = append(all, line)
		}
	}
	return all
}

// Line is one line of a file.
type Line struct {
	File        string
	Number      int // from 1 on
	Key         ssh.PublicKey
	Fingerprint Fingerprint // of Key
	Name        string      // the comment; for keys without one, the fingerprint
	Authority   bool        // the key signs certificates of people
	Doors       []string    // names of the only doors that it opens; nil: all
	DoorsAt     Place       // the option with them
	Window      time.Duration
	Expires     time.Time // zero: never

	principals []string // of which a certificate must have one; nil: any
	from       addresses
	verifyUser bool // a hardware key must have checked its user
	hasLimit   bool // from is given
}

// Compare orders lines by file and number.
func (l *Line) Compare(other *Line) int {
	return cmp.Or(cmp.Compare(l.File, other.File), cmp.Compare(l.Number, other.Number))
}

// Opens reports whether the line allows a door.
func (l *Line) Opens(door string) bool { return l.Doors == nil || slices.Contains(l.Doors, door) }

// Changes returns the names of those who were not in a former list, of those who were and are
// no longer, and of those whose lines have other options. They are in the order of their
// lines.
func (l *List) Changes(former *List) (listed, gone, changed []string) {
	for _, line := range l.sorted() {
		switch was := former.like(line); {
		case was == nil:
			listed = append(listed, line.Name)
		case !line.grantsLike(was):
			changed = append(changed, line.Name)
		}
	}
	for _, line := range former.sorted() {
		if l.like(line) == nil {
			gone = append(gone, line.Name)
		}
	}
	return listed, gone, changed
}

// RevokesLike reports whether another list revokes the same.
func (l *List) RevokesLike(other *List) bool { return reflect.DeepEqual(l.revoked, other.revoked) }

func (l *List) sorted() []*Line {
	return slices.SortedFunc(slices.Values(l.Lines()), (*Line).Compare)
}

// like returns the line with the key and the name of another list's line, or nil.
func (l *List) like(other *Line) *Line {
	of := l.keys
	if other.Authority {
		of = l.authorities
	}
	if line := of[other.Fingerprint]; line != nil && line.Name == other.Name {
		return line
	}
	return nil
}

// grantsLike reports whether a line of the same key and name grants the same, wherever it is.
func (l *Line) grantsLike(other *Line) bool {
	a, b := *l, *other
	for _, line := range []*Line{&a, &b} {
		line.File, line.Number, line.DoorsAt, line.Key = "", 0, Place{}, nil
	}
	return reflect.DeepEqual(a, b)
}

// Refusal is why somebody who has a known key is not let in.
type Refusal struct {
	Reason RefusalReason
	Text   string // a sentence without capital and full stop
}

func (r *Refusal) Error() string { return r.Text }

// RefusalReason is a kind of Refusal.
type RefusalReason uint8

// The kinds.
const (
	Revoked    RefusalReason = iota + 1 // the key or certificate is revoked
	Expired                             // the line or certificate is not valid at this time
	NotFrom                             // the line or certificate is not valid for this address
	NotAllowed                          // anything else
)

// ByKey returns the line of a plain key, or nil.
func (l *List) ByKey(f Fingerprint) *Line { return l.keys[f] }

// ByAuthority returns the line of the authority that has signed a certificate, or nil. Until
// then nothing in a certificate counts: whoever makes one up can write anybody's name into
// it, and a key that takes long to verify with. It checks nothing else: see
// [List.CheckCertificate].
func (l *List) ByAuthority(c *ssh.Certificate) *Line {
	if c.SignatureKey == nil {
		return nil
	}
	line := l.authorities[FingerprintOf(c.SignatureKey)]
	if line == nil || !isSigned(c) {
		return nil
	}
	return line
}

// Admits reports whether somebody who was admitted before still would be, by what a window
// remembers: not by the address, nor by the times and principals of a certificate. key is the fingerprint of the key. authority is
// the short fingerprint of the authority, or "" for a plain key.
func (l *List) Admits(key, authority string, serial uint64, name, door string, now time.Time) bool {
	f, ok := parseFingerprint(key)
	if !ok || l.revoked.hasKey(f) {
		return false
	}
	line := l.keys[f]
	if authority != "" {
		line = nil
		for by, of := range l.authorities {
			if by.Short() == authority && !l.revoked.hasKey(by) && !l.revoked.hasSerial(serial) && !l.revoked.hasName(name) {
				line = of
			}
		}
	}
	return line != nil && line.Opens(door) && (line.Expires.IsZero() || now.Before(line.Expires))
}

// IsPublic reports whether a line of a file may be shown: it has a public key, a fingerprint,
// a serial number or an ID. Somebody may have named a file with a secret by mistake.
func IsPublic(line string) bool {
	for word := range strings.FieldsSeq(line) {
		if isKeyTypeLike(word) {
			return true
		}
	}
	tag, _, tagged := strings.Cut(strings.TrimSpace(line), ":")
	return tagged && slices.Contains([]string{"sha256", "serial", "id", "hash", "key"}, strings.ToLower(tag))
}

// Check returns a *Refusal if a line does not admit a key at a time from an address. The key
// is that of the line, or one in a certificate of it.
func (l *List) Check(line *Line, key Fingerprint, now time.Time, source netip.Addr, userVerified bool) error {
	switch {
	case l.revoked.hasKey(key), l.revoked.hasKey(line.Fingerprint):
		return &Refusal{Revoked, "the key is revoked"}
	case !line.Expires.IsZero() && !now.Before(line.Expires):
		return &Refusal{Expired, fmt.Sprintf("line %d of %s expired at %s", line.Number, line.File, line.Expires.Format(time.DateTime))}
	case source.IsValid() && line.hasLimit && !line.from.match(source):
		return &Refusal{NotFrom, fmt.Sprintf("from= in line %d of %s does not allow %s", line.Number, line.File, source)}
	case line.verifyUser && !userVerified:
		return &Refusal{NotAllowed, "the hardware key has not checked its user by a PIN or fingerprint"}
	}
	return nil
}

// CheckCertificate returns a *Refusal unless a certificate, which the authority of a line has
// signed, is valid at a time for an address.
func (l *List) CheckCertificate(line *Line, c *ssh.Certificate, now time.Time, source netip.Addr, userVerified bool) error {
	refuse := func(reason RefusalReason, format string, a ...any) error {
		return &Refusal{reason, "the certificate " + fmt.Sprintf(format, a...)}
	}
	switch {
	case c.CertType != ssh.UserCert:
		return refuse(NotAllowed, "is not one of a user")
	case l.revoked.hasCertificate(c.Serial, c.KeyId):
		return refuse(Revoked, "is revoked")
	case unfit(c.Key) != "":
		return refuse(NotAllowed, "is of a key that sshd no longer takes")
	case c.Signature.Format == ssh.KeyAlgoRSA:
		return refuse(NotAllowed, "is signed with SHA-1. Sign it again with a newer ssh-keygen")
	}
	if !line.hasPrincipalOf(c) {
		return refuse(NotAllowed, "has none of the principals in line %d of %s", line.Number, line.File)
	}
	if at := uint64(now.Unix()); at < c.ValidAfter || c.ValidBefore != ssh.CertTimeInfinity && at >= c.ValidBefore {
		return refuse(Expired, "is valid from %s to %s", certificateTime(c.ValidAfter), certificateTime(c.ValidBefore))
	}
	for name := range c.CriticalOptions {
		if name != optionSourceAddress && name != optionForceCommand && name != optionVerifyRequired {
			return refuse(NotAllowed, "has the critical option %q, which is unknown", name)
		}
	}
	if allowed, ok := c.CriticalOptions[optionSourceAddress]; ok && source.IsValid() {
		if from, err := parsePrefixes(allowed); err != nil || !from.match(source) {
			return refuse(NotFrom, "does not allow %s", source)
		}
	}
	if _, ok := c.CriticalOptions[optionVerifyRequired]; ok && !userVerified {
		return refuse(NotAllowed, "needs a hardware key that has checked its user by a PIN or fingerprint")
	}
	return l.Check(line, FingerprintOf(c.Key), now, source, userVerified)
}

// The critical options of certificates. Source: PROTOCOL.certkeys of OpenSSH.
const (
	optionSourceAddress  = "source-address"
	optionForceCommand   = "force-command" // concerns the session
	optionVerifyRequired = "verify-required"
)

// isSigned reports whether the authority that a certificate names has signed it.
func isSigned(c *ssh.Certificate) bool {
	if c.Signature == nil || c.ValidAfter > math.MaxInt64 {
		return false
	}
	// Package ssh has no check of the signature alone. So ask for one that nothing else in the
	// certificate can fail.
	var principal string
	if len(c.ValidPrincipals) > 0 {
		principal = c.ValidPrincipals[0]
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: slices.Collect(maps.Keys(c.CriticalOptions)),
		Clock:                    func() time.Time { return time.Unix(int64(c.ValidAfter), 0) },
	}
	return checker.CheckCert(principal, c) == nil
}

// hasPrincipalOf reports whether the line allows a certificate by its principals. A line
// without principals allows all.
func (l *Line) hasPrincipalOf(c *ssh.Certificate) bool {
	return l.principals == nil || slices.ContainsFunc(c.ValidPrincipals, func(p string) bool { return slices.Contains(l.principals, p) })
}

// certificateTime formats a time of a certificate.
func certificateTime(seconds uint64) string {
	switch {
	case seconds == 0:
		return "always"
	case seconds > 1<<40:
		return "forever"
	}
	return time.Unix(int64(seconds), 0).Format(time.DateTime)
}

// NameOf returns the name of a certificate's person: its key ID.
func NameOf(c *ssh.Certificate) string {
	return nameOr(c.KeyId, FingerprintOf(c.Key))
}

// nameOr returns a name for people, or the fingerprint if there is none. Names come from
// files and certificates, and get into messages.
func nameOr(name string, key Fingerprint) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	name = strings.TrimSpace(name)
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName-len("…")], "") + "…"
	}
	if name == "" {
		return key.String()
	}
	return name
}
