package packet

import (
	"fmt"
	"strconv"
	"strings"
)

// Protocol is an IP protocol number (the IANA registry "Protocol Numbers").
type Protocol uint8

// The protocols that knockwall judges.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "protocol " + strconv.Itoa(int(p))
}

// Port is a port of one protocol.
type Port struct {
	Number   uint16
	Protocol Protocol
}

// String returns the port as rule files and the audit trail have it: 7000/tcp.
func (p Port) String() string {
	return strconv.Itoa(int(p.Number)) + "/" + p.Protocol.String()
}

// MarshalText returns the text of [Port.String].
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText parses what [ParsePort] parses.
func (p *Port) UnmarshalText(text []byte) error {
	port, err := ParsePort(string(text))
	if err != nil {
		return err
	}
	*p = port
	return nil
}

// ParsePort parses 22, 22/tcp, 22:tcp or 51820/udp. A bare number is a TCP port. The
// number is from 1 to 65535.
func ParsePort(s string) (Port, error) {
	r, err := ParsePortRange(s)
	if err != nil {
		return Port{}, err
	}
	if r.First != r.Last {
		return Port{}, fmt.Errorf("%q is a range of ports where one port is wanted", s)
	}
	return Port{Number: r.First, Protocol: r.Protocol}, nil
}

// PortRange is a range of ports of one protocol, from First to Last inclusive.
type PortRange struct {
	First, Last uint16
	Protocol    Protocol
}

// Contains reports whether the range contains the port.
func (r PortRange) Contains(p Port) bool {
	return p.Protocol == r.Protocol && r.First <= p.Number && p.Number <= r.Last
}

// Overlaps reports whether two ranges have a port in common.
func (r PortRange) Overlaps(o PortRange) bool {
	return r.Protocol == o.Protocol && r.First <= o.Last && o.First <= r.Last
}

// String returns the range as rule files have it: 22/tcp, 8000-8010/tcp.
func (r PortRange) String() string {
	if r.First == r.Last {
		return Port{r.First, r.Protocol}.String()
	}
	return strconv.Itoa(int(r.First)) + "-" + Port{r.Last, r.Protocol}.String()
}

// MarshalText returns the text of [PortRange.String].
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText parses what [ParsePortRange] parses.
func (r *PortRange) UnmarshalText(text []byte) error {
	ports, err := ParsePortRange(string(text))
	if err != nil {
		return err
	}
	*r = ports
	return nil
}

// ParsePortRange parses what [ParsePort] parses, and ranges such as 8000-8010/tcp.
func ParsePortRange(s string) (PortRange, error) {
	r := PortRange{Protocol: TCP}
	numbers := s
	if i := strings.IndexAny(s, "/:"); i >= 0 {
		switch strings.ToLower(s[i+1:]) {
		case "tcp":
		case "udp":
			r.Protocol = UDP
		default:
			return PortRange{}, fmt.Errorf("%q is not a protocol: write tcp or udp", s[i+1:])
		}
		numbers = s[:i]
	}
	first, last, isRange := strings.Cut(numbers, "-")
	if !isRange {
		last = first
	}
	var ok1, ok2 bool
	r.First, ok1 = ParsePortNumber(first)
	r.Last, ok2 = ParsePortNumber(last)
	if !ok1 || !ok2 {
		return PortRange{}, fmt.Errorf("%q is not a port: ports are whole numbers from 1 to 65535", numbers)
	}
	if r.Last < r.First {
		return PortRange{}, fmt.Errorf("the range %s ends before it begins", numbers)
	}
	return r, nil
}

// ParsePortNumber parses a whole number from 1 to 65535.
func ParsePortNumber(s string) (n uint16, ok bool) {
	wide, err := strconv.ParseUint(s, 10, 16)
	return uint16(wide), err == nil && wide > 0
}
