package packet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Source is what counts as one client: an address, or all addresses that share a prefix
// with it. A link-local address is another host on each link (RFC 4007, section 6), and
// so another source.
type Source struct {
	netip.Prefix
	Link uint32 // index of the interface to a link-local source; 0 for other sources
}

// String returns a single address as 192.0.2.1 or fe80::1%eth0, and a wider source as
// 2001:db8::/64 or fe80::%eth0/64.
func (s Source) String() string {
	addr := s.Addr()
	if s.Link != 0 {
		addr = addr.WithZone(linkName(s.Link))
	}
	if s.IsSingleIP() {
		return addr.String()
	}
	return addr.String() + "/" + strconv.Itoa(s.Bits())
}

// IsLinkLocal reports whether the source is on a link of this host, so that another host
// knows another source by the same address, or none.
func (s Source) IsLinkLocal() bool { return s.Link != 0 || s.Addr().IsLinkLocalUnicast() }

// linkName returns an interface's name, or its index if it does not exist any more.
func linkName(index uint32) string {
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return strconv.Itoa(int(index))
}

// link returns the index of the interface that a zone names, by name or by number, and 0
// if there is none.
func link(zone string) uint32 {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// ParseSource parses what [Source.String] returns.
func ParseSource(text string) (Source, error) {
	address, length, isPrefix := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return Source{}, err
	}
	bits := addr.BitLen()
	if isPrefix {
		if bits, err = strconv.Atoi(length); err != nil || bits < 0 || bits > addr.BitLen() {
			return Source{}, fmt.Errorf("%q is no length of a prefix", length)
		}
	}
	s := Source{Prefix: netip.PrefixFrom(addr.WithZone(""), bits)}
	if addr.Zone() != "" {
		if s.Link = link(addr.Zone()); s.Link == 0 {
			return Source{}, fmt.Errorf("there is no interface %q", addr.Zone())
		}
	}
	return s, nil
}

// Meets reports whether two sources have an address in common: one can be a prefix that has
// the other. A link-local source without an interface meets those on all links. An IPv4
// address that is written as an IPv6 one is what it is.
func (s Source) Meets(other Source) bool {
	return other.IsValid() && unmapped(s.Prefix).Overlaps(other.Prefix) && (s.Link == 0 || s.Link == other.Link)
}

func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.IsSingleIP() {
		return netip.PrefixFrom(p.Addr().Unmap(), 32)
	}
	return p
}

// MarshalText returns the text of [Source.String].
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses an address or a prefix, as [ParseSource] does.
func (s *Source) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSource(string(text))
	return err
}

// SourcePrefix says how many leading bits of an address tell clients apart: from 1 to 32
// for IPv4, from 1 to 128 for IPv6.
type SourcePrefix struct{ IPv4, IPv6 int }

// Of returns the source that an address belongs to. The zone of a link-local address is
// the interface.
func (l SourcePrefix) Of(addr netip.Addr) Source {
	bits := l.IPv6
	if addr.Is4() {
		bits = l.IPv4
	}
	s := Source{}
	if addr.Zone() != "" {
		s.Link = link(addr.Zone())
	}
	// The lengths are checked when rule files are read, so this cannot fail.
	s.Prefix, _ = addr.WithZone("").Prefix(bits)
	return s
}

// Covers reports whether a source has these lengths.
func (l SourcePrefix) Covers(s Source) bool { return l.Of(s.Addr()).Prefix == s.Prefix }

// Among reports whether an address is in any of the prefixes. It ignores the zone.
func Among(a netip.Addr, prefixes []netip.Prefix) bool {
	a = a.WithZone("")
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
