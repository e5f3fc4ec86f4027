package hosts

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/fwknop"
	"github.com/knockwall/knockwall/internal/method/lists"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/ruleset"
)

// fields are what a block can have.
type fields struct {
	Address hcl.Expression `hcl:"address,optional"`
	Source  hcl.Expression `hcl:"source,optional"`

	Identity hcl.Expression `hcl:"identity,optional"`
	Door     hcl.Expression `hcl:"door,optional"`
	Key      hcl.Expression `hcl:"key,optional"`
	Port     hcl.Expression `hcl:"port,optional"`

	Knock   hcl.Expression `hcl:"knock,optional"`
	List    hcl.Expression `hcl:"one_time_sequences,optional"`
	Rolling *inner         `hcl:"rolling,block"`
	OTP     *inner         `hcl:"otp,block"`
	Fwknop  *inner         `hcl:"fwknop,block"`
}

// inner is a block that a method reads.
type inner struct {
	Body  hcl.Body  `hcl:",remain"`
	Range hcl.Range `hcl:",def_range"`
}

func (b *inner) block(kind *method.Kind) *hcl.Block {
	return &hcl.Block{Type: kind.Name, Body: b.Body, DefRange: b.Range}
}

// dialect is the language of hosts files.
var dialect = ruleset.NewDialect("a hosts file", "host", fields{}, &rolling.Kind, &passwords.Kind, &fwknop.Kind)

// host reads the values of a block. Errors are in the diagnostics of r.
func (b *block) host(r method.Reader) *Host {
	f := &b.fields
	h := &Host{At: fmt.Sprintf("%s line %d", b.DefRange.Filename, b.DefRange.Start.Line)}
	r.Text(f.Address, &h.Address)
	ways := b.ways(r)
	switch len(ways) {
	case 0:
		r.FailAt(b.DefRange, "No way to knock", `A host needs one of identity, knock, rolling, otp, one_time_sequences and fwknop: knock = [4113, "27911/udp", 1840].`)
		return nil
	case 1:
		ways[0](h)
	default:
		r.FailAt(b.DefRange, "Several ways to knock", "A host has only one of identity, knock, rolling, otp, one_time_sequences and fwknop. "+
			"Remove the others, or write a block with another name for each, with an address.")
		return nil
	}
	if h.Keyed == nil {
		for _, e := range []hcl.Expression{f.Door, f.Key, f.Port} {
			if !r.IsAbsent(e) {
				r.Fail(e, "Not for this way to knock", "door, key and port are for hosts with an identity. Write identity, or remove this line.")
			}
		}
	}
	if _, otp := h.Method.(*passwords.OTP); h.Keyed != nil || h.Fwknop != nil || otp {
		h.Source = readSource(r, f.Source)
	} else if !r.IsAbsent(f.Source) {
		r.Fail(f.Source, "Not for this way to knock", "Knocks open the door for the address that they come from. source is for hosts with identity, otp or fwknop.")
	}
	return h
}

// ways returns the ways to knock that the block has, as functions that read them.
func (b *block) ways(r method.Reader) (ways []func(*Host)) {
	f := &b.fields
	if !r.IsAbsent(f.Identity) {
		ways = append(ways, func(h *Host) { h.Keyed = b.keyed(r) })
	}
	if !r.IsAbsent(f.Knock) {
		ways = append(ways, func(h *Host) { h.Method = b.knocks(r) })
	}
	if !r.IsAbsent(f.List) {
		ways = append(ways, func(h *Host) { h.Method = lists.Kind.Attribute(r, &method.Door{}, f.List) })
	}
	for _, way := range []struct {
		kind *method.Kind
		at   *inner
	}{{&rolling.Kind, f.Rolling}, {&passwords.Kind, f.OTP}} {
		if way.at != nil {
			ways = append(ways, func(h *Host) { h.Method = way.kind.Block(r, &method.Door{}, way.at.block(way.kind)) })
		}
	}
	if f.Fwknop != nil {
		ways = append(ways, func(h *Host) { h.Fwknop = readFwknop(r, f.Fwknop.block(&fwknop.Kind)) })
	}
	return ways
}

// knocks reads a sequence. It is a secret in plain text.
func (b *block) knocks(r method.Reader) method.Method {
	e := b.fields.Knock
	m := fixed.Kind.Attribute(r, &method.Door{}, e)
	if m != nil && r.IsExposed(e) {
		r.Fail(e, "Knocks that others can read", fmt.Sprintf(
			"Whoever knows the knocks can come in, and others can read or write %s. Run chmod o= %[1]s.", e.Range().Filename))
	}
	return m
}

func (b *block) keyed(r method.Reader) *Keyed {
	f := &b.fields
	k := &Keyed{Port: DefaultPort}
	if text, ok := r.Value(f.Identity); ok {
		var err error
		if k.Identity, err = spa.ParsePublic(text); err != nil {
			r.Fail(f.Identity, "Not a public identity", r.Explain(err, ""))
		}
	}
	if !r.Lacks(f.Door, b.DefRange, "No door", `A signed knock is for one door of the host: door = "ssh".`) {
		r.Text(f.Door, &k.Door)
	}
	var key string
	r.Text(f.Key, &key)
	if key != "" {
		var err error
		if k.Key, err = atHome(key); err != nil {
			r.Fail(f.Key, "Not a key file", r.Explain(err, ""))
		}
	}
	if !r.IsAbsent(f.Port) {
		k.Port = readUDPPort(r, f.Port, k.Port)
	}
	return k
}

// readUDPPort reads the port of a datagram. It returns otherwise after an error.
func readUDPPort(r method.Reader, e hcl.Expression, otherwise uint16) uint16 {
	text, ok := r.Value(e)
	p, err := packet.ParsePort(text)
	switch {
	case !ok:
	case err != nil || p.Protocol != packet.UDP && strings.ContainsAny(text, "/:"):
		r.Fail(e, "Not a UDP port", `The knock is one datagram. Write the port at which the host expects it: "62201/udp".`)
	default:
		return p.Number
	}
	return otherwise
}

// atHome returns an absolute path. The path may begin with ~/, the user's home folder.
func atHome(path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		return filepath.Join(home, rest), err
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("this is not an absolute path. Write it from / or ~/ on, such as ~/.ssh/id_ed25519.pub")
	}
	return path, nil
}

func readSource(r method.Reader, e hcl.Expression) (s client.Source) {
	if r.IsAbsent(e) {
		return s
	}
	text, ok := r.Value(e)
	if !ok {
		return s
	}
	server, isSTUN := strings.CutPrefix(text, "stun:")
	addr, err := netip.ParseAddr(text)
	switch {
	case text == "auto":
	case text == "seen":
		s.Seen = true
	case isSTUN && server != "":
		s.STUN = server
	case err == nil && addr.Zone() == "" && !addr.IsUnspecified() && !addr.IsMulticast():
		s.Addr = addr.Unmap()
	default:
		r.Fail(e, "Not a source", `Write "auto", "seen", an address such as "198.51.100.7", or "stun:" and the name of a STUN server.`)
	}
	return s
}
