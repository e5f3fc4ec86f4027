// Package invitation writes and reads invitations: one line that tells a client how to knock
// at a door.
//
//	knockwall:1/host=server.example.org/door=ssh/port=22:tcp/identity=kw1:…
//
// After the version come pairs of a name and a value. Everything but letters, digits and
// "._:-" is written as in a URL (%2F), so that no shell, terminal or chat changes the line.
// An invitation to a door with signed knocks has no secret in it.
package invitation

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// Invitation is how to knock at a door. It has one of Keyed, Knocks, Rolling and Password.
type Invitation struct {
	Host    string // the name or address by which clients call the host
	Address string // the name or address to knock at, if it is another
	User    string // by whose name the client logs in with ssh; empty: not known
	Door    string
	Port    packet.Port // that the door guards

	Keyed    *Keyed
	Knocks   []packet.Port
	Rolling  *Rolling
	Password *Password
}

// Keyed are signed knocks.
type Keyed struct {
	Identity spa.Public
	Port     uint16 // UDP
}

// Rolling is a rolling sequence.
type Rolling struct {
	Secret string
	Length int
	Ports  packet.PortRange
	Step   time.Duration // whole seconds
}

// Password is a one-time password.
type Password struct {
	Secret string
	Port   uint16 // UDP
}

// HasSecret reports whether the holder of the invitation needs nothing else to get in.
func (i *Invitation) HasSecret() bool { return i.Keyed == nil }

// Rename makes name the one by which clients call the host.
func (i *Invitation) Rename(name string) error {
	if !hostName.MatchString(name) {
		return errors.New("the name of a host has letters, digits, dots and hyphens only")
	}
	if i.Address == "" {
		i.Address = i.Host
	}
	i.Host = name
	return nil
}

// start begins every invitation of this version.
const start = "knockwall:1"

// maxLength is the maximum length of an invitation in bytes, as much as a QR code holds.
const maxLength = 2953

// String returns the line.
func (i *Invitation) String() string {
	b := []byte(start)
	add := func(name, value string) {
		b = append(append(append(b, '/'), name...), '=')
		for _, c := range []byte(value) {
			if isPlain(c) {
				b = append(b, c)
			} else {
				b = fmt.Appendf(b, "%%%02X", c)
			}
		}
	}
	add("host", i.Host)
	if i.Address != "" {
		add("address", i.Address)
	}
	if i.User != "" {
		add("user", i.User)
	}
	add("door", i.Door)
	add("port", word(i.Port))
	switch {
	case i.Keyed != nil:
		add("identity", i.Keyed.Identity.String())
		add("udp", strconv.Itoa(int(i.Keyed.Port)))
	case i.Rolling != nil:
		add("rolling", i.Rolling.Secret)
		add("length", strconv.Itoa(i.Rolling.Length))
		add("ports", strings.ReplaceAll(i.Rolling.Ports.String(), "/", ":"))
		add("step", strconv.Itoa(int(i.Rolling.Step/time.Second)))
	case i.Password != nil:
		add("password", i.Password.Secret)
		add("udp", strconv.Itoa(int(i.Password.Port)))
	default:
		for _, p := range i.Knocks {
			add("knock", word(p))
		}
	}
	return string(b)
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._:-", c) >= 0
}

// word returns a port without a slash.
func word(p packet.Port) string { return fmt.Sprintf("%d:%s", p.Number, p.Protocol) }

var (
	// hostName is a name of the DNS or an address.
	hostName = regexp.MustCompile(`^[A-Za-z0-9_:]([A-Za-z0-9_.:-]{0,252})$`)
	// userName is a name that useradd(8) takes.
	userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	// secretText is text that hosts files can have in quotes as it is.
	secretText = regexp.MustCompile(`^[!#-&(-\[\]-z|~ ]{1,255}$`)
)

// IsSecretText reports whether an invitation can have a secret. It can have printable ASCII
// except quotes, backslashes and braces.
func IsSecretText(secret string) bool { return secretText.MatchString(secret) }

// IsUserName reports whether an invitation can have the name of a user.
func IsUserName(name string) bool { return userName.MatchString(name) }

// errBroken is the error for text that is no invitation.
var errBroken = errors.New("this is not an invitation. It is one line that begins with knockwall:1 and comes from `knockwall invite` on the host: copy all of it")

