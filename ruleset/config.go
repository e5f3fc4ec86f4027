package ruleset

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/spa"
)

// Config is the checked configuration of the rule files, with every default filled in.
type Config struct {
	Wall  Wall
	Doors []Door
	Share *Share // nil: nothing is shared with other hosts
}

// Wall has the settings that apply to all doors.
type Wall struct {
	Table      string         // name of the nftables table, family inet
	LogGroup   uint16         // the first of two NFLOG groups
	Queue      uint16         // the first of six NFQUEUE numbers
	Interfaces []string       // patterns for [FitsInterface] of the guarded interfaces; empty: all but lo
	Trusted    []netip.Prefix // sources that need not knock
	OnStop     OnStop
	Hold       time.Duration // how long the SYN of a source without a window waits for a knock
	Reorder    time.Duration // by how much knocks may overtake each other
	MaxSources int           // maximum number of attempts tracked at once
	MaxWindows int           // maximum number of open windows, for each door and IP version
	// IdentityPath is the file of the host's private identity. It is "" if the rule files have
	// the identity from elsewhere.
	IdentityPath string
	Identity     *spa.Opener // nil if no door needs it, or if it cannot be read
}

// DoorNumber returns the number of the door of that name in the table, where windows of all
// doors are in one set. It is the 32-bit FNV-1a hash of the name, so that it is the same after a
// restart and a reload. No two doors of a configuration have the same number.
func DoorNumber(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name)) // has no error
	return h.Sum32()
}

// Door is a group of ports that open together.
type Door struct {
	Name            string
	Ports           []packet.PortRange // hidden ports; sorted, without overlaps; may be empty
	Methods         []method.Method    // open the door, and may close it; at most one has knocks
	CloseSequence   []packet.Port      // closes the door
	SequenceTimeout time.Duration      // from the first knock to the last
	Window          time.Duration      // how long new connections are admitted
	Flags           FlagMatch          // the flags of a TCP knock
	MaxConnections  int                // per window; 0: no limit
	Closed          Closed
	OnFailure       OnFailure
	Interfaces      []string       // patterns for [FitsInterface] of the guarded interfaces; empty: all but lo
	To              []netip.Prefix // guarded addresses; empty: this host's own
	Trusted         []netip.Prefix // sources that need not knock at this door
	SourcePrefix    packet.SourcePrefix
	PenaltyPrefix   packet.SourcePrefix // sources in one such prefix are trapped together
	UDPTimeout      time.Duration       // how long an admitted UDP flow may be silent
	TrapList        []packet.PortRange  // ports that are traps
	TrapCount       int                 // or the number of traps to choose
	Penalty         time.Duration       // how long a source that tried a trap cannot knock
	OnOpen, OnClose *Command            // nil: none
}

// maxDoors is the maximum number of doors. A door has one lock for each of its sequences,
// at most four, and a tracker has at most 65,536.
const maxDoors = 1 << 14

// The range of a door's window.
const (
	MinWindow = 100 * time.Millisecond
	MaxWindow = 24 * time.Hour
)

// The range of a door's UDP timeout. Connection tracking counts in seconds.
const (
	MinUDPTimeout = time.Second
	MaxUDPTimeout = 24 * time.Hour
)

// FlagMatch matches TCP packets whose flags under Mask equal Value.
type FlagMatch struct{ Mask, Value packet.Flags }

// OnStop says whether the table stays when the daemon stops.
type OnStop string

// Closed says how a closed door answers.
type Closed string

// OnFailure says how sources without a window are answered while no daemon runs.
type OnFailure string

// The values in rule files.
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
		MaxWindows: 65536,
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

// Guards reports whether the door guards a port.
func (d *Door) Guards(p packet.Port) bool { return packet.InRanges(p, d.Ports) }

// GuardsAt reports whether the door guards an address. isHere says that the address is one
// of this host's own, all of which a door without `to` guards.
func (d *Door) GuardsAt(a netip.Addr, isHere bool) bool {
	if len(d.To) == 0 {
		return isHere
	}
	return packet.Among(a, d.To)
}

// isKnocked reports whether knocks open or close the door.
func (d *Door) isKnocked() bool { return d.Knocking() >= 0 || len(d.CloseSequence) > 0 }

// Knocking returns the index of the door's method that has knocks, or -1 if there is none.
func (d *Door) Knocking() int {
	return slices.IndexFunc(d.Methods, func(m method.Method) bool { _, ok := m.(method.Sequences); return ok })
}

// OpensBy returns the names of the door's methods, as in rule files.
func (d *Door) OpensBy() []string {
	var names []string
	for _, m := range d.Methods {
		names = append(names, m.Name())
	}
	return names
}

// forMethods returns the part of the door that methods may read.
func (d *Door) forMethods() method.Door {
	return method.Door{Name: d.Name, Ports: d.Ports, To: d.To, Methods: d.Methods, Close: d.CloseSequence}
}

// needs reports whether a method of the door has a trait.
func (d *Door) needs(what func(method.Traits) bool) bool {
	return slices.ContainsFunc(d.Methods, func(m method.Method) bool { return what(m.Traits()) })
}

// NeedsClock reports whether the door depends on a correct clock.
func (d *Door) NeedsClock() bool {
	return d.needs(func(t method.Traits) bool { return t.Clock })
}

// HasProtocol reports whether the door guards a port of a protocol.
func (d *Door) HasProtocol(p packet.Protocol) bool {
	return slices.ContainsFunc(d.Ports, func(r packet.PortRange) bool { return r.Protocol == p })
}

// Door returns the door with a name, or nil.
func (c *Config) Door(name string) *Door {
	i := slices.IndexFunc(c.Doors, func(d Door) bool { return d.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Doors[i]
}

// NeedsReplayMemory reports whether the daemon has to remember used sequences and
// passwords, so that each opens a door only once.
func (c *Config) NeedsReplayMemory() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool {
		return d.needs(func(t method.Traits) bool { return t.Replay })
	})
}

// HasUDP reports whether any door guards a UDP port.
func (c *Config) HasUDP() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.HasProtocol(packet.UDP) })
}

// HasCommands reports whether the daemon has to remember which on_close commands are due.
func (c *Config) HasCommands() bool {
	return slices.ContainsFunc(c.Doors, func(d Door) bool { return d.OnClose != nil })
}
