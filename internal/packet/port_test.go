package packet_test

import (
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
)

func TestParsePortRange(t *testing.T) {
	tests := []struct {
		in   string
		want packet.PortRange
		text string
	}{
		{"22", packet.PortRange{First: 22, Last: 22, Protocol: packet.TCP}, "22/tcp"},
		{"22/tcp", packet.PortRange{First: 22, Last: 22, Protocol: packet.TCP}, "22/tcp"},
		{"22:tcp", packet.PortRange{First: 22, Last: 22, Protocol: packet.TCP}, "22/tcp"},
		{"22:udp", packet.PortRange{First: 22, Last: 22, Protocol: packet.UDP}, "22/udp"},
		{"51820/udp", packet.PortRange{First: 51820, Last: 51820, Protocol: packet.UDP}, "51820/udp"},
		{"53/UDP", packet.PortRange{First: 53, Last: 53, Protocol: packet.UDP}, "53/udp"},
		{"1", packet.PortRange{First: 1, Last: 1, Protocol: packet.TCP}, "1/tcp"},
		{"65535", packet.PortRange{First: 65535, Last: 65535, Protocol: packet.TCP}, "65535/tcp"},
		{"8000-8010/tcp", packet.PortRange{First: 8000, Last: 8010, Protocol: packet.TCP}, "8000-8010/tcp"},
		{"8000-8010", packet.PortRange{First: 8000, Last: 8010, Protocol: packet.TCP}, "8000-8010/tcp"},
		{"8000-8010:udp", packet.PortRange{First: 8000, Last: 8010, Protocol: packet.UDP}, "8000-8010/udp"},
		{"1-65535/udp", packet.PortRange{First: 1, Last: 65535, Protocol: packet.UDP}, "1-65535/udp"},
		{"80-80/tcp", packet.PortRange{First: 80, Last: 80, Protocol: packet.TCP}, "80/tcp"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := packet.ParsePortRange(tt.in)
			if err != nil || got != tt.want {
				t.Fatalf("ParsePortRange = %+v, %v, want %+v", got, err, tt.want)
			}
			if got.String() != tt.text {
				t.Errorf("String = %q, want %q", got, tt.text)
			}
			single, err := packet.ParsePort(tt.in)
			switch {
			case got.First != got.Last:
				if err == nil || !strings.Contains(err.Error(), "range") {
					t.Errorf("ParsePort = %v, %v, want an error that names the range", single, err)
				}
			case err != nil || single != packet.Port{Number: got.First, Protocol: got.Protocol}:
				t.Errorf("ParsePort = %v, %v", single, err)
			case single.String() != tt.text:
				t.Errorf("String of the port = %q, want %q", single, tt.text)
			}
		})
	}
}

func TestParsePortRangeErrors(t *testing.T) {
	const number = "is not a port: ports are whole numbers from 1 to 65535"
	const protocol = "is not a protocol: write tcp or udp"
	tests := []struct{ in, want string }{
		{"", `"" ` + number},
		{"0", `"0" ` + number},
		{"65536", `"65536" ` + number},
		{"99999999999999999999", `"99999999999999999999" ` + number},
		{"-22", `"-22" ` + number},
		{"+22", `"+22" ` + number},
		{"2 2", `"2 2" ` + number},
		{"0x16", `"0x16" ` + number},
		{"ssh", `"ssh" ` + number},
		{"/tcp", `"" ` + number},
		{"22/", `"" ` + protocol},
		{"22/sctp", `"sctp" ` + protocol},
		{"22//tcp", `"/tcp" ` + protocol},
		{"22/tcp/udp", `"tcp/udp" ` + protocol},
		{"22/6", `"6" ` + protocol},
		{"8000-", `"8000-" ` + number},
		{"8000-8010-8020", `"8000-8010-8020" ` + number},
		{"0-10", `"0-10" ` + number},
		{"10-65536", `"10-65536" ` + number},
		{"8010-8000/tcp", "the range 8010-8000 ends before it begins"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := packet.ParsePortRange(tt.in)
			if err == nil || err.Error() != tt.want {
				t.Errorf("ParsePortRange = %+v, %v, want the error %s", got, err, tt.want)
			}
			if got != (packet.PortRange{}) {
				t.Errorf("with the error comes %+v", got)
			}
		})
	}
}

