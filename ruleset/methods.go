package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/methods"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/sequence"
)

// methods reads the methods of a door and its close_sequence. It reads methods without
// knocks last, so that they can check their ports against the knocks.
func (l *Loaded) methods(r *rawDoor, d *Door) {
	given, knocking := 0, 0
	read := func(k *method.Kind) {
		written := false
		door := d.forMethods()
		var m method.Method
		if a := r.content.Attributes[k.Name]; k.Attribute != nil && a != nil && !absent(a.Expr) {
			written = true
			m = k.Attribute(reading{l}, &door, a.Expr)
		}
		if k.Block != nil {
			if b := l.oneBlock(r, k.Name); b != nil {
				written = true
				m = k.Block(reading{l}, &door, b)
			}
		}
		if b := r.content.Blocks.OfType(k.Name); k.Blocks != nil && len(b) > 0 {
			written = true
			m = k.Blocks(reading{l}, &door, b)
		}
		if written {
			given++
		}
		if written && k.Knocks {
			knocking++
		}
		if m != nil {
			d.Methods = append(d.Methods, m)
		}
	}
	for _, k := range methods.Kinds {
		if k.Knocks {
			read(k)
		}
	}
	d.CloseSequence = l.knocks(r.CloseSequence)
	l.checkClose(r, d)
	for _, k := range methods.Kinds {
		if !k.Knocks {
			read(k)
		}
	}
	switch {
	case knocking > 1:
		l.fail("Too many sequences", "A door has only one of sequence, rolling and one_time_sequences. Two doors can guard the same ports.", &r.Range)
	case given == 0 && l.isRead(r.Range):
		l.fail("No sequence", `A door needs a way to open it: sequence = [4113, "27911/udp", 1840]. Or write `+otherWays()+".", &r.Range)
	}
}

// otherWays lists the methods but sequence.
func otherWays() string {
	var names []string
	for _, k := range methods.Kinds {
		if k.Name != fixed.Kind.Name {
			names = append(names, k.Name)
		}
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// checkClose reports an error if the same sequence opens and closes a door.
func (l *Loaded) checkClose(r *rawDoor, d *Door) {
	if len(d.CloseSequence) == 0 {
		return
	}
	for _, m := range d.Methods {
		if fixed, _ := m.Ports(); slices.Equal(fixed, packet.Ranges(d.CloseSequence)) {
			cure := "Write the knocks in reverse order, or choose others."
			reversed := slices.Clone(d.CloseSequence)
			if slices.Reverse(reversed); slices.Equal(reversed, d.CloseSequence) {
				cure = "Choose other knocks. These are the same in reverse order."
			}
			l.failAt(r.CloseSequence, "Same knocks for opening and closing", cure)
		}
	}
}

// knocks reads a sequence.
func (l *Loaded) knocks(e hcl.Expression) []packet.Port {
	var steps []packet.Port
	n, ok := l.list(e, func(e hcl.Expression, s string) {
		p, err := packet.ParsePort(s)
		if err != nil {
			l.failAt(e, "Not a knock", sentence(err))
			return
		}
		steps = append(steps, p)
	})
	switch {
	case ok && n == 0:
		l.failAt(e, "No sequence", `The list is empty. Write the knocks: [4113, "27911/udp", 1840].`)
	case n > sequence.MaxSteps:
		l.failAt(e, "Sequence too long", fmt.Sprintf("A sequence has at most %d knocks. This one has %d.", sequence.MaxSteps, n))
	}
	return steps
}

// reading is the [method.Reader] that methods get.
type reading struct{ l *Loaded }

var _ method.Reader = reading{}

func (r reading) Value(e hcl.Expression) (string, bool)         { return r.l.value(e) }
func (r reading) Text(e hcl.Expression, to *string)             { r.l.text(e, to) }
func (r reading) Knocks(e hcl.Expression) []packet.Port         { return r.l.knocks(e) }
func (r reading) IsAbsent(e hcl.Expression) bool                { return absent(e) }
func (r reading) Fail(e hcl.Expression, summary, detail string) { r.l.failAt(e, summary, detail) }
func (r reading) Warn(e hcl.Expression, summary, detail string) { r.l.warnAt(e, summary, detail) }
func (r reading) Lack(e hcl.Expression, summary, detail string) { r.l.lackAt(e, summary, detail) }
func (r reading) IsExposed(e hcl.Expression) bool               { return r.l.isExposed(e.Range().Filename) }
func (r reading) Reviewing() bool                               { return r.l.reader == reviewer }
func (r reading) Explain(err error, access string) string       { return sentence(forbidden(err, access)) }

func (r reading) Number(e hcl.Expression, to *int, least, most int, what string) {
	number(r.l, e, to, least, most, what)
}

func (r reading) Duration(e hcl.Expression, to *time.Duration, least, most time.Duration) {
	r.l.duration(e, to, least, most)
}

func (r reading) Secret(e hcl.Expression, block hcl.Range) secret.Secret { return r.l.secret(e, block) }

func (r reading) Lacks(e hcl.Expression, block hcl.Range, summary, detail string) bool {
	return r.l.lacks(e, block, summary, detail)
}

func (r reading) Addresses(e hcl.Expression, empty string) []netip.Prefix {
	return r.l.prefixes(e, empty, func(error) string {
		return `Write an address, or a prefix such as "192.0.2.0/24" or "2001:db8::/48".`
	})
}

func (r reading) FailAt(at hcl.Range, summary, detail string) { r.l.fail(summary, detail, &at) }
func (r reading) WarnAt(at hcl.Range, summary, detail string) { r.l.warn(summary, detail, &at) }
func (r reading) LackAt(at hcl.Range, summary, detail string) { r.l.lackIn(&at, summary, detail) }

func (r reading) File(e hcl.Expression, path string, most int, isPublic func(string) bool) ([]byte, bool) {
	return r.l.namedFile(e, path, most, isPublic)
}

func (r reading) Identity(block hcl.Range) *spa.Opener { return r.l.identity.of(r.l, block) }

func (r reading) List(e hcl.Expression, item func(hcl.Expression, string)) { r.l.list(e, item) }

func (r reading) Decode(b *hcl.Block, to any) { r.l.foreign(gohcl.DecodeBody(b.Body, nil, to)) }
