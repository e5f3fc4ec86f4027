package people

import (
	"crypto/rsa"
	"errors"
	"net/netip"
	"path"
	"strings"

	"golang.org/x/crypto/ssh"
)

// addresses are patterns of source addresses. Source: from= in sshd(8), PATTERNS in
// ssh_config(5).
type addresses []pattern

// pattern is a prefix, or a text with the wildcards * and ?.
type pattern struct {
	negated bool
	prefix  netip.Prefix // not valid: text decides
	text    string
}

// parseFrom parses the value of from=. names says that some patterns can match names of
// hosts only.
func parseFrom(s string) (all addresses, names bool) {
	for p := range strings.SplitSeq(s, ",") {
		text, negated := strings.CutPrefix(strings.TrimSpace(p), "!")
		at := pattern{negated: negated, text: strings.ToLower(text)}
		if prefix, err := netip.ParsePrefix(text); err == nil {
			at.prefix = prefix.Masked()
		} else if a, err := netip.ParseAddr(text); err == nil {
			at.prefix = netip.PrefixFrom(a, a.BitLen())
		} else if strings.Trim(at.text, "0123456789abcdef.:*?") != "" || at.text == "" {
			names = true
		}
		all = append(all, at)
	}
	return all, names
}

// parsePrefixes parses the value of a certificate's source-address.
func parsePrefixes(s string) (addresses, error) {
	all, names := parseFrom(s)
	for _, p := range all {
		if p.negated || !p.prefix.IsValid() || names {
			return nil, errors.New("not a list of addresses")
		}
	}
	return all, nil
}

// match reports whether a pattern matches an address, and no negated one does.
func (all addresses) match(a netip.Addr) bool {
	matched := false
	a = a.Unmap().WithZone("")
	for _, p := range all {
		if !p.matches(a) {
			continue
		}
		if p.negated {
			return false
		}
		matched = true
	}
	return matched
}

func (p pattern) matches(a netip.Addr) bool {
	if p.prefix.IsValid() {
		return p.prefix.Contains(a)
	}
	// Addresses have no character that is special to Match, and patterns none but * and ?.
	ok, err := path.Match(p.text, a.String())
	return ok && err == nil
}

// rsaBits returns the size of an RSA key in bits, or 0 if it cannot be found out.
func rsaBits(key ssh.PublicKey) int {
	if k, ok := key.(ssh.CryptoPublicKey); ok {
		if public, ok := k.CryptoPublicKey().(*rsa.PublicKey); ok {
			return public.N.BitLen()
		}
	}
	return 0
}
