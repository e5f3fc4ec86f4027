package forge

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
)

// Every packet of a flood has correct checksums, and the flood has the requested number
// of sources.
func TestAFloodsPacketsAreValid(t *testing.T) {
	tcp := packet.Port{Number: 22, Protocol: packet.TCP}
	udp := packet.Port{Number: 62201, Protocol: packet.UDP}
	for name, s := range map[string]Stream{
		"IPv4":              {To: netip.MustParseAddr("192.0.2.1"), Among: netip.MustParsePrefix("10.128.0.0/9"), Ports: []packet.Port{tcp}, Sources: 100_000},
		"IPv4, datagrams":   {To: netip.MustParseAddr("192.0.2.1"), Among: netip.MustParsePrefix("10.128.0.0/9"), Ports: []packet.Port{udp}, Payload: 205, Sources: 100_000},
		"IPv6":              {To: netip.MustParseAddr("2001:db8::1"), Among: netip.MustParsePrefix("2001:db8:2::/64"), Ports: []packet.Port{tcp}, Sources: 100_000},
		"IPv4, one source":  {To: netip.MustParseAddr("192.0.2.1"), From: netip.MustParseAddr("192.0.2.2"), Ports: []packet.Port{tcp}},
		"IPv4, all sources": {To: netip.MustParseAddr("192.0.2.1"), Among: netip.MustParsePrefix("10.128.0.0/9"), Ports: []packet.Port{tcp}},
	} {
		t.Run(name, func(t *testing.T) {
			s.Hardware = make([]byte, 6)
			const turns = 200_000
			sources := map[netip.Addr]bool{}
			p := newPackets(s)
			for n := 0; n < turns; {
				sent := len(p.next(batch))
				n += sent
				slot := (p.at + slots - sent) % slots
				for i := slot; i < slot+sent; i++ {
					b := p.bytes[i*p.size : (i+1)*p.size]
					got, ok := packet.Parse(b[linkHeader:])
					if !ok {
						t.Fatalf("packet %d cannot be read: %x", i, b)
					}
					if !s.From.IsValid() && !s.Among.Contains(got.Source) {
						t.Fatalf("packet %d comes from %s", i, got.Source)
					}
					sources[got.Source] = true
					if i%17 == 0 {
						checkSums(t, b[linkHeader:])
					}
				}
			}
			want := s.Sources
			switch {
			case s.From.IsValid():
				want = 1
			case want == 0:
				want = len(sources)
				if want < turns {
					t.Errorf("only %d sources in %d packets", want, turns)
				}
			}
			if len(sources) != want {
				t.Errorf("%d sources, want %d", len(sources), want)
			}
		})
	}
}

func checkSums(t *testing.T, b []byte) {
	t.Helper()
	header, protocol, addresses := b[:20], b[9], b[12:20]
	if b[0]>>4 == 6 {
		header, protocol, addresses = b[:40], b[6], b[8:40]
	} else if sum := Checksum(header); sum != 0 {
		t.Fatalf("the header's checksum is off by %#x: %x", sum, b)
	}
	transport := b[len(header):]
	pseudo := append([]byte(nil), addresses...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(transport)))
	pseudo = append(pseudo, 0, 0, 0, protocol)
	if sum := Checksum(append(pseudo, transport...)); sum != 0 {
		t.Fatalf("the checksum is off by %#x: %x", sum, b)
	}
}
