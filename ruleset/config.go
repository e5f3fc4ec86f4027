package ruleset

import (
	"net/netip"
	"time"

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
	Queue      uint16         // the first of four NFQUEUE numbers
	Interfaces []string       // where doors are guarded; empty: everywhere but lo
	Trusted    []netip.Prefix // need not knock
	OnStop     OnStop
	Hold       time.Duration // how long a stranger's SYN waits for a knock
	Reorder    time.Duration // by how much knocks may overtake each other
	MaxSources int           // attempts that are followed at once
}

// Door is a group of ports that open together.
type Door struct {
	Name            string
	Ports           []packet.PortRange // what is hidden; sorted, without overlaps
	Sequence        []packet.Port      // the knocks, in order
	SequenceTimeout time.Duration      // first knock to last
	Window          time.Duration      // how long new connections are admitted
	Flags           FlagMatch          // what a TCP knock looks like
	MaxConnections  int                // a window; 0: no limit
	Closed          Closed
	OnFailure       OnFailure
	Interfaces      []string       // where the door is guarded; empty: everywhere but lo
	To              []netip.Prefix // addresses that are guarded; empty: this host's own
	Trusted         []netip.Prefix // need not knock at this door
	SourcePrefix    packet.SourcePrefix
}

// How long a window can be open.
const (
	MinWindow = 100 * time.Millisecond
	MaxWindow = 24 * time.Hour
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
