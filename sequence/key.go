package sequence

import (
	"net/netip"

	"github.com/knockwall/knockwall/internal/packet"
)

func keyOf(at int, s packet.Source) key {
	return key{
		source: s.Addr().As16(),
		bits:   uint8(s.Bits()),
		is4:    s.Addr().Is4(),
		at:     uint16(at),
	}
}

func (k key) sourceOf() packet.Source {
	addr := netip.AddrFrom16(k.source)
	if k.is4 {
		addr = addr.Unmap()
	}
	return packet.Source{Prefix: netip.PrefixFrom(addr, int(k.bits))}
}
