package people

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
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

// parseFrom parses the value of from=.
func parseFrom(s string) (all addresses) {
	for p := range strings.SplitSeq(s, ",") {
		text, negated := strings.CutPrefix(strings.TrimSpace(p), "!")
		at := pattern{negated: negated, text: strings.ToLower(text)}
		if prefix, err := netip.ParsePrefix(text); err == nil {
			at.prefix = prefix.Masked()
		} else if a, err := netip.ParseAddr(text); err == nil {
			at.prefix = netip.PrefixFrom(a, a.BitLen())
		}
		all = append(all, at)
	}
	return all
}

// parsePrefixes parses the value of a certificate's source-address.
func parsePrefixes(s string) (addresses, error) {
	all := parseFrom(s)
	for _, p := range all {
		if p.negated || !p.prefix.IsValid() {
			return nil, errors.New("not a list of addresses")
		}
	}
	return all, nil
}

// problem returns a warning if a pattern matches no address, whatever the client, or if no
// pattern allows anybody.
func (all addresses) problem() *Problem {
	const cure = ` Write addresses, as in from="192.0.2.0/24,2001:db8::*".`
	negated := 0
	for _, p := range all {
		effect := "allows nobody"
		if p.negated {
			negated++
			effect = "keeps nobody out"
		}
		switch {
		case p.prefix.IsValid():
		case strings.Trim(p.text, "0123456789abcdef.:*?/") != "":
			return &Problem{Warning: true, Summary: "Host name in from=", Detail: "knockwall looks up no names, so this pattern " + effect + "." + cure}
		case !p.isPossible():
			return &Problem{Warning: true, Summary: "No such address in from=", Detail: fmt.Sprintf("No address is like %q, so this pattern %s.", p.text, effect) + cure}
		}
	}
	if negated == len(all) {
		return &Problem{Warning: true, Summary: "No address is allowed", Detail: `Patterns that begin with ! only keep clients out. Write those that may come in, too: from="*,!192.0.2.7".`}
	}
	return nil
}

// isPossible reports whether a text of digits, separators and wildcards may match an address.
// A text without a wildcard does not, as it is no address. The others are compared with how
// addresses are written, part by part.
func (p pattern) isPossible() bool {
	if !strings.ContainsAny(p.text, "*?") || strings.Contains(p.text, "/") {
		return false
	}
	separator, parts, base, most := ".", 4, 10, uint64(255)
	if strings.Contains(p.text, ":") {
		separator, parts, base, most = ":", 8, 16, 0xffff
	}
	if strings.Count(p.text, separator) >= parts {
		return false
	}
	for part := range strings.SplitSeq(p.text, separator) {
		if part == "" || strings.ContainsAny(part, "*?.") {
			continue
		}
		n, err := strconv.ParseUint(part, base, 64)
		if err != nil || n > most || len(part) > 1 && part[0] == '0' {
			return false
		}
	}
	return true
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
