package fwknop_test

import (
	"encoding/base64"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	wire "github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fwknop"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

var (
	now    = time.Unix(1795819879, 0)
	source = netip.MustParseAddr("198.51.100.9") // of the packet
	inside = netip.MustParseAddr("192.0.2.7")    // in the datagram
)

func tcp(number uint16) packet.Port { return packet.Port{Number: number, Protocol: packet.TCP} }

// keysOf returns the keys of a person in these tests.
func keysOf(name string, kind wire.HMAC) wire.Keys {
	return wire.Keys{Cipher: []byte("the key of " + name), HMAC: []byte("the hmac key of " + name), Kind: kind}
}

// block returns the block of a person, with more lines.
func block(name, more string) string {
	k := keysOf(name, 0)
	return "fwknop \"" + name + "\" {\nkey = \"" + base64.StdEncoding.EncodeToString(k.Cipher) +
		"\"\nhmac_key = \"" + base64.StdEncoding.EncodeToString(k.HMAC) + "\"\n" + more + "\n}\n"
}

// load returns the method of a door that guards 22, and what is in the body.
func load(t *testing.T, body string) *fwknop.FWKnop {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.hcl")
	if err := os.WriteFile(path, []byte("door \"ssh\" {\nports = [22, \"53/udp\"]\n"+body+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := ruleset.Load(path)
	if l.Config == nil {
		t.Fatal(l.Diagnostics)
	}
	methods := l.Config.Doors[0].Methods
	return methods[len(methods)-1].(*fwknop.FWKnop)
}

func verify(t *testing.T, f *fwknop.FWKnop, datagram []byte) method.Meaning {
	t.Helper()
	return f.Verifier().Verify(datagram, source, now)
}

func request() wire.Request {
	return wire.Request{User: "alice", Time: now, Kind: wire.Access, Source: inside, Ports: []packet.Port{tcp(22)}}
}

func datagram(t *testing.T, k wire.Keys, r wire.Request) []byte {
	t.Helper()
	b, err := wire.Datagram(k, r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestADatagramOpensForItsPerson(t *testing.T) {
	f := load(t, block("alice", "")+block("bob", "hmac = \"sha512\"")+block("carol", "hmac = \"md5\""))
	for name, kind := range map[string]wire.HMAC{"alice": wire.SHA256, "bob": wire.SHA512, "carol": wire.MD5} {
		r := request()
		r.Timeout = time.Minute
		m := verify(t, f, datagram(t, keysOf(name, kind), r))
		if m.Action != method.Open || m.Person.Name != name || m.Code != audit.CodeFwknop || m.Source != inside || m.Window != time.Minute {
			t.Errorf("%s: %+v", name, m)
		}
		if !m.Once.Begins.Equal(now) || m.Once.Early != 2*time.Minute || m.Once.Kind != "fwknop" || len(m.Once.Detail) != 32 {
			t.Errorf("%s is used as %+v", name, m.Once)
		}
	}
}

// The use of a datagram is that of its content, whoever has sent it from wherever.
func TestTheUseOfADatagramIsItsContent(t *testing.T) {
	one, another := datagram(t, keysOf("alice", 0), request()), datagram(t, keysOf("alice", 0), request())
	first := verify(t, load(t, block("alice", "")), one).Once
	renamed := strings.Replace(block("alice", ""), `fwknop "alice"`, `fwknop "Alice A."`, 1)
	if again := load(t, renamed).Verifier().Verify(one, inside, now.Add(time.Minute)).Once; again != first {
		t.Errorf("the same datagram is used as %+v and %+v", first, again)
	}
	if other := verify(t, load(t, block("alice", "")), another).Once; other == first {
		t.Errorf("two datagrams are used as %+v", first)
	}
}

func TestWithoutAnAddressTheSourceOfThePacketCounts(t *testing.T) {
	r := request()
	r.Source = netip.Addr{}
	m := verify(t, load(t, block("alice", "")), datagram(t, keysOf("alice", 0), r))
	if m.Action != method.Open || m.Source.IsValid() {
		t.Errorf("%+v", m)
	}
}

func TestGarbageIsOfNobody(t *testing.T) {
	good := datagram(t, keysOf("alice", 0), request())
	last := slices.Clone(good)
	last[len(last)-1] ^= 1 // at most the spare bits of the last character
	for name, b := range map[string][]byte{
		"nothing": nil, "a stranger": datagram(t, keysOf("mallory", 0), request()), "spare bits": last,
		"another kind of HMAC": datagram(t, keysOf("alice", wire.SHA512), request()), "no HMAC": good[:len(good)-43],
	} {
		m := verify(t, load(t, block("alice", "")), b)
		if m.Action != method.Nothing || m.Person != (method.Person{}) || m.Code != audit.CodeNotFwknop {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestGarbageIsNoAllocation(t *testing.T) {
	v := load(t, block("alice", "")+block("bob", "hmac = \"sha3_512\"")).Verifier()
	garbage := []byte(strings.Repeat("/", 1500))
	if n := testing.AllocsPerRun(100, func() { v.Verify(garbage, source, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestARequestIsRefusedWithItsReason(t *testing.T) {
	for name, test := range map[string]struct {
		settings string
		change   func(*wire.Request)
		code     audit.Code
		reason   string
	}{
		"late":               {"", func(r *wire.Request) { r.Time = now.Add(-121 * time.Second) }, audit.CodeClock, "the client's clock is 2m1s behind, or this datagram is old"},
		"early":              {"", func(r *wire.Request) { r.Time = now.Add(121 * time.Second) }, audit.CodeClock, "the client's clock is 2m1s ahead"},
		"another user":       {`user = "alice"`, func(r *wire.Request) { r.User = "bob" }, audit.CodeNotAllowed, `the datagram names the user "bob", and not "alice"`},
		"no address":         {`source = "signed"`, func(r *wire.Request) { r.Source = netip.Addr{} }, audit.CodeNotAllowed, `the datagram names no address, and source is "signed": use fwknop -R or -a, not -s`},
		"from elsewhere":     {`from = ["192.0.2.0/24"]`, nil, audit.CodeNotFrom, `the datagram comes from an address that is not in "from"`},
		"expired":            {`expires = "2026-11-27T00:00:00Z"`, nil, audit.CodeExpired, `expires = "2026-11-27T00:00:00Z"`},
		"another port":       {"", func(r *wire.Request) { r.Ports = []packet.Port{tcp(443), tcp(53)} }, audit.CodeNotAllowed, "the datagram asks for 443/tcp, 53/tcp, which this door does not guard"},
		"a multicast source": {"", func(r *wire.Request) { r.Source = netip.MustParseAddr("224.0.0.1") }, audit.CodeNotAllowed, "the datagram asks for 224.0.0.1, from which nobody can come"},
	} {
		r := request()
		if test.change != nil {
			test.change(&r)
		}
		m := verify(t, load(t, block("alice", test.settings)), datagram(t, keysOf("alice", 0), r))
		if m.Action != method.Nothing || m.Person.Name != "alice" || m.Code != test.code || m.Reason != test.reason {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// stock returns a datagram of the stock client whose content has a part, and its time.
func stock(t *testing.T, part string) ([]byte, time.Time) {
	t.Helper()
	text, err := os.ReadFile("../../fwknop/testdata/datagrams.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if strings.Contains(line, part) {
			_, datagram, _ := strings.Cut(lines[i-1], " ")
			seconds, _ := strconv.ParseInt(strings.Split(line, ":")[2], 10, 64)
			return []byte(datagram), time.Unix(seconds, 0)
		}
	}
	t.Fatalf("there is no datagram with %s", part)
	return nil, time.Time{}
}

// A request opens a door only if the door guards what the client wants to reach, or if the
// door guards nothing and the client wants no NAT.
func TestARequestOpensOnlyWhatTheDoorGuards(t *testing.T) {
	const (
		nat      = ":2:MTkyLjAuMi43LHRjcC8yMg:MTAuMS4yLjMsMjI"            // tcp/22 to 10.1.2.3,22
		natLong  = ":4:MTkyLjAuMi43LHRjcC8yMg:MTAuMS4yLjMsMjI"            // the same, with a timeout
		natName  = ":2:MTkyLjAuMi43LHRjcC8yMg:aG9zdC5leGFtcGxlLm9yZywyMg" // tcp/22 to host.example.org,22
		local    = ":5:MTkyLjAuMi43LHRjcC81NTU1NQ:MTI3LjAuMC4xLDIy"       // tcp/55555 to 127.0.0.1,22
		command  = ":0:MTkyLjAuMi43LGlk"                                  // id
		access   = "7390657761385195"                                     // tcp/22
		long     = ":3:MTkyLjAuMi43LHRjcC8yMg"                            // the same, with a timeout
		runs     = "on_open {\ncommand = [\"/bin/true\"]\n}\n"
		noNAT    = "knockwall makes no NAT rules, and this door does not guard that port"
		toTarget = "to = [\"10.1.2.0/24\"]\n"
	)
	for _, test := range []struct{ part, ports, settings, refused string }{
		{nat, "22", toTarget, ""},
		{natLong, "22", toTarget, ""},
		{nat, "22", "", noNAT},
		{nat, "22", "to = [\"10.1.3.0/24\"]\n", noNAT},
		{nat, "23", toTarget, noNAT},
		{nat, "\"22/udp\"", toTarget, noNAT},
		{natName, "22", toTarget, "host.example.org port 22"},
		{local, "22", "", ""},
		{local, "55555", "", ""},
		{local, "23", "", "55555/tcp, which should lead to port 22"},
		{command, "22", "", "asks for a command"},
		{access, "22", "", ""},
		{access, "23", "", "22/tcp, which this door does not guard"},
		{access, "", runs, ""},
		{long, "", runs, ""},
		{nat, "", runs, noNAT},
		{local, "", runs, "this door guards neither"},
		{command, "", runs, "asks for a command"},
	} {
		path := filepath.Join(t.TempDir(), "rules.hcl")
		ports := "ports = [" + test.ports + "]\n"
		if test.ports == "" {
			ports = ""
		}
		text := "door \"d\" {\n" + ports + test.settings + "fwknop \"alice\" {\nkey = \"9uBaXTpu7gZxzxJWCBcc2jajIavpXPA847GX1ZYYGrY=\"\n" +
			"hmac_key = \"TPZ3jmyNthUPxqzFl0NIQmlMZfa+ZSSiJZS3F6f6xhS/+39iK2GSvhGKOVUd6iSV+5GoiTT1dg+Pcrps3bC9oQ==\"\n}\n}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := ruleset.Load(path)
		if l.Config == nil {
			t.Fatal(l.Diagnostics)
		}
		b, at := stock(t, test.part)
		m := l.Config.Doors[0].Methods[0].(*fwknop.FWKnop).Verifier().Verify(b, source, at)
		if (m.Action == method.Open) != (test.refused == "") || !strings.Contains(m.Reason, test.refused) {
			t.Errorf("%s at %s with %q: %+v", test.part, test.ports, test.settings, m)
		}
	}
}

func TestARequestWithinItsLimitsOpens(t *testing.T) {
	for name, test := range map[string]struct {
		settings string
		change   func(*wire.Request)
	}{
		"late":                {"", func(r *wire.Request) { r.Time = now.Add(-2 * time.Minute) }},
		"early":               {"", func(r *wire.Request) { r.Time = now.Add(2 * time.Minute) }},
		"the user":            {`user = "alice"`, nil},
		"any user":            {"", func(r *wire.Request) { r.User = "bob" }},
		"an address":          {`source = "signed"`, nil},
		"from there":          {`from = ["198.51.100.0/24"]`, nil},
		"not yet expired":     {`expires = "2027-01-31"`, nil},
		"one port of several": {"", func(r *wire.Request) { r.Ports = append(r.Ports, tcp(443)) }},
	} {
		r := request()
		if test.change != nil {
			test.change(&r)
		}
		if m := verify(t, load(t, block("alice", test.settings)), datagram(t, keysOf("alice", 0), r)); m.Action != method.Open {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestADoorWithoutReadableKeysVerifiesNothing(t *testing.T) {
	if v := (&fwknop.FWKnop{People: []*fwknop.Person{{Name: "alice"}}}).Verifier(); v != nil {
		t.Errorf("%+v", v)
	}
}

func TestAdmits(t *testing.T) {
	f := load(t, block("alice", "")+block("bob", `expires = "2026-11-27T00:00:00Z"`))
	for name, want := range map[string]bool{"alice": true, "bob": false, "carol": false, "": false} {
		if got := f.Admits(method.Person{Name: name}, now); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
	if got := f.Listed(now); !slices.Equal(got, []string{"alice"}) {
		t.Errorf("listed are %q", got)
	}
	if !f.Admits(method.Person{Name: "bob"}, now.AddDate(0, 0, -7)) {
		t.Error("bob is out before he expires")
	}
	if f.Admits(method.Person{Name: "alice", Key: "SHA256:abc"}, now) {
		t.Error("it admits who came with an ssh key by the same name")
	}
}

// The kernel passes the datagrams of all persons at their port, and hardly any garbage.
func TestTheKernelPassesTheDatagramsOfAllPersons(t *testing.T) {
	f := load(t, block("alice", "")+block("bob", "hmac = \"sha512\"")+block("carol", "port = \"5000/udp\""))
	state, err := f.Resolve(now)
	if err != nil {
		t.Fatal(err)
	}
	passes := func(port uint16, b []byte) bool {
		return slices.ContainsFunc(state.Datagrams, func(d method.Datagram) bool {
			return d.Port == packet.Port{Number: port, Protocol: packet.UDP} && d.Takes(b)
		})
	}
	many := request()
	for range 60 {
		many.Ports = append(many.Ports, tcp(22))
	}
	for _, r := range []wire.Request{request(), many} {
		for _, test := range []struct {
			name string
			kind wire.HMAC
			port uint16
		}{{"alice", wire.SHA256, 62201}, {"bob", wire.SHA512, 62201}, {"carol", wire.SHA256, 5000}} {
			if b := datagram(t, keysOf(test.name, test.kind), r); !passes(test.port, b) {
				t.Errorf("%d bytes of %s do not pass", len(b), test.name)
			}
		}
	}
	if ofBob := []byte(strings.Repeat("/", 226)); passes(5000, ofBob) || !passes(62201, ofBob) {
		t.Error("a size of SHA-512 passes at the wrong port, or not at the right one")
	}
	for _, b := range []string{"", "/", strings.Repeat("/", 139), strings.Repeat("/", 205), strings.Repeat("A", 204), strings.Repeat("/", 1501)} {
		if passes(62201, []byte(b)) {
			t.Errorf("%d bytes pass", len(b))
		}
	}
	const largest = 1500
	for _, d := range state.Datagrams {
		if d.Cost < 1 || d.Sizes[len(d.Sizes)-1].Most > largest {
			t.Errorf("%+v", d)
		}
	}
}

func TestDescribe(t *testing.T) {
	for body, want := range map[string]string{
		block("alice", ""):                    "an fwknop datagram of alice",
		block("alice", "") + block("bob", ""): "an fwknop datagram of alice or bob",
		block("a", "") + block("b", "") + block("c", "") + block("d", ""): "an fwknop datagram of one of 4 persons",
	} {
		if got := load(t, body).Describe(0); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// An fwknop port may be that of one-time passwords, whose datagrams have another size.
func TestAPortMayHaveDatagramsOfSeveralMethods(t *testing.T) {
	load(t, "otp {\nport = \"62201/udp\"\nopen_secret = \"correct horse battery\"\n}\n"+block("alice", ""))
}
