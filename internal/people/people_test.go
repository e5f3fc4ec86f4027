package people

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// text returns the key as a line has it.
func text(s ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

// listOf returns the list of some lines, which must have no problem.
func listOf(t testing.TB, lines ...string) *List {
	t.Helper()
	l := NewList()
	if problems := l.Authorize("people", []byte(strings.Join(lines, "\n"))); len(problems) > 0 {
		t.Fatalf("problems: %+v", problems)
	}
	return l
}

func TestALineNamesAPerson(t *testing.T) {
	alice, bob := newKey(t), newKey(t)
	l := listOf(t, "# people", "", text(alice)+" alice@laptop", "\t"+`from="10.0.0.0/8,!10.9.*",doors="ssh,vpn",window="10m",no-pty,command="echo \"hi, there\"" `+text(bob)+" Bob B.\r")
	line := l.ByKey(FingerprintOf(alice.PublicKey()))
	if line == nil || line.Name != "alice@laptop" || line.Number != 3 || !line.Opens("ssh") || !line.Opens("any") || line.Window != 0 {
		t.Errorf("alice: %+v", line)
	}
	line = l.ByKey(FingerprintOf(bob.PublicKey()))
	if line == nil || line.Name != "Bob B." || line.Number != 4 || !line.Opens("vpn") || line.Opens("any") || line.Window != 10*time.Minute {
		t.Errorf("bob: %+v", line)
	}
	if l.ByKey(Fingerprint{}) != nil {
		t.Error("a key that nobody has")
	}
}

func TestAKeyWithoutACommentIsNamedByItsFingerprint(t *testing.T) {
	alice := newKey(t)
	line := listOf(t, text(alice)).ByKey(FingerprintOf(alice.PublicKey()))
	if want := ssh.FingerprintSHA256(alice.PublicKey()); line.Name != want || line.Name != FingerprintOf(alice.PublicKey()).String() {
		t.Errorf("named %q, want %q", line.Name, want)
	}
}

func TestNamesAreOfPrintableText(t *testing.T) {
	for name, want := range map[string]string{
		"alice": "alice", " alice\x1b[2J\n": "alice[2J", "\u2028": "key", strings.Repeat("ä", 50): strings.Repeat("ä", 22) + "…", "\xff": "key",
	} {
		if got := nameOr(name, Fingerprint{}); got != want && (want != "key" || !strings.HasPrefix(got, "SHA256:")) {
			t.Errorf("%q is named %q", name, got)
		}
	}
}

// Each mistake is found at its place, and admits nobody.
func TestMistakes(t *testing.T) {
	key := text(newKey(t))
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakKey, err := ssh.NewPublicKey(&weak.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		line    string
		at      string // the part that is marked
		summary string
	}{
		{"alice", "alice", "Line without a key"},
		{"ssh-ed25519", "ssh-ed25519", "Not a public key"},
		{"ssh-ed25519 AAAA alice", "ssh-ed25519 AAAA alice", "Not a public key"},
		{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "Not a public key"},
		{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(weakKey))), "", "Key that sshd no longer takes"},
		{`door="ssh" ` + key, `door="ssh"`, "Unknown option"},
		{`from=10.0.0.1 ` + key, "from=1", "Value without quotes"},
		{`from="10.0.0.1 ` + key, "", "Missing quote"},
		{`from ` + key, "from", "Option without a value"},
		{`from="" ` + key, `from=""`, "Option without a value"},
		{`command ` + key, "command", "Option without a value"},
		{`cert-authority="x" ` + key, `cert-authority="x"`, "Option with a value"},
		{`window="1w" ` + key, `window="1w"`, "Not a window"},
		{`window="25h" ` + key, `window="25h"`, "Not a window"},
		{`expiry-time="tomorrow" ` + key, `expiry-time="tomorrow"`, "Not a time"},
		{`expiry-time="20261301" ` + key, `expiry-time="20261301"`, "Not a time"},
		{`from="10.0.0.1",from="10.0.0.2" ` + key, `from="10.0.0.2"`, "Option that is given twice"},
		{`from="10.0.0.1", doors="ssh" ` + key, "", "Not an option"},
	} {
		l := NewList()
		problems := l.Authorize("people", []byte("\n"+tt.line+"\n"))
		if len(problems) != 1 || problems[0].Warning || problems[0].Summary != tt.summary || problems[0].Line != 2 {
			t.Errorf("%s: %+v", tt.line, problems)
			continue
		}
		if got := tt.line[problems[0].From:problems[0].To]; tt.at != "" && got != tt.at {
			t.Errorf("%s: %q is marked, want %q", tt.line, got, tt.at)
		}
		if l.Len() != 0 {
			t.Errorf("%s: somebody is admitted", tt.line)
		}
	}
}

