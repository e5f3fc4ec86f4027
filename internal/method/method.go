// Package method is the contract between a way to knock and the rest of the program.
//
// A method is one package below this one: it reads its part of a rule file, says at which
// ports it is heard, and what a packet means. Package methods lists those that rule
// files can name.
package method

import (
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
)

// Kind is a method as rule files name it.
type Kind struct {
	// Name is that of its attribute or block in a door. It also ends the log prefixes of
	// its datagrams, and the name of their chain.
	Name string
	// Knocks says that the method has sequences of knocks. A door has one such method at most.
	Knocks bool
	// Attribute or Block reads it. What it returns is nil if it cannot be used; Reader was
	// told why.
	Attribute func(r Reader, d *Door, e hcl.Expression) Method
	Block     func(r Reader, d *Door, b *hcl.Block) Method
	// Fields is the struct that the block is decoded into. Diagnostics hide all its values,
	// as they may be secrets, but those of the attributes Shown that look like ports or
	// durations.
	Fields any
	Shown  []string
}

// Method is a way to knock at one door, as the rule file configures it. It does not change.
type Method interface {
	// Name returns the name of its Kind.
	Name() string
	// Traits returns what the rest of the program has to provide for.
	Traits() Traits
	// Ports returns the ports at which the method is always heard, and those from which
	// it chooses others as time goes by.
	Ports() (fixed, chosen []packet.PortRange)
	// Describe says what opens the door, without a secret: "3 knocks within 5s". Knocks have
	// to come within a time.
	Describe(within time.Duration) string
	// Resolve returns what is true at a time. With an error nobody can use the method then,
	// and what is returned is true of that.
	Resolve(now time.Time) (State, error)
	// Advise warns of what can be done and is seldom wanted. own is the index of the door
	// that has the method.
	Advise(r Reader, doors []Door, own int)
}

// Sequences is a method whose Kind has Knocks.
type Sequences interface {
	Method
	// Use remembers that the sequence at a place of a State was completed. It reports
	// whether the sequence opens a door once and was used before. The error says why this
	// cannot be remembered, so that the door stays closed.
	Use(s State, place int, now time.Time, remember Remember) (replay bool, err error)
}

// Listener is a method that is heard by datagrams.
type Listener interface {
	Method
	// Verifier returns what checks the datagrams, for one goroutine at a time. It is nil
	// if the secret is missing.
	Verifier() Verifier
}

// Verifier checks datagrams.
type Verifier interface {
	// Verify says what a datagram means that was sent by a source. It allocates nothing
	// for a datagram that means nothing.
	Verify(datagram []byte, source netip.Addr, now time.Time) Meaning
}

// Traits is what a method needs of the rest of the program.
type Traits struct {
	Replay bool // a memory of what was used, which survives the daemon
	Clock  bool // a clock that is right
	// Consumes says that a use changes the State, so that it has to be resolved again.
	Consumes bool
}

// State is what is true of a method at a time.
type State struct {
	// Sequences open the door, each by itself. A sequence keeps its place as long as it
	// is good.
	Sequences [][]packet.Port
	Present   int        // the place of the one to knock now
	Datagrams []Datagram // that are heard
	// From and Until bound the time of which this is true: from From until just before
	// Until. Both are zero if it is always true.
	From, Until time.Time
	// Unread says that a file could not be read, so that another try may succeed.
	Unread bool
	// Stock counts what can still be used, if that is limited. It is nil if it is not.
	Stock *Stock

	own any // the method's
}

// Stock is what a method can still use up.
type Stock struct {
	Left int
	Of   string // the file that it is in
}

// FewLeft is how many are so few that somebody should know.
const FewLeft = 3

// IsLow reports whether few are left.
func (s *Stock) IsLow() bool { return s != nil && s.Left <= FewLeft }

// With returns the state with a value that only the method knows.
func (s State) With(own any) State {
	s.own = own
	return s
}

// Own returns the value of [State.With].
func (s *State) Own() any { return s.own }

