package ruleset

import (
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
)

// Config is what the rule files say, checked and with every default filled in.
type Config struct {
	Wall  Wall
	Doors []Door
}

// Wall is what holds for all doors.
type Wall struct {
	Table      string         // name of the nftables table, family inet
	LogGroup   uint16         // the first of two NFLOG groups
	Queue      uint16         // the first of six NFQUEUE numbers
	Interfaces []string       // where doors are guarded, as [FitsInterface] has it; empty: everywhere but lo
	Trusted    []netip.Prefix // need not knock
	OnStop     OnStop
	Hold       time.Duration // how long a stranger's SYN waits for a knock
	Reorder    time.Duration // by how much knocks may overtake each other
	MaxSources int           // attempts that are followed at once
}

// Door is a group of ports that open together.
type Door struct {
	Name            string
	Ports           []packet.PortRange // what is hidden; sorted, without overlaps; may be none
	Sequences       [][]packet.Port    // those that are written down, each of which opens the door
	Rolling         *Rolling           // or where they come from
	OneTime         *onetime.List      // likewise
	CloseSequence   []packet.Port      // closes the door
	OTP             *OTP               // opens and closes it, too
	SequenceTimeout time.Duration      // first knock to last
	Window          time.Duration      // how long new connections are admitted
	Flags           FlagMatch          // what a TCP knock looks like
	MaxConnections  int                // a window; 0: no limit
	Closed          Closed
	OnFailure       OnFailure
	Interfaces      []string       // where the door is guarded, as [FitsInterface] has it; empty: everywhere but lo
	To              []netip.Prefix // addresses that are guarded; empty: this host's own
	Trusted         []netip.Prefix // need not knock at this door
	SourcePrefix    packet.SourcePrefix
	PenaltyPrefix   packet.SourcePrefix // who is trapped together
	UDPTimeout      time.Duration       // how long an admitted UDP flow may be silent
	TrapList        []packet.PortRange  // ports that are traps
	TrapCount       int                 // or how many are chosen
	Penalty         time.Duration       // for how long nobody can knock who has tried a trap
	OnOpen, OnClose *Command            // nil: none
}

// Rolling is a sequence that follows from a secret and the time, as
// [sequence.Rolling] has it.
type Rolling struct {
	Secret secret.Secret
	Length int
	Ports  packet.PortRange
	Step   time.Duration
}

// OTP is a door's one-time passwords, as [otp.Verifier] takes them.
type OTP struct {
	Port        packet.Port
	Open, Close secret.Secret // Close may be missing
	Skew        time.Duration
}

// The limits of what can be guarded. A door has a lock for each of its sequences,
// which are four at most.
const maxDoors = 1024

// How long a window can be open.
const (
	MinWindow = 100 * time.Millisecond
	MaxWindow = 24 * time.Hour
)

// How long an admitted UDP flow may be silent. conntrack counts in seconds.
const (
	MinUDPTimeout = time.Second
	MaxUDPTimeout = 24 * time.Hour
)

// FlagMatch holds for TCP packets whose flags, as far as Mask covers them, are
// those of Value.
type FlagMatch struct{ Mask, Value packet.Flags }

// OnStop says what becomes of the wall when the daemon stops.
type OnStop string

// Closed says what a closed door answers.
type Closed string

// OnFailure says what strangers get while no daemon runs.
type OnFailure string

// The values that rule files can give.
const (
	Keep   OnStop = "keep"
	Remove OnStop = "remove"

	Drop   Closed = "drop"
	Reject Closed = "reject"

	FailClosed OnFailure = "closed"
	FailOpen   OnFailure = "open"
)

// The defaults of rule files.
var (
	defaultWall = Wall{
		Table:      "knockwall",
		LogGroup:   7100,
		Queue:      7100,
		OnStop:     Keep,
		Hold:       200 * time.Millisecond,
		Reorder:    20 * time.Millisecond,
		MaxSources: 65536,
	}
	defaultDoor = Door{
		SequenceTimeout: 5 * time.Second,
		Window:          30 * time.Second,
		Flags:           FlagMatch{Mask: packet.SYN | packet.ACK, Value: packet.SYN},
		Closed:          Drop,
		OnFailure:       FailClosed,
		SourcePrefix:    packet.SourcePrefix{IPv4: 32, IPv6: 128},
		PenaltyPrefix:   packet.SourcePrefix{IPv4: 32, IPv6: 64},
		UDPTimeout:      5 * time.Minute,
		TrapCount:       64,
		Penalty:         30 * time.Second,
	}
)

// Guards reports whether the door stands before a port.
func (d *Door) Guards(p packet.Port) bool {
	for _, r := range d.Ports {
		if r.Contains(p) {
			return true
		}
	}
	return false
}

// GuardsAt reports whether the door stands before an address, which may be one of this
// host's: a door without `to` stands before all of those.
func (d *Door) GuardsAt(a netip.Addr, isHere bool) bool {
	if len(d.To) == 0 {
		return isHere
	}
	return packet.Among(a, d.To)
}

// isKnock reports whether a port is one of the door's knocks, those that close it
// among them.
func (d *Door) isKnock(p packet.Port) bool {
	return slices.Contains(d.CloseSequence, p) ||
		slices.ContainsFunc(d.Sequences, func(steps []packet.Port) bool { return slices.Contains(steps, p) })
}

// isKnocked reports whether knocks open the door, or close it.
func (d *Door) isKnocked() bool {
	return len(d.Sequences) > 0 || d.Rolling != nil || d.OneTime != nil || len(d.CloseSequence) > 0
}

// Ways returns by what the door is opened, as rule files have it.
func (d *Door) Ways() []string {
	var ways []string
	switch {
	case d.Rolling != nil:
		ways = append(ways, "rolling")
	case d.OneTime != nil:
		ways = append(ways, "one_time_sequences")
	case len(d.Sequences) > 0:
		ways = append(ways, "sequence")
	}
	if d.OTP != nil {
		ways = append(ways, "otp")
	}
	return ways
}

// HasProtocol reports whether the door guards a port of a protocol.
func (d *Door) HasProtocol(p packet.Protocol) bool {
	return slices.ContainsFunc(d.Ports, func(r packet.PortRange) bool { return r.Protocol == p })
}

// Door returns the door of a name, or nil.
func (c *Config) Door(name string) *Door {
	i := slices.IndexFunc(c.Doors, func(d Door) bool { return d.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Doors[i]
}

// UsesUp reports whether it has to be remembered what was used, so that it opens a
// door once. (Lists of one-time sequences are crossed out themselves.)
func (c *Config) UsesUp() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.OTP != nil || d.Rolling != nil })
}

// HasUDP reports whether any door guards a UDP port.
func (c *Config) HasUDP() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.HasProtocol(packet.UDP) })
}

// HasCommands reports whether it has to be remembered which commands are due.
func (c *Config) HasCommands() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.OnClose != nil })
}