func TestWarnings(t *testing.T) {
	key, other := text(newKey(t)), text(newKey(t))
	for _, tt := range []struct{ text, summary string }{
		{key + " a\n" + key + " b", "Key that is listed twice"},
		{"", "Nobody is listed"},
		{"# nobody yet\n", "Nobody is listed"},
		{`from="laptop.example.org" ` + key, "Host name in from="},
		{`from="10.0.0.300" ` + key, "No such address in from="},
		{`from="192.0.2.1,10.0.0" ` + key, "No such address in from="},
		{`from="192.0.2.0/33" ` + key, "No such address in from="},
		{`from="*,!10.0.300.*" ` + key, "No such address in from="},
		{`from="10.1.2.3.*" ` + key, "No such address in from="},
		{`from="2001:0db8:*" ` + key, "No such address in from="},
		{`from="2001:db80c::?" ` + key, "No such address in from="},
		{`from="1:2:3:4:5:6:7:8:*" ` + key, "No such address in from="},
		{`from="192.0.2.1," ` + key, "No such address in from="},
		{`from="!192.0.2.1,!2001:db8::/32" ` + key, "No address is allowed"},
		{`principals="alice" ` + other, "Principals of a plain key"},
		{`no-touch-required ` + key, "Touch is required"},
	} {
		l := NewList()
		problems := l.Authorize("people", []byte(tt.text))
		if len(problems) != 1 || !problems[0].Warning || problems[0].Summary != tt.summary {
			t.Errorf("%s: %+v", tt.text, problems)
		}
	}
}

// A pattern that matches some address is no mistake.
func TestNoWarningAboutPatternsOfAddresses(t *testing.T) {
	key := text(newKey(t))
	for _, from := range []string{"192.0.2.0/24,2001:db8::*", "*", "10.*", "10.0.0.?", "*.*.*.*", "1?.0.0.*,!10.0.0.7", "2001:DB8:*", "fe80::*:1",
		"1:2:3:4:5:6:7:*", "::ffff:1.2.3.4", "*:*", "0.0.0.*", " 192.0.2.1 , 192.0.2.2"} {
		if problems := NewList().Authorize("people", []byte(fmt.Sprintf("from=%q %s", from, key))); len(problems) != 0 {
			t.Errorf("%s: %+v", from, problems)
		}
	}
}

// The warning says what the pattern does, which is the opposite where it excludes.
func TestWarningAboutFromSaysItsEffect(t *testing.T) {
	key := text(newKey(t))
	for from, want := range map[string]string{
		"10.0.0.300":       `No address is like "10.0.0.300", so this pattern allows nobody.`,
		"*,!10.0.0.300":    `No address is like "10.0.0.300", so this pattern keeps nobody out.`,
		"*,!a.example.org": "looks up no names, so this pattern keeps nobody out.",
	} {
		problems := NewList().Authorize("people", []byte(fmt.Sprintf("# who\nfrom=%q %s", from, key)))
		if len(problems) != 1 || problems[0].Line != 2 || !strings.Contains(problems[0].Detail, want) {
			t.Errorf("%s: %+v", from, problems)
		}
	}
}

