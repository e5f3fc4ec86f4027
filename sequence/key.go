package sequence

import (
	"encoding/binary"
	"net/netip"

	"github.com/knockwall/knockwall/internal/packet"
)

// linkAt is the offset of a link-local source's interface index in a key. These bits of
// the address are zero in all link-local addresses (RFC 4291, section 2.5.6).
const linkAt = 4

func keyOf(at int, s packet.Source) key {
	k := key{
		source: s.Addr().As16(),
		bits:   uint8(s.Bits()),
		is4:    s.Addr().Is4(),
		at:     uint16(at),
	}
	if s.Link != 0 {
		binary.BigEndian.PutUint32(k.source[linkAt:], s.Link)
	}
	return k
}

func (k key) sourceOf() packet.Source {
	addr := netip.AddrFrom16(k.source)
	if k.is4 {
		addr = addr.Unmap()
	}
	var link uint32
	if addr.IsLinkLocalUnicast() && addr.Is6() {
		link = binary.BigEndian.Uint32(k.source[linkAt:])
		clear(k.source[linkAt:][:4])
		addr = netip.AddrFrom16(k.source)
	}
	return packet.Source{Prefix: netip.PrefixFrom(addr, int(k.bits)), Link: link}
}

// bytes returns the key as bytes, for a hash.
func (k key) bytes() (b [20]byte) {
	copy(b[:], k.source[:])
	binary.NativeEndian.PutUint16(b[16:], k.at)
	b[18] = k.bits
	if k.is4 {
		b[19] = 1
	}
	return b
}