// Parse reads an invitation. White space around it and within it does not count, as chats
// and terminals break long lines. Errors quote no value.
func Parse(line string) (*Invitation, error) {
	if len(line) > 2*maxLength {
		return nil, errBroken
	}
	line = strings.Join(strings.Fields(line), "")
	version, rest, ok := strings.Cut(line, "/")
	switch {
	case version != start && strings.HasPrefix(version, "knockwall:"):
		return nil, errors.New("the invitation was made by a newer knockwall: install that version here too")
	case version != start || !ok || len(line) > maxLength:
		return nil, errBroken
	}
	p := parser{i: &Invitation{}, seen: map[string]bool{}}
	for pair := range strings.SplitSeq(rest, "/") {
		name, written, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(written)
		if !ok || err != nil {
			return nil, errBroken
		}
		if p.seen[name] && name != "knock" {
			return nil, fmt.Errorf("the invitation has %q twice: copy the line again", name)
		}
		p.seen[name] = true
		if !p.set(name, value) {
			return nil, fmt.Errorf("the invitation is damaged at %q: copy the line again", name)
		}
	}
	return p.end()
}

type parser struct {
	i       *Invitation
	seen    map[string]bool
	keyed   Keyed
	rolling Rolling
	secret  string // of passwords
	udp     uint16
}

// set reads a value. It returns false if there is no such name or if the value is wrong.
func (p *parser) set(name, value string) bool {
	var err error
	ok := true
	switch name {
	case "host":
		p.i.Host, ok = value, hostName.MatchString(value)
	case "address":
		p.i.Address, ok = value, hostName.MatchString(value)
	case "user":
		p.i.User, ok = value, IsUserName(value)
	case "door":
		p.i.Door, ok = value, ruleset.IsDoorName(value)
	case "port":
		p.i.Port, err = packet.ParsePort(value)
	case "identity":
		p.keyed.Identity, err = spa.ParsePublic(value)
	case "udp":
		p.udp, ok = packet.ParsePortNumber(value)
	case "knock":
		var knock packet.Port
		knock, err = packet.ParsePort(value)
		p.i.Knocks = append(p.i.Knocks, knock)
		ok = len(p.i.Knocks) <= sequence.MaxSteps
	case "rolling":
		p.rolling.Secret, ok = value, IsSecretText(value)
	case "length":
		p.rolling.Length, err = strconv.Atoi(value)
		ok = 1 <= p.rolling.Length && p.rolling.Length <= sequence.MaxSteps
	case "ports":
		p.rolling.Ports, err = packet.ParsePortRange(value)
	case "step":
		var seconds int
		seconds, err = strconv.Atoi(value)
		p.rolling.Step = time.Duration(seconds) * time.Second
		ok = 1 <= seconds && seconds <= 24*3600
	case "password":
		p.secret, ok = value, IsSecretText(value)
	default:
		return false
	}
	return ok && err == nil
}

// ways are the names that a way to knock needs. The first tells the ways apart.
var ways = [][]string{{"identity", "udp"}, {"knock"}, {"rolling", "length", "ports", "step"}, {"password", "udp"}}

// end checks that nothing is missing or too much.
func (p *parser) end() (*Invitation, error) {
	want := []string{"host", "door", "port"}
	found := 0
	for _, names := range ways {
		if p.seen[names[0]] {
			want = append(want, names...)
			found++
		}
	}
	if found != 1 {
		return nil, errors.New("the invitation has not one way to knock: copy the line again")
	}
	for _, name := range want {
		if !p.seen[name] {
			return nil, fmt.Errorf("the invitation has no %q: copy the line again, to its end", name)
		}
		delete(p.seen, name)
	}
	delete(p.seen, "address")
	delete(p.seen, "user")
	for name := range p.seen {
		return nil, fmt.Errorf("the invitation has a %q that does not belong there: copy the line again", name)
	}
	switch {
	case p.keyed.Identity != spa.Public{}:
		p.keyed.Port = p.udp
		p.i.Keyed = &p.keyed
	case p.rolling.Secret != "":
		p.i.Rolling = &p.rolling
	case p.secret != "":
		p.i.Password = &Password{p.secret, p.udp}
	}
	return p.i, nil
}
