package people

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// revoked are keys and certificates that admit nobody.
type revoked struct {
	keys    map[Fingerprint]bool
	serials []serials
	ids     map[string]bool
}

// serials are the serial numbers of certificates, of any authority.
type serials struct{ first, last uint64 }

func (r *revoked) hasKey(f Fingerprint) bool { return r.keys[f] }

func (r *revoked) hasCertificate(serial uint64, id string) bool {
	return r.hasSerial(serial) || r.ids[id]
}

func (r *revoked) hasSerial(serial uint64) bool {
	return slices.ContainsFunc(r.serials, func(s serials) bool { return s.first <= serial && serial <= s.last })
}

// hasName reports whether an ID that is revoked may have this name. Of a long one a window
// remembers the beginning, so this may be true of too many IDs.
func (r *revoked) hasName(name string) bool {
	begin := strings.TrimSuffix(name, "…")
	for id := range r.ids {
		if strings.HasPrefix(nameOr(id, Fingerprint{}), begin) {
			return true
		}
	}
	return false
}

// krlMagic begins a binary revocation list. Source: PROTOCOL.krl of OpenSSH.
var krlMagic = []byte("SSHKRL\n\x00")

// Revoke adds the lines of a list of revoked keys and certificates. A line is a public key,
// a fingerprint, or a serial number or a range of them. It may also be in the form of KRL
// SPECIFICATION in ssh-keygen(1): "serial: 7-9", "id: alice", "key: …", "sha256: …",
// "hash: …". On any problem, callers must admit nobody: a line may be missing.
func (l *List) Revoke(file string, text []byte) []Problem {
	var p problems
	if l.revoked.keys == nil {
		l.revoked = revoked{keys: map[Fingerprint]bool{}, ids: map[string]bool{}}
	}
	if bytes.HasPrefix(text, krlMagic) {
		p.line = 1
		p.fail(0, len(krlMagic)-2, "Binary revocation list", "knockwall reads text. Name the file from which ssh-keygen -k made this one, or print it: ssh-keygen -Q -l -f "+file+".")
		return p.all
	}
	p.each(text, func(s string) {
		if !l.revoked.add(strings.TrimLeft(s, " \t")) {
			p.fail(0, len(s), "Not something to revoke", "The line is neither a public key nor a fingerprint nor a serial number. Write one a line: \"ssh-ed25519 AAAA…\", \"SHA256:…\", \"serial: 7-9\" or \"id: alice\".")
		}
	})
	return p.all
}

// add adds a line, and reports whether it is one.
func (r *revoked) add(s string) bool {
	kind, value, tagged := strings.Cut(s, ":")
	value = strings.TrimSpace(value)
	if tagged {
		switch strings.ToLower(kind) {
		case "serial":
			return r.addSerials(value)
		case "id":
			if value != "" {
				r.ids[value] = true
			}
			return value != ""
		case "key", "sha1":
			s = value
		case "hash":
			s = value
		case "sha256":
			if strings.HasPrefix(value, "SHA256:") {
				s = value
			}
		}
	}
	if f, ok := parseFingerprint(s); ok {
		r.keys[f] = true
		return true
	}
	if !tagged && r.addSerials(s) {
		return true
	}
	key, _, err := parseKey(s)
	if err != nil {
		return false
	}
	r.keys[FingerprintOf(key)] = true
	return true
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// addSerials adds "7" or "7-9".
func (r *revoked) addSerials(s string) bool {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, err := strconv.ParseUint(strings.TrimSpace(first), 0, 64)
	if err != nil {
		return false
	}
	b, err := strconv.ParseUint(strings.TrimSpace(last), 0, 64)
	if err != nil || b < a {
		return false
	}
	r.serials = append(r.serials, serials{a, b})
	return true
}
