// Package keys is the method of datagrams that are signed with an ssh key: keys { … }.
// Package spa has their format, and package people reads who may send them.
package keys

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/people"
	"github.com/knockwall/knockwall/internal/spa"
)

// Kind reads the block.
var Kind = method.Kind{Name: "keys", Block: read, Fields: raw{}, Plain: true}

// The defaults and the range of skew, which is how far a client's clock may be off.
const (
	defaultPort = 62201
	defaultSkew = 2 * time.Minute
	maxSkew     = time.Hour
)

// Keys is the method.
type Keys struct {
	Port   packet.Port
	Skew   time.Duration
	Signed bool // only an address inside the datagram opens, and not that of the packet
	People *people.List

	door   string
	hash   spa.DoorHash
	opener *spa.Opener // nil: the host has no identity
	closed bool        // the list of revoked keys cannot be used: nobody is admitted
	// all are the doors with keys at the same port, and first says that this is the first of
	// them. It answers for datagrams to doors that do not exist.
	all   []spa.DoorHash
	first bool
	at    raw
	block hcl.Range
}

// raw is the block as HCL decodes it.
type raw struct {
	Port       hcl.Expression `hcl:"port,optional"`
	Authorized hcl.Expression `hcl:"authorized"`
	Revoked    hcl.Expression `hcl:"revoked,optional"`
	Skew       hcl.Expression `hcl:"skew,optional"`
	Source     hcl.Expression `hcl:"source,optional"`
}

func read(r method.Reader, d *method.Door, b *hcl.Block) method.Method {
	k := &Keys{
		Port: packet.Port{Number: defaultPort, Protocol: packet.UDP}, Skew: defaultSkew, People: people.NewList(),
		door: d.Name, hash: spa.HashDoor(d.Name), block: b.DefRange,
	}
	r.Decode(b, &k.at)
	if r.IsAbsent(k.at.Port) {
		k.checkPort(d, func(summary, detail string) { r.FailAt(k.block, summary, detail) })
	} else {
		k.readPort(r, d)
	}
	r.Duration(k.at.Skew, &k.Skew, time.Second, maxSkew)
	k.readSource(r)
	k.opener = r.Identity(b.DefRange)
	if !r.Lacks(k.at.Authorized, b.DefRange, "No authorized", `Name the files with the public keys: authorized = ["/etc/knockwall.d/people"].`) {
		k.readPeople(r)
	}
	return k
}

// readPort reads the port.
func (k *Keys) readPort(r method.Reader, d *method.Door) {
	e := k.at.Port
	s, ok := r.Value(e)
	if !ok {
		return
	}
	p, err := packet.ParsePort(s)
	switch {
	case err != nil:
		r.Fail(e, "Not a port", `Write one port, from 1 to 65535, such as "62201/udp".`)
	case p.Protocol != packet.UDP:
		r.Fail(e, "Not a UDP port", fmt.Sprintf(`A signed knock is one datagram: write "%d/udp".`, p.Number))
	default:
		k.Port = p
		k.checkPort(d, func(summary, detail string) { r.Fail(e, summary, detail) })
	}
}

// checkPort reports an error if something else of the door uses the port.
func (k *Keys) checkPort(d *method.Door, fail func(summary, detail string)) {
	switch isKnock, mayBe := d.Knocks(k.Port); {
	case isKnock:
		fail("Signed knock at a knock", fmt.Sprintf("%s is one of the door's knocks. Choose another port for one of the two.", k.Port))
	case mayBe:
		fail("Signed knock at a knock", fmt.Sprintf("The door's knocks are chosen from a range that contains %s. Choose another port.", k.Port))
	case d.Guards(k.Port):
		fail("Signed knock at a guarded port", fmt.Sprintf("The door guards %s. Choose another port.", k.Port))
	}
}

func (k *Keys) readSource(r method.Reader) {
	source := "packet"
	r.Text(k.at.Source, &source)
	switch source {
	case "packet":
	case "signed":
		k.Signed = true
	default:
		r.Fail(k.at.Source, "Not a source", `Write "packet" to open for the address that a datagram comes from, or "signed" to open only for an address inside it.`)
	}
}

// readPeople reads the files with the authorized and the revoked keys.
func (k *Keys) readPeople(r method.Reader) {
	files := 0
	r.List(k.at.Authorized, func(e hcl.Expression, path string) {
		files++
		readFile(r, e, path, k.People.Authorize)
	})
	r.List(k.at.Revoked, func(e hcl.Expression, path string) {
		if !readFile(r, e, path, k.People.Revoke) {
			k.closed = true
		}
	})
	if files == 0 {
		r.Warn(k.at.Authorized, "Nobody is listed", "Nobody can open the door with a key. Name a file with public keys.")
	}
}

// readFile passes a file to add, and reports its problems. whole says that all of the file
// could be used.
func readFile(r method.Reader, e hcl.Expression, path string, add func(path string, text []byte) []people.Problem) (whole bool) {
	path = filepath.Clean(path)
	text, ok := r.File(e, path, people.MaxSize, people.IsPublic)
	if !ok {
		return false
	}
	if isPrivate(text) { // no excerpt may show it
		r.Lack(e, "Private key", fmt.Sprintf("%s has a private key. Name a file with public keys, and make a new key if others could read this one.", path))
		return false
	}
	whole = true
	for _, p := range add(path, text) {
		if p.Warning {
			r.WarnAt(rangeOf(path, p.Place), p.Summary, p.Detail)
			continue
		}
		r.LackAt(rangeOf(path, p.Place), p.Summary, p.Detail)
		whole = false
	}
	return whole
}