func TestFrom(t *testing.T) {
	for _, tt := range []struct {
		from    string
		address string
		want    bool
	}{
		{"192.0.2.7", "192.0.2.7", true},
		{"192.0.2.7", "192.0.2.8", false},
		{"192.0.2.0/24", "192.0.2.8", true},
		{"192.0.2.*", "192.0.2.8", true},
		{"192.0.2.?", "192.0.2.80", false},
		{"192.0.2.0/24,!192.0.2.7", "192.0.2.7", false},
		{"!192.0.2.7,192.0.2.0/24", "192.0.2.8", true},
		{"!192.0.2.7", "192.0.2.8", false},
		{"2001:db8::/32", "2001:db8::1", true},
		{"2001:DB8:*", "2001:db8:1::1", true},
		{"::ffff:192.0.2.7", "192.0.2.8", false},
		{"*", "2001:db8::1", true},
		{"laptop.example.org", "192.0.2.7", false},
		{"[0-9]*", "1.2.3.4", false},
	} {
		alice := newKey(t)
		l := NewList()
		l.Authorize("people", []byte(fmt.Sprintf("from=%q %s", tt.from, text(alice))))
		line := l.ByKey(FingerprintOf(alice.PublicKey()))
		err := l.Check(line, line.Fingerprint, noon, netip.MustParseAddr(tt.address), false)
		if tt.from == "[0-9]*" {
			continue // how it is read does not matter, as long as nothing panics
		}
		if (err == nil) != tt.want {
			t.Errorf("from=%q, %s: %v", tt.from, tt.address, err)
		}
		if r, ok := errors.AsType[*Refusal](err); err != nil && (!ok || r.Reason != NotFrom) {
			t.Errorf("from=%q, %s: %v", tt.from, tt.address, err)
		}
	}
}

func TestALineExpires(t *testing.T) {
	alice := newKey(t)
	for _, option := range []string{"20260301Z", "202603010000Z", "20260301000000Z"} {
		l := listOf(t, fmt.Sprintf("expiry-time=%q %s", option, text(alice)))
		line := l.ByKey(FingerprintOf(alice.PublicKey()))
		end := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		if err := l.Check(line, line.Fingerprint, end.Add(-time.Second), netip.Addr{}, false); err != nil {
			t.Errorf("%s: before: %v", option, err)
		}
		err := l.Check(line, line.Fingerprint, end, netip.Addr{}, false)
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Reason != Expired {
			t.Errorf("%s: after: %v", option, err)
		}
		if f := FingerprintOf(alice.PublicKey()).String(); !l.Admits(f, "", 0, "", "ssh", end.Add(-time.Second)) || l.Admits(f, "", 0, "", "ssh", end) {
			t.Errorf("%s: the window outlasts the line", option)
		}
	}
}

