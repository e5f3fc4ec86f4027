// Package method is the contract between a way to knock and the rest of the program.
//
// Each method is a package below this one. It reads its part of a rule file, and says at
// which ports it expects packets and what a packet means. Package methods lists the methods
// of rule files.
package method

import (
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/internal/spa"
)

// Kind is a method as rule files name it.
type Kind struct {
	// Name is the name of the attribute or block in a door. It is also the end of the log
	// prefixes of the method's datagrams, and of the name of their chain.
	Name string
	// Knocks says that the method has sequences of knocks. A door has at most one such method.
	Knocks bool
	// Attribute, Block or Blocks reads the method. It returns nil if the method cannot be used,
	// after it has reported the reason to the Reader. Blocks reads one or more blocks, which
	// have a label each. Label says what the label names.
	Attribute func(r Reader, d *Door, e hcl.Expression) Method
	Block     func(r Reader, d *Door, b *hcl.Block) Method
	Blocks    func(r Reader, d *Door, b []*hcl.Block) Method
	Label     string
	// Fields is the struct that the block is decoded into. Diagnostics hide its values, as
	// they may be secrets. They show only values of the attributes Shown that look like ports
	// or durations.
	Fields any
	Shown  []string
	// Plain says that the block has no secrets. Diagnostics show it as it is.
	Plain bool
}

// IsBlock reports whether the method is written as one or more blocks.
func (k *Kind) IsBlock() bool { return k.Block != nil || k.Blocks != nil }

// Method is a way to knock at one door, as the rule file configures it. It does not change.
type Method interface {
	// Name returns the name of its Kind.
	Name() string
	// Traits returns what the method needs from the rest of the program.
	Traits() Traits
	// Ports returns the ports at which the method always expects packets, and those from
	// which it chooses ports that change over time.
	Ports() (fixed, chosen []packet.PortRange)
	// Describe says what opens the door, without a secret: "3 knocks within 5s". within is
	// the time from the first knock to the last.
	Describe(within time.Duration) string
	// Changes says what differs from former, the door's method of the same Kind before a
	// reload. It is empty if nothing does.
	Changes(former Method) Changes
	// Resolve returns the state at a time. After an error nobody can use the method, and the
	// state says so.
	Resolve(now time.Time) (State, error)
	// Advise warns of settings that are valid but seldom intended. own is the index of the
	// door that has the method. It is called once, before the method is used, and shows the
	// method the other doors.
	Advise(r Reader, doors []Door, own int)
}

// Sequences is a method whose Kind has Knocks.
type Sequences interface {
	Method
	// Use remembers that a source completed the sequence at a place of a State. replay says
	// that the sequence opens a door only once and was used before. The error says why Use
	// cannot remember the sequence. The door then stays closed.
	Use(s State, place int, now time.Time, remember Remember) (replay bool, err error)
}

// Listener is a method that reads datagrams.
type Listener interface {
	Method
	// Verifier returns a new verifier, for one goroutine at a time. It is nil if the secret is
	// missing.
	Verifier() Verifier
}

// Verifier checks datagrams.
type Verifier interface {
	// Verify returns the meaning of a datagram from a source. It allocates nothing for a
	// datagram without one.
	Verify(datagram []byte, source netip.Addr, now time.Time) Meaning
}

// Traits says what a method needs from the rest of the program.
type Traits struct {
	Replay bool // a memory of uses that survives a restart of the daemon
	Clock  bool // a correct clock
	// Consumes says that a use changes the State, so that the caller has to resolve it again.
	Consumes bool
	// Ignored are the knocks of which no event says anything, as anybody can send them, for
	// a sentence: "knocks that are signed with an unknown key". It is empty if there are none.
	Ignored string
}

// State is the state of a method at a time.
type State struct {
	// Sequences are the sequences of which each opens the door. A sequence keeps its place in
	// later states as long as it is valid.
	Sequences [][]packet.Port
	Present   int        // the place of the sequence that clients should knock now
	Datagrams []Datagram // the datagrams that the method reads
	// From and Until are the time of the state: from From until just before Until. Both are
	// zero if the state does not depend on the time.
	From, Until time.Time
	// Unread says that a file could not be read. Another attempt may succeed.
	Unread bool
	// Stock is the number of remaining uses. It is nil if that is unlimited or not known.
	Stock *Stock

	own any // the method's own value
}