func TestParsePortNumber(t *testing.T) {
	for s, want := range map[string]uint16{
		"1": 1, "22": 22, "65535": 65535, "0022": 22,
		"": 0, "0": 0, "65536": 0, "-1": 0, "+1": 0, " 22": 0, "22 ": 0, "0x16": 0, "1_000": 0, "ssh": 0,
	} {
		if n, ok := packet.ParsePortNumber(s); ok != (want != 0) || ok && n != want {
			t.Errorf("%q is %d, %t; want %d", s, n, ok, want)
		}
	}
}

func TestPortRangeContains(t *testing.T) {
	r := packet.PortRange{First: 8000, Last: 8010, Protocol: packet.TCP}
	for p, want := range map[packet.Port]bool{
		{Number: 7999, Protocol: packet.TCP}: false,
		{Number: 8000, Protocol: packet.TCP}: true,
		{Number: 8005, Protocol: packet.TCP}: true,
		{Number: 8010, Protocol: packet.TCP}: true,
		{Number: 8011, Protocol: packet.TCP}: false,
		{Number: 8005, Protocol: packet.UDP}: false,
	} {
		if r.Contains(p) != want {
			t.Errorf("Contains(%v) = %t", p, !want)
		}
	}
}

func TestProtocolString(t *testing.T) {
	for p, want := range map[packet.Protocol]string{packet.TCP: "tcp", packet.UDP: "udp", 132: "protocol 132"} {
		if p.String() != want {
			t.Errorf("String of %d = %q, want %q", uint8(p), p, want)
		}
	}
}

func TestPortsAsText(t *testing.T) {
	port := packet.Port{Number: 7000, Protocol: packet.UDP}
	if text, err := port.MarshalText(); err != nil || string(text) != "7000/udp" {
		t.Errorf("MarshalText = %q, %v", text, err)
	}
	ports := packet.PortRange{First: 8000, Last: 8010, Protocol: packet.UDP}
	if text, err := ports.MarshalText(); err != nil || string(text) != "8000-8010/udp" {
		t.Errorf("MarshalText = %q, %v", text, err)
	}

	var gotPort packet.Port
	if err := gotPort.UnmarshalText([]byte("7000/udp")); err != nil || gotPort != port {
		t.Errorf("UnmarshalText = %v, %v, want %v", gotPort, err, port)
	}
	var gotPorts packet.PortRange
	if err := gotPorts.UnmarshalText([]byte("8000-8010/udp")); err != nil || gotPorts != ports {
		t.Errorf("UnmarshalText = %v, %v, want %v", gotPorts, err, ports)
	}

	// Invalid text changes nothing.
	if err := gotPort.UnmarshalText([]byte("8000-8010/udp")); err == nil || gotPort != port {
		t.Errorf("UnmarshalText of a range = %v, %v, want an error and %v", gotPort, err, port)
	}
	if err := gotPorts.UnmarshalText([]byte("none")); err == nil || gotPorts != ports {
		t.Errorf("UnmarshalText of no port = %v, %v, want an error and %v", gotPorts, err, ports)
	}
}

func FuzzParsePortRange(f *testing.F) {
	for _, s := range []string{"22", "22/tcp", "22:UDP", "8000-8010/tcp", "1-65535:udp", "10-9", "0", "", "-", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := packet.ParsePortRange(s)
		if err != nil {
			if err.Error() == "" {
				t.Error("the error says nothing")
			}
			return
		}
		if r.First == 0 || r.Last < r.First || r.Protocol != packet.TCP && r.Protocol != packet.UDP {
			t.Errorf("%q reads as %+v", s, r)
		}
		again, err := packet.ParsePortRange(r.String())
		if err != nil || again != r {
			t.Errorf("%q reads as %v, which reads as %v, %v", s, r, again, err)
		}
		// A port is a range of one port.
		port, err := packet.ParsePort(s)
		if (err == nil) != (r.First == r.Last) {
			t.Errorf("%q is %v as a range, and %v, %v as a port", s, r, port, err)
		}
		if err == nil && port.String() != r.String() {
			t.Errorf("%q is %v as a range and %v as a port", s, r, port)
		}
	})
}