// certificate returns a certificate of a key by an authority.
func certificate(t testing.TB, key, authority ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{
		Key: key.PublicKey(), Serial: 7, CertType: ssh.UserCert, KeyId: "alice", ValidPrincipals: []string{"alice", "admin"},
		ValidAfter: uint64(noon.Add(-time.Hour).Unix()), ValidBefore: uint64(noon.Add(time.Hour).Unix()),
	}
	if change != nil {
		change(c)
	}
	if err := c.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCertificates(t *testing.T) {
	ca, key := newKey(t), newKey(t)
	set := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{name: value} }
	}
	for _, tt := range []struct {
		name, options string
		change        func(*ssh.Certificate)
		want          RefusalReason // 0: admitted
	}{
		{"any principal", "", nil, 0},
		{"no principal", "", func(c *ssh.Certificate) { c.ValidPrincipals = nil }, 0},
		{"forever", "", func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }, 0},
		{"a principal", `,principals="root,admin"`, nil, 0},
		{"another principal", `,principals="root"`, nil, NotAllowed},
		{"no principal where one is needed", `,principals="root"`, func(c *ssh.Certificate) { c.ValidPrincipals = nil }, NotAllowed},
		{"expired", "", func(c *ssh.Certificate) { c.ValidBefore = uint64(noon.Unix()) }, Expired},
		{"not yet valid", "", func(c *ssh.Certificate) { c.ValidAfter = uint64(noon.Unix()) + 1 }, Expired},
		{"of a host", "", func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, NotAllowed},
		{"its source", "", set("source-address", "192.0.2.0/24"), 0},
		{"another source", "", set("source-address", "198.51.100.7"), NotFrom},
		{"a command", "", set("force-command", "true"), 0},
		{"user verification", "", set("verify-required", ""), NotAllowed},
		{"a new option", "", set("moon-phase", "full"), NotAllowed},
		{"the line's from", `,from="198.51.100.7"`, nil, NotFrom},
		{"the line's expiry", `,expiry-time="20260228Z"`, nil, Expired},
	} {
		l := listOf(t, "cert-authority"+tt.options+" "+text(ca))
		c := certificate(t, key, ca, tt.change)
		line := l.ByAuthority(c)
		if line == nil {
			t.Fatal("the authority is unknown")
		}
		err := l.CheckCertificate(line, c, noon, netip.MustParseAddr("192.0.2.7"), false)
		r, _ := errors.AsType[*Refusal](err)
		if (err == nil) != (tt.want == 0) || r != nil && r.Reason != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	l := listOf(t, "cert-authority "+text(ca))
	if line := l.ByAuthority(certificate(t, key, newKey(t), nil)); line != nil {
		t.Errorf("an authority that is not listed: %+v", line)
	}
	forged := certificate(t, key, newKey(t), nil)
	forged.SignatureKey = ca.PublicKey()
	for _, change := range []func(){
		func() {},
		func() { forged.ValidBefore = 1 },
		func() { forged.CertType = ssh.HostCert },
		func() { forged.CriticalOptions = map[string]string{"moon-phase": ""} },
		func() { forged.ValidPrincipals = nil },
		func() { forged.Signature = nil },
	} {
		// Whatever else is wrong with it: what a forged certificate says of its person is not
		// true.
		change()
		if line := l.ByAuthority(forged); line != nil {
			t.Errorf("a forged certificate: %+v", forged)
		}
	}
	if l.ByKey(FingerprintOf(ca.PublicKey())) != nil {
		t.Error("an authority's own key is admitted")
	}
	if listOf(t, text(ca)).ByAuthority(certificate(t, key, ca, nil)) != nil {
		t.Error("a plain key is an authority")
	}
}

func TestRevoked(t *testing.T) {
	ca, key := newKey(t), newKey(t)
	f := FingerprintOf(key.PublicKey())
	for _, tt := range []struct {
		line                  string
		revokesKey, revokesID bool
	}{
		{text(key), true, true},
		{text(key) + " alice", true, true},
		{"key: " + text(key), true, true},
		{f.String(), true, true},
		{"sha256:" + f.String(), true, true},
		{"hash: " + f.String(), true, true},
		{"7", false, true},
		{"serial: 7", false, true},
		{"serial: 0x5-8", false, true},
		{"8", false, false},
		{"id: alice", false, true},
		{"id: bob", false, false},
		{text(newKey(t)), false, false},
	} {
		l := listOf(t, text(key), "cert-authority "+text(ca))
		if problems := l.Revoke("revoked", []byte("# gone\n"+tt.line+"\n")); len(problems) > 0 {
			t.Errorf("%s: %+v", tt.line, problems)
		}
		line := l.ByKey(f)
		if err := l.Check(line, line.Fingerprint, noon, netip.Addr{}, false); (err != nil) != tt.revokesKey {
			t.Errorf("%s: the key: %v", tt.line, err)
		}
		c := certificate(t, key, ca, nil)
		if err := l.CheckCertificate(l.ByAuthority(c), c, noon, netip.Addr{}, false); (err != nil) != tt.revokesID {
			t.Errorf("%s: the certificate: %v", tt.line, err)
		}
		if l.Admits(f.String(), "", 0, "", "ssh", noon) == tt.revokesKey {
			t.Errorf("%s: whether the window of the key stays", tt.line)
		}
		if l.Admits(f.String(), FingerprintOf(ca.PublicKey()).Short(), c.Serial, c.KeyId, "ssh", noon) == tt.revokesID {
			t.Errorf("%s: whether the window of the certificate stays", tt.line)
		}
	}
	for _, line := range []string{"alice", "serial: x", "9-7", "SHA256:abc", "id:", "ssh-ed25519 AAAA", "key: 7", "SSHKRL\n\x00\x00"} {
		l := NewList()
		if problems := l.Revoke("revoked", []byte(line)); len(problems) != 1 || problems[0].Warning {
			t.Errorf("%q: %+v", line, problems)
		}
	}
}