// Stock is the number of remaining uses of a method.
type Stock struct {
	Left int
	Of   string // the path of the file that has them
}

// FewLeft is the number of remaining uses from which on the administrator is warned.
const FewLeft = 3

// IsLow reports whether at most FewLeft uses remain.
func (s *Stock) IsLow() bool { return s != nil && s.Left <= FewLeft }

// With returns the state with a value for the method's own use.
func (s State) With(own any) State {
	s.own = own
	return s
}

// Own returns the value of [State.With].
func (s *State) Own() any { return s.own }

// IsOf reports whether a time lies within From and Until.
func (s *State) IsOf(now time.Time) bool {
	return s.From.IsZero() && s.Until.IsZero() || !now.Before(s.From) && now.Before(s.Until)
}

// Datagram is a kind of UDP datagram that a method reads. The kernel logs only datagrams
// of these sizes that begin with one of these bytes.
type Datagram struct {
	Port  packet.Port
	Sizes []Sizes
	First []byte // values of the first byte; empty: any
	// Cost is the number of hashes that one check takes. The higher it is, the fewer of these
	// datagrams the kernel logs per second.
	Cost int
}

// Takes reports whether the kernel logs a datagram of this kind.
func (d *Datagram) Takes(payload []byte) bool {
	fits := func(s Sizes) bool { return int(s.Least) <= len(payload) && len(payload) <= int(s.Most) }
	return slices.ContainsFunc(d.Sizes, fits) && (len(d.First) == 0 || len(payload) > 0 && slices.Contains(d.First, payload[0]))
}

// Sizes are sizes of a payload in bytes, from Least to Most, at most [packet.MaxPayload].
type Sizes struct{ Least, Most uint16 }

// Exactly returns one size.
func Exactly(size uint16) Sizes { return Sizes{size, size} }

// Action is what a datagram asks for.
type Action uint8

// The actions.
const (
	Nothing Action = iota
	Open
	Close
)

// Meaning is the meaning of a datagram.
type Meaning struct {
	Action Action
	Code   audit.Code // of the audit event
	Reason string     // of the audit event
	Once   Use        // the use of the datagram, unless Action is Nothing
	// Person is the sender, if the method knows persons. With no Action, the datagram is
	// certainly of this person, but was rejected for the Reason.
	Person Person
	// Source is the address to open for. The zero Addr means the source of the packet.
	Source netip.Addr
	// Window is how long the window should be open, up to Most. Zero Most means the door's
	// window, and so does zero Window.
	Window, Most time.Duration
}

// Person is the sender of a datagram. The zero value is nobody in particular.
type Person struct {
	Name string // as the rule files or the key name the person
	Key  string // the fingerprint of the person's key, "SHA256:…"; "" without a key
	// Grant is what else the method needs to know whether the person may still come in, in
	// one word, such as the authority that signed the key.
	Grant string
}

// Members is a method that knows persons.
type Members interface {
	Method
	// Admits reports whether the method would still admit a person whom it admitted before.
	// A reload closes the windows of those whom no method of their door admits.
	Admits(p Person, now time.Time) bool
	// Listed returns the names of the persons who may open the door at a time. Those whom an
	// authority may name are not among them.
	Listed(now time.Time) []string
}

// Ordered is a method whose uses are ordered. A use of it at another host counts here, too.
type Ordered interface {
	Members
	// MaxSkew returns how far the time of a use may be from this host's clock.
	MaxSkew() time.Duration
}

// SlowVerifier is a Verifier that takes long. The caller uses it in a goroutine of its own,
// for datagrams that Screen passes.
type SlowVerifier interface {
	Verifier
	// Screen reports whether a datagram may have a meaning. It takes about a microsecond and
	// allocates nothing. It may be called while Verify runs.
	Screen(datagram []byte) bool
}

// UseLifetime is longer than any use can be valid.
const UseLifetime = 3 * time.Hour

// Use is a use that is valid once at a door.
type Use struct {
	Begins time.Time     // beginning of its minute or step
	Early  time.Duration // how long before Begins it is valid
	Kind   string        // one word
	Detail string        // tells apart uses of the same Kind and Begins
	// Ordered says that a use counts as used before unless it begins later than all before
	// it with the same Kind and Detail, at whichever door. Only the last of these is
	// remembered. Begins counts to the millisecond.
	Ordered bool
	By      Person // with Ordered, who has used it
}

