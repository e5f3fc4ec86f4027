package invitation

import (
	stdcmp "cmp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/spa"
)

const identity = "kw1:JbR2eTiDNUpU6dXWaOnBjWGkW0y2Yz6kfBQcxcS5kWU"

func public(t testing.TB) spa.Public {
	t.Helper()
	p, err := spa.ParsePublic(identity)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func examples(t testing.TB) map[string]Invitation {
	ssh := packet.Port{Number: 22, Protocol: packet.TCP}
	return map[string]Invitation{
		"knockwall:1/host=server.example.org/door=ssh/port=22:tcp/identity=" + identity + "/udp=62201": {
			Host: "server.example.org", Door: "ssh", Port: ssh, Keyed: &Keyed{public(t), 62201},
		},
		"knockwall:1/host=server/address=2001:db8::7/door=vpn/port=51820:udp/identity=" + identity + "/udp=4000": {
			Host: "server", Address: "2001:db8::7", Door: "vpn",
			Port: packet.Port{Number: 51820, Protocol: packet.UDP}, Keyed: &Keyed{public(t), 4000},
		},
		"knockwall:1/host=a/door=ssh/port=22:tcp/knock=4113:tcp/knock=27911:udp/knock=1840:tcp": {
			Host: "a", Door: "ssh", Port: ssh, Knocks: []packet.Port{{Number: 4113, Protocol: packet.TCP}, {Number: 27911, Protocol: packet.UDP}, {Number: 1840, Protocol: packet.TCP}},
		},
		"knockwall:1/host=a/door=ssh/port=22:tcp/rolling=correct%20horse%2F%25/length=4/ports=20000-29999:tcp/step=30": {
			Host: "a", Door: "ssh", Port: ssh,
			Rolling: &Rolling{"correct horse/%", 4, packet.PortRange{First: 20000, Last: 29999, Protocol: packet.TCP}, 30 * time.Second},
		},
		"knockwall:1/host=a/address=203.0.113.7/user=admin_2-x/door=ssh/port=22:tcp/knock=4113:tcp": {
			Host: "a", Address: "203.0.113.7", User: "admin_2-x", Door: "ssh", Port: ssh, Knocks: []packet.Port{{Number: 4113, Protocol: packet.TCP}},
		},
		"knockwall:1/host=a/door=ssh/port=22:tcp/password=hipjazz%26%24/udp=2000": {
			Host: "a", Door: "ssh", Port: ssh, Password: &Password{"hipjazz&$", 2000},
		},
	}
}

func TestInvitations(t *testing.T) {
	for line, want := range examples(t) {
		if got := want.String(); got != line {
			t.Errorf("written as %s, want %s", got, line)
		}
		for _, text := range []string{line, "  " + line + "\r\n", line[:40] + "\n  " + line[40:]} {
			got, err := Parse(text)
			if err != nil {
				t.Errorf("%q: %v", text, err)
				continue
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("%q (-want +got)\n%s", text, diff)
			}
		}
		if strings.Trim(line, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-/=%") != "" {
			t.Errorf("a shell may change %s", line)
		}
		if i, err := Parse(line); err == nil && i.HasSecret() == strings.Contains(line, identity) {
			t.Errorf("%s: has a secret: %t", line, i.HasSecret())
		}
	}
}

func TestTextThatIsNoInvitation(t *testing.T) {
	const good = "knockwall:1/host=a/door=ssh/port=22:tcp/knock=1001:tcp"
	for line, want := range map[string]string{
		"":                         "this is not an invitation",
		"ssh a":                    "this is not an invitation",
		"knockwall:1":              "this is not an invitation",
		"knockwall:1/host":         "this is not an invitation",
		"knockwall:1/host=%zz":     "this is not an invitation",
		"knockwall:2/host=a":       "made by a newer knockwall",
		strings.Repeat("x", 10000): "this is not an invitation",
		good + strings.Repeat("/knock=1001:tcp", 32): "damaged at \"knock\"",
		good + "/door=b":                                                         "\"door\" twice",
		good + "/colour=red":                                                     "damaged at \"colour\"",
		good + "/user=":                                                          "damaged at \"user\"",
		good + "/user=-oProxyCommand":                                            "damaged at \"user\"",
		good + "/user=a%0ab":                                                     "damaged at \"user\"",
		good + "/user=Alice":                                                     "damaged at \"user\"",
		good + "/user=" + strings.Repeat("a", 33):                                "damaged at \"user\"",
		good + "/user=a/user=b":                                                  "\"user\" twice",
		good + "/udp=2000":                                                       "a \"udp\" that does not belong there",
		good + "/password=hipjazz/udp=2000":                                      "not one way to knock",
		strings.Replace(good, "/knock=1001:tcp", "", 1):                          "not one way to knock",
		strings.Replace(good, "/port=22:tcp", "", 1):                             "has no \"port\"",
		strings.Replace(good, "host=a", "host=a%22%20b", 1):                      "damaged at \"host\"",
		strings.Replace(good, "host=a", "host=*", 1):                             "damaged at \"host\"",
		strings.Replace(good, "host=a", "host=-oProxyCommand:x", 1):              "damaged at \"host\"",
		strings.Replace(good, "door=ssh", "door=%0a", 1):                         "damaged at \"door\"",
		strings.Replace(good, "=22:tcp", "=0:tcp", 1):                            "damaged at \"port\"",
		strings.Replace(good, "knock=1001:tcp", "identity=kw1:AAAA/udp=1", 1):    "damaged at \"identity\"",
		strings.Replace(good, "knock=1001:tcp", "identity="+identity, 1):         "has no \"udp\"",
		strings.Replace(good, "knock=1001:tcp", "password=a%22b/udp=1", 1):       "damaged at \"password\"",
		strings.Replace(good, "knock=1001:tcp", "rolling=a/length=4/step=30", 1): "has no \"ports\"",
	} {
		if i, err := Parse(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %+v, %v, want %q", line, i, err, want)
		}
	}
}

func FuzzInvitation(f *testing.F) {
	for line := range examples(f) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		i, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(i.String())
		if err != nil {
			t.Fatalf("%q is written as %q: %v", line, i, err)
		}
		if diff := cmp.Diff(i, again); diff != "" {
			t.Errorf("%q\n%s", line, diff)
		}
	})
}

func TestRename(t *testing.T) {
	for _, address := range []string{"", "203.0.113.7"} {
		i := Invitation{Host: "server.example.org", Address: address}
		for _, wrong := range []string{"", "a b", "*", "-o", "a\"b"} {
			if err := i.Rename(wrong); err == nil {
				t.Errorf("%q is a name", wrong)
			}
		}
		if err := i.Rename("home"); err != nil || i.Host != "home" {
			t.Errorf("the invitation is %+v: %v", i, err)
		}
		if want := stdcmp.Or(address, "server.example.org"); i.Address != want {
			t.Errorf("the address is %q, want %q", i.Address, want)
		}
	}
}
