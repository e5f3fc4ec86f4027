package people

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Place is a part of a line in a file.
type Place struct {
	Line     int // from 1 on
	Begin    int // of the line in the file, in bytes
	From, To int // bytes of the line, from 0 on
}

// Problem is an error or a warning about a place in a file.
type Problem struct {
	Place
	Warning         bool
	Summary, Detail string
}

// problems collects problems of one line at a time.
type problems struct {
	all         []Problem
	line, begin int // of the line that is read
}

// at returns a place in the line that is read.
func (p *problems) at(from, to int) Place { return Place{p.line, p.begin, from, to} }

func (p *problems) fail(from, to int, summary, detail string) {
	p.all = append(p.all, Problem{Place: p.at(from, to), Summary: summary, Detail: detail})
}

func (p *problems) warn(from, to int, summary, detail string) {
	p.all = append(p.all, Problem{Place: p.at(from, to), Warning: true, Summary: summary, Detail: detail})
}

// The range of window=.
const (
	minWindow = 100 * time.Millisecond
	maxWindow = 24 * time.Hour
)

// Authorize adds the lines of an authorized_keys file. It leaves out lines with errors.
func (l *List) Authorize(file string, text []byte) []Problem {
	var p problems
	before := l.Len()
	p.each(text, func(s string) {
		line := p.parse(s)
		if line == nil {
			return
		}
		line.File, line.Number = file, p.line
		of := l.keys
		if line.Authority {
			of = l.authorities
		}
		if first := of[line.Fingerprint]; first != nil {
			p.warn(0, len(s), "Key that is listed twice",
				fmt.Sprintf("Line %d of %s has this key, too, and is used. Delete one of the two lines.", first.Number, first.File))
			return
		}
		of[line.Fingerprint] = line
	})
	if l.Len() == before && len(p.all) == 0 {
		p.line, p.begin = 1, 0
		p.warn(0, 0, "Nobody is listed", "The file has no key. Add a line for each person, such as those in ~/.ssh/id_ed25519.pub.")
	}
	return p.all
}

// each calls f with each line that is neither empty nor a comment, without the spaces at its
// end.
func (p *problems) each(text []byte, f func(string)) {
	for next := 0; next < len(text); {
		p.line, p.begin = p.line+1, next
		line := text[next:]
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			line = line[:end+1]
		}
		next += len(line)
		if p.line > maxLines {
			p.fail(0, len(line), "Too many lines", fmt.Sprintf("A file has at most %d lines.", maxLines))
			return
		}
		s := strings.TrimRight(string(line), " \t\r\n")
		if t := strings.TrimLeft(s, " \t"); t != "" && t[0] != '#' {
			f(s)
		}
	}
}

// parse parses a line. After an error it returns nil.
func (p *problems) parse(s string) *Line {
	options, rest, ok := p.options(s)
	if !ok {
		return nil
	}
	at := len(s) - len(rest)
	key, comment, err := parseKey(rest)
	if err != nil {
		p.fail(at, len(s), "Not a public key", sentence(err)+" A line is the text of a .pub file, such as \"ssh-ed25519 AAAA… alice\", with options before it.")
		return nil
	}
	if reason := unfit(key); reason != "" {
		p.fail(at, len(s), "Key that sshd no longer takes", reason+" Make another: ssh-keygen -t ed25519.")
		return nil
	}
	fingerprint := FingerprintOf(key)
	line := &Line{Key: key, Fingerprint: fingerprint, Name: nameOr(comment, fingerprint)}
	good := true
	for i, o := range options {
		if slices.ContainsFunc(options[:i], func(other option) bool { return strings.EqualFold(other.name, o.name) }) {
			p.fail(o.from, o.to, "Option that is given twice", fmt.Sprintf("Write %s once.", o.name))
			good = false
			continue
		}
		if strings.EqualFold(o.name, "doors") {
			line.DoorsAt = p.at(o.from, o.to)
		}
		if problem := line.apply(o); problem != nil {
			problem.Place = p.at(o.from, o.to)
			p.all = append(p.all, *problem)
			good = good && problem.Warning
		}
	}
	if line.principals != nil && !line.Authority {
		p.warn(at, len(s), "Principals of a plain key", "Only certificates have principals. Add cert-authority, or delete principals=.")
	}
	if !good {
		return nil
	}
	return line
}

