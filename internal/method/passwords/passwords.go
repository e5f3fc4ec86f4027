// Package passwords is the method of one-time passwords: otp { port = "2000/udp" … }.
// Package otp makes and checks them.
package passwords

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
)

// Kind reads the block.
var Kind = method.Kind{Name: "otp", Block: read, Fields: raw{}, Shown: []string{"port", "skew"}}

// OTP is the method.
type OTP struct {
	Port        packet.Port
	Open, Close secret.Secret // Close may be unset
	Skew        time.Duration

	at    raw
	block hcl.Range
}

// raw is the block as HCL decodes it.
type raw struct {
	Port        hcl.Expression `hcl:"port"`
	OpenSecret  hcl.Expression `hcl:"open_secret"`
	CloseSecret hcl.Expression `hcl:"close_secret,optional"`
	Skew        hcl.Expression `hcl:"skew,optional"`
}

func read(r method.Reader, d *method.Door, b *hcl.Block) method.Method {
	o := &OTP{block: b.DefRange}
	at := &o.at
	r.Decode(b, at)
	if !r.Lacks(at.Port, b.DefRange, "No port", `Clients send the passwords to a port: port = "2000/udp".`) {
		o.readPort(r, d)
	}
	o.Open = r.Secret(at.OpenSecret, b.DefRange)
	if !r.IsAbsent(at.CloseSecret) {
		o.Close = r.Secret(at.CloseSecret, b.DefRange)
	}
	r.Duration(at.Skew, &o.Skew, 0, otp.MaxSkew)
	same := o.Open.IsSet() && o.Open.Equal(o.Close)
	for _, s := range []struct {
		at hcl.Expression
		of *secret.Secret
	}{{at.OpenSecret, &o.Open}, {at.CloseSecret, &o.Close}} {
		if n := len(s.of.Key()); n > otp.MaxSecret {
			r.Lack(s.at, "Secret too long", fmt.Sprintf("The secret of a one-time password has at most %d bytes, as in xt_pknock. This one has %d.", otp.MaxSecret, n))
			*s.of = secret.Secret{}
		}
	}
	if same {
		r.Lack(at.CloseSecret, "Same secret for opening and closing", "Use another secret for close_secret than for open_secret.")
		o.Close = secret.Secret{}
	}
	return o
}

// readPort reads the port. Nothing else of the door may use it.
func (o *OTP) readPort(r method.Reader, d *method.Door) {
	e := o.at.Port
	s, ok := r.Value(e)
	if !ok {
		return
	}
	p, err := packet.ParsePort(s)
	switch isKnock, mayBe := d.Knocks(p); {
	case err != nil:
		r.Fail(e, "Not a port", `Write one port, from 1 to 65535, such as "2000/udp".`)
	case p.Protocol != packet.UDP:
		r.Fail(e, "Not a UDP port", fmt.Sprintf(`A one-time password is one datagram: write "%d/udp".`, p.Number))
	case isKnock:
		r.Fail(e, "One-time password at a knock", fmt.Sprintf("%s is one of the door's knocks. Choose another port for one of the two.", p))
	case mayBe:
		r.Fail(e, "One-time password at a knock", fmt.Sprintf("The door's knocks are chosen from a range that contains %s. Choose another port.", p))
	case d.Guards(p):
		r.Fail(e, "One-time password at a guarded port", fmt.Sprintf("The door guards %s. Choose another port.", p))
	}
	o.Port = p
}

func (*OTP) Name() string                  { return Kind.Name }
func (*OTP) Traits() method.Traits         { return method.Traits{Replay: true, Clock: true} }
func (*OTP) Describe(time.Duration) string { return "a one-time password" }

func (o *OTP) Ports() (fixed, chosen []packet.PortRange) {
	return packet.Ranges([]packet.Port{o.Port}), nil
}

func (o *OTP) Changes(former method.Method) (c method.Changes) {
	was := former.(*OTP)
	c.Value("otp: port", was.Port, o.Port)
	c.Hidden("otp: open_secret", o.Open.Equal(was.Open))
	c.Hidden("otp: close_secret", o.Close.Equal(was.Close))
	c.Value("otp: skew", was.Skew, o.Skew)
	return c
}

// Resolve returns the port, with the number of hashes per datagram: one for each secret and
// each minute that Skew allows.
func (o *OTP) Resolve(time.Time) (method.State, error) {
	hashes := 1 + 2*int((o.Skew+time.Minute-1)/time.Minute)
	if o.Close.IsSet() {
		hashes *= 2
	}
	return method.State{Datagrams: []method.Datagram{{Port: o.Port, Sizes: []method.Sizes{method.Exactly(otp.Size)}, Cost: hashes}}}, nil
}

// Verifier returns nil if the secret could not be read, as anybody can compute passwords
// with an empty secret.
func (o *OTP) Verifier() method.Verifier {
	if !o.Open.IsSet() {
		return nil
	}
	v := &verifier{method: o, open: otp.NewVerifier(o.Open.Key(), o.Skew)}
	if o.Close.IsSet() {
		v.close = otp.NewVerifier(o.Close.Key(), o.Skew)
	}
	return v
}

type verifier struct {
	method      *OTP
	open, close *otp.Verifier
}

func (v *verifier) Verify(datagram []byte, source netip.Addr, now time.Time) method.Meaning {
	if code, minute, ok := v.open.Verify(datagram, source, now); ok {
		return method.Meaning{Action: method.Open, Code: audit.CodePassword, Reason: "a one-time password", Once: v.use(code, minute)}
	}
	if v.close != nil {
		if code, minute, ok := v.close.Verify(datagram, source, now); ok {
			return method.Meaning{Action: method.Close, Code: audit.CodeClosePassword, Reason: "a one-time password to close", Once: v.use(code, minute)}
		}
	}
	return method.Meaning{Code: audit.CodeNotAPassword, Reason: "no one-time password of this minute for this address"}
}

// use returns the use of a password. Its time is the minute and not the end of validity, as
// the skew may change with a reload.
func (v *verifier) use(code otp.Code, minute int64) method.Use {
	return method.Use{
		Begins: time.Unix(60*minute, 0), Early: v.method.Skew,
		Kind: "otp", Detail: hex.EncodeToString(code[:]),
	}
}

// Advise warns of short secrets, and of secrets that another door also has. A password is
// valid once at each door, so somebody who overhears it at one can use it at the other.
func (o *OTP) Advise(r method.Reader, doors []method.Door, own int) {
	method.AdviseSecret(r, o.at.OpenSecret, o.Open)
	method.AdviseSecret(r, o.at.CloseSecret, o.Close)
	for _, other := range doors[:own] {
		for _, m := range other.Methods {
			if theirs, ok := m.(*OTP); ok && o.shares(theirs) {
				r.WarnAt(o.block, "Two doors with one secret", fmt.Sprintf("The door %q has the same secret. Somebody who overhears a password at one door can use it at the other. "+
					"Give each door its own secrets, or make one door of both.", other.Name))
				return
			}
		}
	}
}

func (o *OTP) shares(other *OTP) bool {
	for _, theirs := range []secret.Secret{other.Open, other.Close} {
		if theirs.IsSet() && (o.Open.Equal(theirs) || o.Close.Equal(theirs)) {
			return true
		}
	}
	return false
}
