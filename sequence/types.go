package sequence

import "github.com/knockwall/knockwall/internal/packet"

// The packets, ports and sources that this package's functions take. They are types of
// this module's internal packages, by names that other modules can use.
type (
	Packet       = packet.Packet
	Port         = packet.Port
	PortRange    = packet.PortRange
	Protocol     = packet.Protocol
	Source       = packet.Source
	SourcePrefix = packet.SourcePrefix
)

// The protocols of knocks.
const (
	TCP = packet.TCP
	UDP = packet.UDP
)