// A window remembers the beginning of a long ID.
func TestALongIDThatIsRevokedClosesItsWindow(t *testing.T) {
	ca, key := newKey(t), newKey(t)
	long := strings.Repeat("alice ", 20)
	l := listOf(t, "cert-authority "+text(ca))
	l.Revoke("revoked", []byte("id: "+long))
	c := certificate(t, key, ca, func(c *ssh.Certificate) { c.KeyId = strings.TrimSpace(long) })
	for _, name := range []string{NameOf(c), NameOf(c)[:20]} {
		if l.Admits(FingerprintOf(key.PublicKey()).String(), FingerprintOf(ca.PublicKey()).Short(), c.Serial, name, "ssh", noon) {
			t.Errorf("the window of %q stays", name)
		}
	}
}

func TestACertificateOfAWeakKeyIsRefused(t *testing.T) {
	ca := newKey(t)
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	l := listOf(t, "cert-authority "+text(ca))
	c := certificate(t, weak, ca, nil)
	if err := l.CheckCertificate(l.ByAuthority(c), c, noon, netip.Addr{}, false); err == nil {
		t.Error("admitted")
	}
}

func TestARevokedAuthorityAdmitsNobody(t *testing.T) {
	ca, key := newKey(t), newKey(t)
	l := listOf(t, "cert-authority "+text(ca))
	l.Revoke("revoked", []byte(text(ca)))
	c := certificate(t, key, ca, nil)
	if err := l.CheckCertificate(l.ByAuthority(c), c, noon, netip.Addr{}, false); err == nil {
		t.Error("admitted")
	}
	if l.Admits(FingerprintOf(key.PublicKey()).String(), FingerprintOf(ca.PublicKey()).Short(), 7, "alice", "ssh", noon) {
		t.Error("the window stays")
	}
}

func TestThousandsOfLines(t *testing.T) {
	var b bytes.Buffer
	keys := make([]ssh.Signer, 3000)
	for i := range keys {
		keys[i] = newKey(t)
		fmt.Fprintf(&b, "from=\"10.0.0.0/8\" %s person %d\n", text(keys[i]), i)
	}
	l := NewList()
	if problems := l.Authorize("people", b.Bytes()); len(problems) > 0 {
		t.Fatal(problems[0])
	}
	if diff := cmp.Diff(len(keys), l.Len()); diff != "" {
		t.Error(diff)
	}
	for i, k := range keys {
		if line := l.ByKey(FingerprintOf(k.PublicKey())); line == nil || line.Name != fmt.Sprintf("person %d", i) {
			t.Fatalf("person %d: %+v", i, line)
		}
	}
}

func FuzzAuthorize(f *testing.F) {
	key := text(newKey(f))
	for _, s := range []string{key, `from="10.0.0.1",doors="ssh",window="1m" ` + key + " alice", "cert-authority,principals=\"a\" " + key, `a="\"`, "ssh-", "# x\n\n", "\xff\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l := NewList()
		for _, p := range append(l.Authorize("people", b), l.Revoke("revoked", b)...) {
			lines := bytes.Split(b, []byte("\n"))
			if p.Line < 1 || p.Line > len(lines) && len(b) > 0 || p.From < 0 || p.To < p.From {
				t.Fatalf("%+v", p)
			}
			if p.Line <= len(lines) && p.To > len(lines[p.Line-1]) {
				t.Fatalf("%+v: the line has %d bytes", p, len(lines[p.Line-1]))
			}
		}
		for _, line := range l.Lines() {
			if line.Name == "" || len(line.Name) > len("SHA256:")+43 {
				t.Fatalf("a person is named %q", line.Name)
			}
		}
	})
}
