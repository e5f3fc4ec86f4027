package packet_test

import (
	"net/netip"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
)

func TestSourceAsText(t *testing.T) {
	tests := []struct{ in, prefix, text string }{
		{"192.0.2.1", "192.0.2.1/32", "192.0.2.1"},
		{"192.0.2.1/32", "192.0.2.1/32", "192.0.2.1"},
		{"192.0.2.0/24", "192.0.2.0/24", "192.0.2.0/24"},
		{"2001:db8::1", "2001:db8::1/128", "2001:db8::1"},
		{"2001:db8::1/128", "2001:db8::1/128", "2001:db8::1"},
		{"2001:DB8::/64", "2001:db8::/64", "2001:db8::/64"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			var s packet.Source
			if err := s.UnmarshalText([]byte(tt.in)); err != nil {
				t.Fatal(err)
			}
			if want := netip.MustParsePrefix(tt.prefix); s.Prefix != want {
				t.Errorf("UnmarshalText reads %v, want %v", s.Prefix, want)
			}
			text, err := s.MarshalText()
			if err != nil || string(text) != tt.text || s.String() != tt.text {
				t.Errorf("MarshalText = %q, %v, String = %q, want %q", text, err, s, tt.text)
			}
		})
	}
}

func TestSourceRefusesWhatIsNoAddress(t *testing.T) {
	for _, in := range []string{"host", "192.0.2", "192.0.2.1/33", "192.0.2.1:22", "2001:db8::/129"} {
		var s packet.Source
		if err := s.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("UnmarshalText(%q) reads %v", in, s)
		}
	}
}

func TestSourcePrefixOf(t *testing.T) {
	tests := []struct {
		prefix     packet.SourcePrefix
		addr, want string
	}{
		{packet.SourcePrefix{IPv4: 32, IPv6: 128}, "192.0.2.77", "192.0.2.77"},
		{packet.SourcePrefix{IPv4: 32, IPv6: 128}, "2001:db8::77", "2001:db8::77"},
		{packet.SourcePrefix{IPv4: 24, IPv6: 64}, "192.0.2.77", "192.0.2.0/24"},
		{packet.SourcePrefix{IPv4: 24, IPv6: 64}, "2001:db8:0:0:1::77", "2001:db8::/64"},
		{packet.SourcePrefix{IPv4: 1, IPv6: 1}, "192.0.2.77", "128.0.0.0/1"},
	}
	for _, tt := range tests {
		if got := tt.prefix.Of(netip.MustParseAddr(tt.addr)).String(); got != tt.want {
			t.Errorf("%+v.Of(%s) = %s, want %s", tt.prefix, tt.addr, got, tt.want)
		}
	}
}