// parseKey parses a public key with a comment.
func parseKey(s string) (key ssh.PublicKey, comment string, err error) {
	kind, _, _ := strings.Cut(s, " ")
	if strings.Contains(s, "\n") {
		return nil, "", errors.New("it has more than one line")
	}
	key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(s))
	switch {
	case err != nil || len(options) > 0:
		if strings.HasPrefix(kind, "ssh-") || strings.HasPrefix(kind, "ecdsa-") || strings.HasPrefix(kind, "sk-") {
			return nil, "", fmt.Errorf("the key of type %s is damaged or unknown", kind)
		}
		return nil, "", errors.New("this is no key")
	case strings.Contains(key.Type(), "-cert-"):
		return nil, "", errors.New("this is a certificate. Write the key of its authority, with the option cert-authority")
	}
	return key, comment, nil
}

// minRSA is the size of RSA keys in bits that are safe today.
const minRSA = 2048

// unfit returns why a key must not be used, or "".
func unfit(key ssh.PublicKey) string {
	switch key.Type() {
	case "ssh-dss": // the constant is deprecated, as DSA is
		return "DSA keys are too weak."
	case ssh.KeyAlgoRSA:
		if bits := rsaBits(key); bits < minRSA {
			return fmt.Sprintf("An RSA key of %d bits is too weak.", bits)
		}
	}
	return ""
}

// option is an option with its place in the line.
type option struct {
	name, value string
	hasValue    bool
	from, to    int
}

// options splits a line into its options and the rest. Source: AUTHORIZED_KEYS FILE FORMAT
// in sshd(8).
func (p *problems) options(s string) (options []option, rest string, ok bool) {
	at := len(s) - len(strings.TrimLeft(s, " \t"))
	if _, _, err := parseKey(s[at:]); err == nil || isKeyType(s[at:]) {
		return nil, s[at:], true
	}
	for {
		o := option{from: at}
		for at < len(s) && (isNameByte(s[at])) {
			at++
		}
		o.name = s[o.from:at]
		if o.name == "" {
			p.fail(o.from, len(s), "Not an option", "Options are separated by commas, without spaces: from=\"192.0.2.0/24\",doors=\"ssh\".")
			return nil, "", false
		}
		if at < len(s) && s[at] == '=' {
			o.hasValue = true
			at++
			if at == len(s) || s[at] != '"' {
				p.fail(o.from, min(at+1, len(s)), "Value without quotes", fmt.Sprintf("Write the value in quotes: %s=\"…\".", o.name))
				return nil, "", false
			}
			var value []byte
			for at++; ; at++ {
				if at == len(s) {
					p.fail(o.from, at, "Missing quote", "The quote that ends the value is missing.")
					return nil, "", false
				}
				if s[at] == '\\' && at+1 < len(s) && s[at+1] == '"' {
					at++
				} else if s[at] == '"' {
					break
				}
				value = append(value, s[at])
			}
			at++
			o.value = string(value)
		}
		o.to = at
		options = append(options, o)
		if at < len(s) && s[at] == ',' {
			at++
			continue
		}
		rest = strings.TrimLeft(s[at:], " \t")
		if rest == "" || rest == s[at:] {
			if isKeyTypeLike(o.name) {
				p.fail(o.from, len(s), "Not a public key", "The line has no key. A line is the text of a .pub file, such as \"ssh-ed25519 AAAA… alice\".")
			} else {
				p.fail(o.from, len(s), "Line without a key", "After the options comes a public key: the text of a .pub file.")
			}
			return nil, "", false
		}
		return options, rest, true
	}
}

func isNameByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-' || b == '_' || b == '@' || b == '.'
}

// isKeyType reports whether a text begins with the type of a key, and not with an option.
func isKeyType(s string) bool {
	kind, rest, ok := strings.Cut(s, " ")
	return ok && rest != "" && isKeyTypeLike(kind)
}

func isKeyTypeLike(s string) bool {
	return strings.HasPrefix(s, "ssh-") || strings.HasPrefix(s, "ecdsa-sha2-") || strings.HasPrefix(s, "sk-ssh-") || strings.HasPrefix(s, "sk-ecdsa-")
}

// sshdOnly are the options that concern the session, and whether they have a value.
var sshdOnly = map[string]bool{
	"agent-forwarding": false, "no-agent-forwarding": false, "port-forwarding": false, "no-port-forwarding": false,
	"pty": false, "no-pty": false, "user-rc": false, "no-user-rc": false, "x11-forwarding": false, "no-x11-forwarding": false,
	"restrict": false, "command": true, "environment": true, "permitlisten": true, "permitopen": true, "tunnel": true,
}

// apply applies an option to the line.
func (l *Line) apply(o option) *Problem {
	name := strings.ToLower(o.name)
	switch name {
	case "from", "expiry-time", "principals", "doors", "window":
		if !o.hasValue || o.value == "" {
			return &Problem{Summary: "Option without a value", Detail: fmt.Sprintf("Write the value in quotes: %s=\"…\".", name)}
		}
	case "cert-authority", "verify-required", "no-touch-required":
		if o.hasValue {
			return &Problem{Summary: "Option with a value", Detail: fmt.Sprintf("%s has no value. Delete what follows it.", name)}
		}
	}
	switch name {
	case "cert-authority":
		l.Authority = true
	case "verify-required":
		l.verifyUser = true
	case "no-touch-required":
		return &Problem{Warning: true, Summary: "Touch is required", Detail: "A knock needs a touch of the hardware key, whatever this option says."}
	case "from":
		l.hasLimit = true
		l.from = parseFrom(o.value)
		return l.from.problem()
	case "expiry-time":
		t, err := parseExpiry(o.value)
		if err != nil {
			return &Problem{Summary: "Not a time", Detail: "Write the time as sshd takes it: expiry-time=\"20271231\" or \"202712312359\", with a Z behind it for UTC."}
		}
		l.Expires = t
	case "principals":
		l.principals = strings.Split(o.value, ",")
	case "doors":
		l.Doors = strings.Split(o.value, ",")
	case "window":
		d, err := time.ParseDuration(o.value)
		if err != nil || d < minWindow || d > maxWindow {
			return &Problem{Summary: "Not a window", Detail: fmt.Sprintf("Write a duration from %s to %s, as in window=\"10m\".", minWindow, "24h")}
		}
		l.Window = d
	default:
		hasValue, known := sshdOnly[name]
		if !known {
			return &Problem{Summary: "Unknown option", Detail: fmt.Sprintf("Neither sshd nor knockwall has an option %q. knockwall's own are doors=\"ssh,vpn\" and window=\"10m\".", o.name)}
		}
		if hasValue != o.hasValue && hasValue {
			return &Problem{Summary: "Option without a value", Detail: fmt.Sprintf("Write the value in quotes: %s=\"…\".", name)}
		}
	}
	return nil
}

// parseExpiry parses a time as sshd does: YYYYMMDD[HHMM[SS]], with Z for UTC.
func parseExpiry(s string) (time.Time, error) {
	location := time.Local
	digits, utc := strings.CutSuffix(s, "Z")
	if utc {
		location = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			return time.ParseInLocation(layout, digits, location)
		}
	}
	return time.Time{}, errors.New("not a time")
}

// sentence returns an error as a sentence.
func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
