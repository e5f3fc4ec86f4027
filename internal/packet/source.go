package packet

import "net/netip"

// Source is who counts as one client: an address, or all addresses that share
// a prefix with it.
type Source struct{ netip.Prefix }

// String writes a single address as 192.0.2.1, a wider source as 2001:db8::/64.
func (s Source) String() string {
	if s.IsSingleIP() {
		return s.Addr().String()
	}
	return s.Prefix.String()
}

// MarshalText writes the source as [Source.String] does.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads an address or a prefix.
func (s *Source) UnmarshalText(text []byte) error {
	if addr, err := netip.ParseAddr(string(text)); err == nil {
		s.Prefix = netip.PrefixFrom(addr, addr.BitLen())
		return nil
	}
	return s.Prefix.UnmarshalText(text)
}

// SourcePrefix says by how many leading bits of their address clients are told
// apart: IPv4 from 1 to 32, IPv6 from 1 to 128.
type SourcePrefix struct{ IPv4, IPv6 int }

// Of returns the source that an address belongs to.
func (l SourcePrefix) Of(addr netip.Addr) Source {
	bits := l.IPv6
	if addr.Is4() {
		bits = l.IPv4
	}
	// The lengths are checked where rule files are read, so this cannot fail.
	prefix, _ := addr.Prefix(bits)
	return Source{prefix}
}
