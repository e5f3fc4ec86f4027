package ruleset

import (
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
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
	Methods         []method.Method    // that open the door, and may close it; one of them has knocks at most
	CloseSequence   []packet.Port      // closes the door
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

// isKnocked reports whether knocks open the door, or close it.
func (d *Door) isKnocked() bool { return d.Knocking() >= 0 || len(d.CloseSequence) > 0 }

// Knocking returns the index of the door's method that has knocks, and -1 if there is none.
func (d *Door) Knocking() int {
	return slices.IndexFunc(d.Methods, func(m method.Method) bool { _, ok := m.(method.Sequences); return ok })
}

// OpensBy returns the names of the door's methods, as rule files have them.
func (d *Door) OpensBy() []string {
	var names []string
	for _, m := range d.Methods {
		names = append(names, m.Name())
	}
	return names
}

// forMethods returns the door as methods know it.
func (d *Door) forMethods() method.Door {
	return method.Door{Name: d.Name, Ports: d.Ports, Methods: d.Methods, Close: d.CloseSequence}
}

// needs reports whether a method of the door needs something.
func (d *Door) needs(what func(method.Traits) bool) bool {
	return slices.ContainsFunc(d.Methods, func(m method.Method) bool { return what(m.Traits()) })
}

// NeedsClock reports whether the door depends on a clock that is right.
func (d *Door) NeedsClock() bool {
	return d.needs(func(t method.Traits) bool { return t.Clock })
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

// NeedsReplayMemory reports whether it has to be remembered what was used, so that it opens
// a door once.
func (c *Config) NeedsReplayMemory() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool {
		return d.needs(func(t method.Traits) bool { return t.Replay })
	})
}

// HasUDP reports whether any door guards a UDP port.
func (c *Config) HasUDP() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.HasProtocol(packet.UDP) })
}

// HasCommands reports whether it has to be remembered which commands are due.
func (c *Config) HasCommands() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.OnClose != nil })
}
