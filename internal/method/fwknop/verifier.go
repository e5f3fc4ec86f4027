package fwknop

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	wire "github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// Verifier returns nil if no person has keys.
func (f *FWKnop) Verifier() method.Verifier {
	v := &verifier{method: f}
	for _, p := range f.People {
		if p.isUsable() {
			v.people = append(v.people, p)
			v.readers = append(v.readers, wire.NewReader(wire.Keys{Cipher: p.Key.Key(), HMAC: p.HMACKey.Key(), Kind: p.HMAC}))
		}
	}
	if len(v.people) == 0 {
		return nil
	}
	return v
}

type verifier struct {
	method  *FWKnop
	people  []*Person
	readers []*wire.Reader // one for each person
}

// Verify finds the person whose HMAC a datagram has.
func (v *verifier) Verify(datagram []byte, source netip.Addr, now time.Time) method.Meaning {
	for i, p := range v.people {
		r, id, err := v.readers[i].Read(datagram)
		if errors.Is(err, wire.ErrNotAuthentic) {
			continue
		}
		m := method.Meaning{Person: method.Person{Name: p.Name}}
		if err != nil {
			m.Code, m.Reason = audit.CodeNotAllowed, err.Error()
		} else {
			m.Code, m.Reason = v.method.objection(p, r, source, now)
		}
		if m.Code != "" {
			return m
		}
		m.Action, m.Code, m.Reason = method.Open, audit.CodeFwknop, "an fwknop datagram"
		m.Source, m.Window = r.Source, r.Timeout
		// The use is that of the content. It does not name the person, as a person may get
		// another name.
		m.Once = method.Use{Begins: r.Time, Early: wire.Skew, Kind: Kind.Name, Detail: hex.EncodeToString(id[:])}
		return m
	}
	return method.Meaning{Code: audit.CodeNotFwknop, Reason: "no fwknop datagram with the hmac_key of a person of this door"}
}

// objection returns why a person's request does not open the door. The code is empty if it
// does.
func (f *FWKnop) objection(p *Person, r wire.Request, source netip.Addr, now time.Time) (audit.Code, string) {
	ahead := r.Time.Sub(now).Round(time.Second)
	switch {
	case p.hasExpired(now):
		return audit.CodeExpired, fmt.Sprintf("expires = %q", p.Expires.Format(time.RFC3339))
	case ahead > wire.Skew:
		return audit.CodeClock, fmt.Sprintf("the client's clock is %s ahead", ahead)
	case ahead < -wire.Skew:
		return audit.CodeClock, fmt.Sprintf("the client's clock is %s behind, or this datagram is old", -ahead)
	case len(p.From) > 0 && !packet.Among(source.Unmap(), p.From):
		return audit.CodeNotFrom, "the datagram comes from an address that is not in \"from\""
	case p.User != "" && r.User != p.User:
		return audit.CodeNotAllowed, fmt.Sprintf("the datagram names the user %q, and not %q", r.User, p.User)
	case p.Signed && !r.Source.IsValid():
		return audit.CodeNotAllowed, `the datagram names no address, and source is "signed": use fwknop -R or -a, not -s`
	case r.Source.IsValid() && (r.Source.IsMulticast() || r.Source.IsLoopback()):
		return audit.CodeNotAllowed, fmt.Sprintf("the datagram asks for %s, from which nobody can come", r.Source)
	}
	return f.refusal(r)
}

// refusal returns why a request does not mean ports of this door. A door without ports, which
// only runs on_open, takes a request for any port: fwknopd did so with CMD_CYCLE_OPEN.
func (f *FWKnop) refusal(r wire.Request) (audit.Code, string) {
	asked := portNames(r.Ports)
	guarded := slices.ContainsFunc(r.Ports, f.guards)
	switch r.Kind {
	case wire.Command:
		return audit.CodeNotAllowed, "the datagram asks for a command (fwknop -C): knockwall runs only on_open"
	case wire.NAT:
		host, err := netip.ParseAddr(r.To.Host)
		if err != nil || !packet.Among(host.Unmap(), f.to) || !guarded && !f.guardsNumber(r.To.Port, r.Ports) {
			return audit.CodeNotAllowed, fmt.Sprintf("the datagram asks for NAT to %s (fwknop -N): knockwall makes no NAT rules, and this door does not guard that port", r.To)
		}
	case wire.LocalNAT:
		if !guarded && !f.guardsNumber(r.To.Port, r.Ports) {
			return audit.CodeNotAllowed, fmt.Sprintf("the datagram asks for %s, which should lead to port %d (fwknop --nat-local): this door guards neither", asked, r.To.Port)
		}
	case wire.Access:
		if !guarded && len(f.ports) > 0 {
			return audit.CodeNotAllowed, fmt.Sprintf("the datagram asks for %s, which this door does not guard", asked)
		}
	}
	return "", ""
}

func (f *FWKnop) guards(p packet.Port) bool { return packet.InRanges(p, f.ports) }

// guardsNumber reports whether the door guards a port with this number, with a protocol of
// the ports that were asked for.
func (f *FWKnop) guardsNumber(number uint16, asked []packet.Port) bool {
	return slices.ContainsFunc(asked, func(p packet.Port) bool {
		return f.guards(packet.Port{Number: number, Protocol: p.Protocol})
	})
}

// portNames lists ports for a message, at most a few of them.
func portNames(ports []packet.Port) string {
	const few = 5
	var names []string
	for _, p := range ports[:min(len(ports), few)] {
		names = append(names, p.String())
	}
	if len(ports) > few {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}
