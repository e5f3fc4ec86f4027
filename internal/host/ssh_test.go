package host_test

import (
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/host"
)

func TestSessionAsSSHDTellsIt(t *testing.T) {
	for text, want := range map[string]string{
		"198.51.100.7 50000 192.0.2.1 22":                     "198.51.100.7:50000 192.0.2.1:22",
		"2001:db8::7 50000 2001:db8::1 2222":                  "[2001:db8::7]:50000 [2001:db8::1]:2222",
		"::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22":       "198.51.100.7:50000 192.0.2.1:22",
		"fe80::7%eth0 50000 fe80::1%eth0 22":                  "[fe80::7]:50000 [fe80::1]:22",
		" 198.51.100.7  50000 192.0.2.1 22\n":                 "198.51.100.7:50000 192.0.2.1:22",
		"198.51.100.7 65535 192.0.2.1 65535":                  "198.51.100.7:65535 192.0.2.1:65535",
		"":                                                    "",
		"198.51.100.7":                                        "",
		"198.51.100.7 50000 192.0.2.1":                        "",
		"198.51.100.7 50000 192.0.2.1 22 22":                  "",
		"198.51.100.7 50000 192.0.2.1 65536":                  "",
		"198.51.100.7 -1 192.0.2.1 22":                        "",
		"198.51.100.7 50000 192.0.2.1 ssh":                    "",
		"client.example 50000 192.0.2.1 22":                   "",
		"198.51.100.7 50000 server.example 22":                "",
		"198.51.100.7 192.0.2.1 50000 22":                     "",
		"UNKNOWN 65535 UNKNOWN 65535":                         "", // what sshd writes without a connection
		strings.Repeat("9", 1<<16) + " 50000 192.0.2.1 22":    "",
		"198.51.100.7 " + strings.Repeat("9", 99) + " 1.1 22": "",
	} {
		s, ok := host.ParseSession(text)
		got := ""
		if ok {
			got = s.Client.String() + " " + s.Server.String()
			if again, ok := host.ParseSession(s.String()); !ok || again != s {
				t.Errorf("%.80q is written as %q", text, s)
			}
		}
		if got != want {
			t.Errorf("%.80q is %q, want %q", text, got, want)
		}
	}
}