// IsOf reports whether the state is true at a time, as far as time decides that.
func (s *State) IsOf(now time.Time) bool {
	return s.From.IsZero() && s.Until.IsZero() || !now.Before(s.From) && now.Before(s.Until)
}

// Datagram is a kind of UDP datagram that a method is heard by.
type Datagram struct {
	Port packet.Port
	Size uint16 // of its payload, in bytes
	// Cost is how many hashes it takes to check one. The kernel hands on the fewer of
	// them a second the more it is.
	Cost int
}

// Action is what somebody wants who has knocked.
type Action uint8

// The actions.
const (
	Nothing Action = iota
	Open
	Close
)

// Meaning is what a datagram means.
type Meaning struct {
	Action Action
	Code   audit.Code // of the event that tells of it
	Reason string     // likewise
	Once   Use        // what it uses up, if Action is not Nothing
}

// Use is something that is good once at a door.
type Use struct {
	Begins time.Time     // of the minute or step that it belongs to
	Early  time.Duration // how long before that it can be used
	Kind   string        // one word
	Detail string        // which of its kind, if there are several of one time
}

// Remember remembers a use, and reports whether it was remembered before.
type Remember func(u Use, now time.Time) (replay bool, err error)

// Door is a door, as far as methods have to know of it.
type Door struct {
	Name    string
	Ports   []packet.PortRange // that are guarded
	Methods []Method           // that were read so far
	Close   []packet.Port      // the knocks that close it
}

// Guards reports whether the door guards a port.
func (d *Door) Guards(p packet.Port) bool {
	for _, r := range d.Ports {
		if r.Contains(p) {
			return true
		}
	}
	return false
}

// Knocks reports whether a port is one of the door's knocks that do not change, or one
// that knocks are chosen from.
func (d *Door) Knocks(p packet.Port) (isKnock, mayBe bool) {
	isKnock = slices.Contains(d.Close, p)
	for _, m := range d.Methods {
		fixed, chosen := m.Ports()
		has := func(r packet.PortRange) bool { return r.Contains(p) }
		isKnock = isKnock || slices.ContainsFunc(fixed, has)
		mayBe = mayBe || slices.ContainsFunc(chosen, has)
	}
	return isKnock, mayBe
}

// Reader reads rule files. What is wrong is reported with file, line and caret, and
// makes the functions that return a bool return false.
type Reader interface {
	// Value returns a string, or a number as it is written.
	Value(e hcl.Expression) (string, bool)
	// Text, Number and Duration change to only if there is a value. Number's what says
	// what the number is for, with verbs for least and most.
	Text(e hcl.Expression, to *string)
	Number(e hcl.Expression, to *int, least, most int, what string)
	Duration(e hcl.Expression, to *time.Duration, least, most time.Duration)
	// Knocks reads a sequence.
	Knocks(e hcl.Expression) []packet.Port
	// Secret reads a secret that a block needs. It is not set if it cannot be read.
	Secret(e hcl.Expression, block hcl.Range) secret.Secret
	// Decode decodes a block by its hcl tags.
	Decode(b *hcl.Block, to any)
	// IsAbsent reports whether an optional attribute is not given.
	IsAbsent(e hcl.Expression) bool
	// Lacks reports whether a block lacks an attribute that it needs, and says so.
	Lacks(e hcl.Expression, block hcl.Range, summary, detail string) bool

	// Fail reports an error, Warn a warning. Lack reports that what the method needs is
	// missing on this host: an error to the daemon, and a warning to whoever has to go on
	// without.
	Fail(e hcl.Expression, summary, detail string)
	Warn(e hcl.Expression, summary, detail string)
	WarnBlock(block hcl.Range, summary, detail string)
	Lack(e hcl.Expression, summary, detail string)
	// Reviewing reports whether the rule files are read for another host.
	Reviewing() bool
	// Explain returns the text of an error as a sentence, with the cure if access ("r" or
	// "rw") to a file was denied.
	Explain(err error, access string) string
}
