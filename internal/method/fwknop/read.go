package fwknop

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/hcl/v2"

	wire "github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
)

// raw is a block as HCL decodes it.
type raw struct {
	Port    hcl.Expression `hcl:"port,optional"`
	Key     hcl.Expression `hcl:"key"`
	HMACKey hcl.Expression `hcl:"hmac_key"`
	HMAC    hcl.Expression `hcl:"hmac,optional"`
	User    hcl.Expression `hcl:"user,optional"`
	Source  hcl.Expression `hcl:"source,optional"`
	From    hcl.Expression `hcl:"from,optional"`
	Expires hcl.Expression `hcl:"expires,optional"`
}

func read(r method.Reader, d *method.Door, blocks []*hcl.Block) method.Method {
	f := &FWKnop{ports: d.Ports, to: d.To}
	for _, b := range blocks {
		p := readPerson(r, d, b)
		for _, other := range f.People {
			switch {
			case other.Name == p.Name:
				r.FailAt(b.LabelRanges[0], "Two blocks of one person", fmt.Sprintf("The block in line %d has the same name. Give this one another.", other.block.Start.Line))
			case p.HMACKey.IsSet() && p.HMACKey.Equal(other.HMACKey):
				r.Lack(p.at.HMACKey, "Two persons with one key", fmt.Sprintf("The block in line %d has the same hmac_key, so nobody could tell who knocks. Give each person keys of their own: fwknop --key-gen.", other.block.Start.Line))
				p.HMACKey = secret.Secret{}
			}
		}
		f.People = append(f.People, p)
	}
	return f
}

func readPerson(r method.Reader, d *method.Door, b *hcl.Block) *Person {
	p := &Person{Name: b.Labels[0], Port: packet.Port{Number: wire.Port, Protocol: packet.UDP}, block: b.DefRange}
	if !isName(p.Name) {
		r.FailAt(b.LabelRanges[0], "Not a person", fmt.Sprintf("A person's name has 1 to %d characters that can be printed.", maxName))
	}
	at := &p.at
	r.Decode(RefuseGPG(r, b), at)
	p.readPort(r, d)
	p.Key, p.HMACKey, p.HMAC = ReadKeys(r, at.Key, at.HMACKey, at.HMAC, b.DefRange)
	if user, ok := text(r, at.User); ok {
		p.User = user
		if user == "" {
			r.Fail(at.User, "No user", "Write the user that the client sends (SPOOF_USER, else the name of its user), or leave this line out.")
		}
	}
	switch source, ok := text(r, at.Source); {
	case !ok, source == "packet":
	case source == "signed":
		p.Signed = true
	default:
		r.Fail(at.Source, "Not one of the choices", `Write "packet" or "signed".`)
	}
	if !r.IsAbsent(at.From) {
		p.From = r.Addresses(at.From, "Nobody could come from there. Leave \"from\" out for any address.")
	}
	if date, ok := text(r, at.Expires); ok {
		if p.Expires, ok = parseDate(date); !ok {
			r.Fail(at.Expires, "Not a date", `Write the day on which the person can no longer come in, such as "2027-01-31", or a time such as "2027-01-31T18:00:00Z".`)
		}
	}
	return p
}

// maxName is the maximum length of a person's name in bytes.
const maxName = 64

func isName(s string) bool {
	return s != "" && len(s) <= maxName && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// text returns the value of an optional attribute. It returns false if there is none.
func text(r method.Reader, e hcl.Expression) (string, bool) {
	if r.IsAbsent(e) {
		return "", false
	}
	return r.Value(e)
}

// readPort reads the port. It may be the port of other methods' datagrams.
func (p *Person) readPort(r method.Reader, d *method.Door) {
	s, ok := text(r, p.at.Port)
	if ok {
		port, err := packet.ParsePort(s)
		switch {
		case err != nil:
			r.Fail(p.at.Port, "Not a port", `Write one port, from 1 to 65535, such as "62201/udp".`)
			return
		case port.Protocol != packet.UDP:
			r.Fail(p.at.Port, "Not a UDP port", fmt.Sprintf(`fwknop sends one datagram: write "%d/udp".`, port.Number))
			return
		}
		p.Port = port
	}
	fail := func(summary, detail string) {
		if ok {
			r.Fail(p.at.Port, summary, detail)
		} else {
			r.FailAt(p.block, summary, detail+` Without "port" it is 62201/udp.`)
		}
	}
	switch isKnock, mayBe := d.Knocks(p.Port); {
	case isKnock:
		fail("fwknop at a knock", fmt.Sprintf("%s is one of the door's knocks. Choose another port for one of the two.", p.Port))
	case mayBe:
		fail("fwknop at a knock", fmt.Sprintf("The door's knocks are chosen from a range that contains %s. Choose another port.", p.Port))
	case d.Guards(p.Port):
		fail("fwknop at a guarded port", fmt.Sprintf("The door guards %s. Choose another port.", p.Port))
	}
}

// ReadKeys reads the attributes key, hmac_key and hmac of a block. A key is unset if it
// cannot be used.
func ReadKeys(r method.Reader, key, hmacKey, hmac hcl.Expression, block hcl.Range) (cipher, mac secret.Secret, kind wire.HMAC) {
	cipher, mac = readKey(r, key, block, wire.MaxKey), readKey(r, hmacKey, block, wire.MaxHMACKey)
	if cipher.IsSet() && cipher.Equal(mac) {
		r.Lack(hmacKey, "Same key twice", "fwknop needs two different keys: fwknop --key-gen makes both.")
		mac = secret.Secret{}
	}
	if name, ok := text(r, hmac); ok {
		var err error
		if kind, err = wire.ParseHMAC(name); err != nil {
			r.Fail(hmac, "Not a kind of HMAC", "Write the HMAC_DIGEST_TYPE of the other side: md5, sha1, sha256, sha384, sha512, sha3_256 or sha3_512.")
		}
	}
	return cipher, mac, kind
}

// readKey reads a key, which is written in base64.
func readKey(r method.Reader, e hcl.Expression, block hcl.Range, most int) secret.Secret {
	s := r.Secret(e, block)
	if !s.IsSet() {
		return s
	}
	key, err := wire.ParseKey(s.Key(), most)
	if err != nil {
		r.Lack(e, "Not a key of fwknop", r.Explain(err, ""))
	}
	return secret.New(key)
}

// parseDate parses a day, which stands for its beginning in this host's time zone, or a
// time.
func parseDate(s string) (time.Time, bool) {
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, true
	}
	t, err := time.Parse(time.RFC3339, s)
	return t, err == nil
}