// Remember remembers a use. replay says that the use was remembered before.
type Remember func(u Use, now time.Time) (replay bool, err error)

// Door is the part of a door that methods may read.
type Door struct {
	Name    string
	Ports   []packet.PortRange // guarded ports
	To      []netip.Prefix     // guarded addresses; empty: this host's own
	Methods []Method           // methods that were read so far
	Close   []packet.Port      // knocks that close the door
}

// Guards reports whether the door guards a port.
func (d *Door) Guards(p packet.Port) bool { return packet.InRanges(p, d.Ports) }

// Knocks reports whether a port is a fixed knock of the door's methods or a closing knock
// (isKnock), and whether methods may choose it (mayBe). Ports of datagrams are no knocks:
// several methods can read datagrams at one port.
func (d *Door) Knocks(p packet.Port) (isKnock, mayBe bool) {
	isKnock = slices.Contains(d.Close, p)
	for _, m := range d.Methods {
		if _, ok := m.(Listener); ok {
			continue
		}
		fixed, chosen := m.Ports()
		isKnock = isKnock || packet.InRanges(p, fixed)
		mayBe = mayBe || packet.InRanges(p, chosen)
	}
	return isKnock, mayBe
}

// Reader reads rule files. It reports errors with file, line and caret. After an error,
// Value returns false.
type Reader interface {
	// Value returns the text of a string or number.
	Value(e hcl.Expression) (string, bool)
	// Text, Number and Duration change to only if the attribute has a valid value. what is
	// the text of Number's error, with verbs for least and most.
	Text(e hcl.Expression, to *string)
	Number(e hcl.Expression, to *int, least, most int, what string)
	Duration(e hcl.Expression, to *time.Duration, least, most time.Duration)
	// Knocks reads a sequence.
	Knocks(e hcl.Expression) []packet.Port
	// Addresses reads a list of addresses and prefixes. Its errors do not show the text, as it
	// may be a misplaced secret. empty is the error's text for an empty list.
	Addresses(e hcl.Expression, empty string) []netip.Prefix
	// Secret reads a secret that a block needs. The secret is unset if it cannot be read.
	Secret(e hcl.Expression, block hcl.Range) secret.Secret
	// IsExposed reports whether users outside its group can access the file that has e.
	IsExposed(e hcl.Expression) bool
	// File reads a whole file that e names by its absolute path, with at most so many bytes.
	// It reports an error if it cannot, or if other users can change the file.
	// Diagnostics show only the lines of it that are public.
	File(e hcl.Expression, path string, most int, isPublic func(line string) bool) (text []byte, ok bool)
	// Identity returns the opener of datagrams that are sealed to this host. It is nil after
	// an error, such as that the host has no identity.
	Identity(block hcl.Range) *spa.Opener
	// List calls item with each element of a list.
	List(e hcl.Expression, item func(e hcl.Expression, text string))
	// Decode decodes a block by its hcl tags.
	Decode(b *hcl.Block, to any)
	// IsAbsent reports whether an optional attribute is missing or null.
	IsAbsent(e hcl.Expression) bool
	// Lacks reports whether a block lacks an attribute that it needs. Then it reports an error
	// with this summary and detail.
	Lacks(e hcl.Expression, block hcl.Range, summary, detail string) bool

	// Fail reports an error, Warn a warning. Lack reports that the method cannot use a secret
	// or list. This is an error, but a warning where the daemon starts with the kept rules.
	Fail(e hcl.Expression, summary, detail string)
	Warn(e hcl.Expression, summary, detail string)
	// FailAt, WarnAt and LackAt do so for a place, such as a block, or a line of a file that
	// File has read.
	FailAt(at hcl.Range, summary, detail string)
	WarnAt(at hcl.Range, summary, detail string)
	LackAt(at hcl.Range, summary, detail string)
	Lack(e hcl.Expression, summary, detail string)
	// Reviewing reports whether the rule files are read for another host.
	Reviewing() bool
	// Explain returns the text of an error as a sentence. If permissions for a file are
	// missing, it adds the cure. access is the access that the file needs, "r" or "rw".
	Explain(err error, access string) string
}