// isPrivate reports whether a file has a private key, which somebody may have named by
// mistake.
func isPrivate(text []byte) bool {
	return bytes.Contains(text, []byte("PRIVATE KEY-----")) || bytes.Contains(text, []byte(spa.PrivatePrefix))
}

// rangeOf returns a place in a file as diagnostics have it.
func rangeOf(path string, p people.Place) hcl.Range {
	at := func(column int) hcl.Pos { return hcl.Pos{Line: p.Line, Column: column + 1, Byte: p.Begin + column} }
	return hcl.Range{Filename: path, Start: at(p.From), End: at(p.To)}
}

func (*Keys) Name() string { return Kind.Name }

// Traits returns what the method needs. Verify ignores what no listed person has sent.
func (*Keys) Traits() method.Traits {
	return method.Traits{Replay: true, Clock: true,
		Ignored: "knocks that are sealed to another identity, or signed with a key that the authorized files do not have"}
}

func (*Keys) Describe(time.Duration) string { return "a knock signed with an ssh key" }

// Ports returns the port.
func (k *Keys) Ports() (fixed, chosen []packet.PortRange) {
	return packet.Ranges([]packet.Port{k.Port}), nil
}

func (k *Keys) Changes(former method.Method) (c method.Changes) {
	was := former.(*Keys)
	c.Value("keys: port", was.Port, k.Port)
	c.Value("keys: skew", was.Skew, k.Skew)
	c.Value("keys: source", was.source(), k.source())
	listed, gone, changed := k.People.Changes(was.People)
	c.Names("keys", listed, "is listed", "are listed")
	c.Names("keys", gone, "is no longer listed", "are no longer listed")
	c.Names("keys", changed, "has other options", "have other options")
	c.Hidden("keys: what is revoked", k.closed == was.closed && k.People.RevokesLike(was.People))
	return c
}

// source returns the value of the attribute.
func (k *Keys) source() string {
	if k.Signed {
		return "signed"
	}
	return "packet"
}

// Resolve returns the datagrams: those of two sizes. The first check of each is one hash.
func (k *Keys) Resolve(time.Time) (method.State, error) {
	return method.State{Datagrams: []method.Datagram{{
		Port: k.Port, Sizes: []method.Sizes{method.Exactly(spa.ShortSize), method.Exactly(spa.LongSize)}, Cost: 1,
	}}}, nil
}

// Admits reports whether a person is still listed, and not expired or revoked. It does not
// look at addresses, as the person comes from where the window is.
func (k *Keys) Admits(p method.Person, now time.Time) bool {
	if k.closed {
		return false
	}
	g, ok := parseGrant(p)
	return ok && k.People.Admits(g.key, g.authority, g.serial, p.Name, k.door, now)
}

// MaxSkew returns how far a client's clock may be off.
func (k *Keys) MaxSkew() time.Duration { return k.Skew }

// Listed returns the names in the lines with a key that open the door.
func (k *Keys) Listed(now time.Time) (names []string) {
	if k.closed {
		return nil
	}
	for _, line := range k.People.Lines() {
		if !line.Authority && line.Opens(k.door) && k.People.Check(line, line.Fingerprint, now, netip.Addr{}, true) == nil {
			names = append(names, line.Name)
		}
	}
	return names
}

// Advise warns of lines that open no door.
func (k *Keys) Advise(r method.Reader, doors []method.Door, own int) {
	k.all, k.first = nil, true
	known := map[string]bool{}
	for i, d := range doors {
		known[d.Name] = true
		for _, m := range d.Methods {
			if other, ok := m.(*Keys); ok && other.Port == k.Port {
				k.all = append(k.all, other.hash)
				k.first = k.first && (i >= own)
			}
		}
	}
	lines := k.People.Lines()
	slices.SortFunc(lines, func(a, b *people.Line) int { return a.Compare(b) })
	open := 0
	for _, l := range lines {
		if l.Opens(k.door) {
			open++
		}
		for _, name := range l.Doors {
			if !known[name] && k.first {
				r.WarnAt(rangeOf(l.File, l.DoorsAt), "No such door", fmt.Sprintf("doors= in line %d of %s names %q, and the rule files have no such door.", l.Number, l.File, name))
			}
		}
	}
	if len(lines) > 0 && open == 0 {
		r.Warn(k.at.Authorized, "Nobody is listed", fmt.Sprintf("No line of these files allows the door %q, so nobody can open it with a key. Add the door to doors= of a line.", k.door))
	}
}

// Verifier returns nil if there is no identity.
func (k *Keys) Verifier() method.Verifier {
	if k.opener == nil {
		return nil
	}
	return &verifier{k, spa.NewScreen(k.opener.Public())}
}

// mismatch returns why a datagram from an address opens nothing, or "".
func (k *Keys) mismatch(s *spa.Sealed, from netip.Addr) string {
	switch {
	case !s.Source.IsValid() && k.Signed:
		return `the datagram names no address, and the door has source = "signed"`
	case s.Source.IsValid() && s.Source != from:
		return fmt.Sprintf("the datagram is for %s, and comes from %s", s.Source, from)
	}
	return ""
}
