package hosts

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/ruleset"
)

var update = flag.Bool("update", false, "write the golden files anew, to be reviewed by eye")

const identity = "kw1:JbR2eTiDNUpU6dXWaOnBjWGkW0y2Yz6kfBQcxcS5kWU"

func write(t testing.TB, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func said(t testing.TB, l *ruleset.Loaded) string {
	t.Helper()
	if l == nil {
		return ""
	}
	var b strings.Builder
	if err := l.WriteText(&b, 78, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// find finds a host in a file with this text.
func find(t *testing.T, name, text string) *Host {
	t.Helper()
	host, read := Find(name, []string{write(t, filepath.Join(t.TempDir(), "hosts.hcl"), text, 0o600)})
	if out := said(t, read); out != "" {
		t.Fatal(out)
	}
	return host
}

func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		patterns, name string
		want           bool
	}{
		{"example.org", "example.org", true},
		{"example.org", "EXAMPLE.org", true},
		{"EXAMPLE.org", "example.org", true},
		{"example.org", "www.example.org", false},
		{"example.org", "example.orgs", false},
		{"*.example.org", "www.example.org", true},
		{"*.example.org", "a.b.example.org", true},
		{"*.example.org", "example.org", false},
		{"*.lab *.example.org", "x.lab", true},
		{"web?", "web1", true},
		{"web?", "web", false},
		{"web?", "web12", false},
		{"*", "anything", true},
		{"*a*b*", "xxaxxbxx", true},
		{"*a*b*", "xxbxxaxx", false},
		{"*aab", "aaaab", true},
		{"* !*.bad.org", "good.org", true},
		{"* !*.bad.org", "x.bad.org", false},
		{"!x.org *", "x.org", false},
		{"!x.org", "y.org", false}, // as ssh_config(5) says, a negated pattern alone fits nothing
		{"2001:db8::*", "2001:db8::1", true},
		{"", "", true},
		{"*", "", true},
		{"?", "", false},
	} {
		if got := fits(test.name, strings.Split(test.patterns, " ")); got != test.want {
			t.Errorf("%q fits %q: %t", test.name, test.patterns, got)
		}
	}
}

func TestTheFirstBlockThatFitsIsUsed(t *testing.T) {
	const text = `
host "a.example.org" "*.lab" { knock = [1001] }
host "*.example.org" { knock = [1002] }
host "*.lab" { knock = [1003] }
`
	for name, want := range map[string]int{"a.example.org": 1001, "b.example.org": 1002, "x.lab": 1001, "example.org": 0} {
		host := find(t, name, text)
		got := 0
		if host != nil {
			got = int(host.Method.(*fixed.Sequence).Sequences[0][0].Number)
		}
		if got != want {
			t.Errorf("%s: knock at %d, want %d", name, got, want)
		}
	}
}

func TestTheUsersFileComesFirst(t *testing.T) {
	folder := t.TempDir()
	own := filepath.Join(folder, "own.hcl")
	all := write(t, filepath.Join(folder, "all.hcl"), `host "*" { knock = [1002] }`, 0o600)
	for _, test := range []struct {
		text, at string
	}{
		{"", "all.hcl"}, // no file
		{`host "b" { knock = [1001] }`, "all.hcl"},
		{`host "a" { knock = [1001] }`, "own.hcl"},
	} {
		if test.text != "" {
			write(t, own, test.text, 0o600)
		}
		host, read := Find("a", []string{own, all})
		if host == nil || host.At != filepath.Join(folder, test.at)+" line 1" {
			t.Errorf("with %q the host is %+v\n%s", test.text, host, said(t, read))
		}
	}
	// A mistake in the first file is not passed over.
	write(t, own, `host "b" { knok = [1001] }`, 0o600)
	if host, read := Find("a", []string{own, all}); host != nil || !strings.Contains(said(t, read), `An argument named "knok" is not expected here`) {
		t.Errorf("the host is %+v\n%s", host, said(t, read))
	}
	if host, read := Find("a", []string{filepath.Join(folder, "none.hcl")}); host != nil || read != nil {
		t.Errorf("without a file the host is %+v\n%s", host, said(t, read))
	}
}

func TestNamesAreThoseOfFilesWithoutErrors(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string) string { return write(t, filepath.Join(folder, name), text, 0o600) }
	good := file("good.hcl", `
host "a.example.org" "*.lab" "web?" "!x.lab" { knock = [1001] }
host "b.example.org" { knock = [1002] }
`)
	for name, path := range map[string]string{
		"missing":          filepath.Join(folder, "none.hcl"),
		"a folder":         folder,
		"no HCL":           file("broken.hcl", `host "c" {`),
		"unknown argument": file("unknown.hcl", "host \"c\" { knock = [1001] }\nhost \"d\" { knok = [1001] }\n"),
		"others write it":  write(t, filepath.Join(folder, "open.hcl"), `host "c" { knock = [1001] }`, 0o666),
	} {
		for _, paths := range [][]string{{path, good}, {good, path}} {
			if diff := cmp.Diff([]string{"a.example.org", "b.example.org"}, Names(paths)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", name, diff)
			}
		}
	}
}

func TestASignedKnock(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	public, err := spa.ParsePublic(identity)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Host{
		`door = "ssh"`: {Keyed: &Keyed{Identity: public, Door: "ssh", Port: 62201}},
		`door = "vpn"
		address = "203.0.113.7"
		key = "~/.ssh/id_ed25519.pub"
		port = "4000/udp"
		source = "seen"`: {Address: "203.0.113.7", Source: client.Source{Seen: true},
			Keyed: &Keyed{Identity: public, Door: "vpn", Key: filepath.Join(home, ".ssh/id_ed25519.pub"), Port: 4000}},
		`door = "ssh"
		key = "/keys/a"
		port = 4000
		source = "::ffff:198.51.100.7"`: {Source: client.Source{Addr: netip.MustParseAddr("198.51.100.7")},
			Keyed: &Keyed{Identity: public, Door: "ssh", Key: "/keys/a", Port: 4000}},
		`door = "ssh"
		source = "stun:stun.example.org:3478"`: {Source: client.Source{STUN: "stun.example.org:3478"}, Keyed: &Keyed{Identity: public, Door: "ssh", Port: 62201}},
		`door = "ssh"
		source = "auto"`: {Keyed: &Keyed{Identity: public, Door: "ssh", Port: 62201}},
	} {
		got := find(t, "a", fmt.Sprintf("host \"a\" {\n identity = %q\n%s\n}", identity, text))
		if !strings.HasSuffix(got.At, "hosts.hcl line 1") {
			t.Errorf("it is at %q", got.At)
		}
		want.At = got.At
		if diff := cmp.Diff(&want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
}

func TestOtherWaysToKnock(t *testing.T) {
	list := write(t, filepath.Join(t.TempDir(), "list"), "1001,1002\n1003,1004\n1005,1006\n1007,1008\n1009,1010\n", 0o600)
	for text, want := range map[string]string{
		`knock = [4113, "27911/udp", 1840]`:                   "sequence [4113/tcp 27911/udp 1840/tcp]",
		`rolling { secret = "correct horse battery staple" }`: "rolling [",
		`one_time_sequences = "` + list + `"`:                 "one_time_sequences [1001/tcp 1002/tcp]",
	} {
		m := find(t, "a", "host \"a\" {\n"+text+"\n}").Method
		state, err := m.Resolve(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(m.Name(), " ", state.Sequences[state.Present]); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	host := find(t, "a", `host "a" {
  source = "198.51.100.7"
  otp {
    port        = "2000/udp"
    open_secret = "correct horse battery"
  }
}`)
	otp := host.Method.(*passwords.OTP)
	if string(otp.Open.Key()) != "correct horse battery" || otp.Port.Number != 2000 || host.Source.Addr.String() != "198.51.100.7" {
		t.Errorf("the password is %+v, for %v", otp, host.Source)
	}
}

// A block names secrets and lists that only some of the file's users can read.
func TestSecretsOfOtherHostsAreNotRead(t *testing.T) {
	find(t, "a", `host "a" { knock = [1001] }
host "b" {
  rolling { secret = file("/no/such/file") }
}
host "c" { one_time_sequences = "/no/such/list" }
`)
}

func TestAFileWithSecretsThatOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.hcl")
	for way, refused := range map[string]bool{
		`rolling { secret = "correct horse battery staple" }`:            true,
		"otp {\nport = \"2000/udp\"\nopen_secret = \"correct horse\"\n}": true,
		"knock = [1001, \"1002/udp\"]":                                   true,
		"identity = \"" + identity + "\"\ndoor = \"ssh\"":                false,
	} {
		for _, mode := range []os.FileMode{0o644, 0o600} {
			write(t, path, "host \"a\" {\n"+way+"\n}\n", mode)
			host, read := Find("a", []string{path})
			out := said(t, read)
			if want := refused && mode == 0o644; (host == nil) != want || strings.Contains(out, "that others can read") != want || want && !strings.Contains(strings.Join(strings.Fields(out), " "), "chmod o= "+path) {
				t.Errorf("%s\nwith mode %o the host is %+v\n%s", way, mode, host, out)
			}
			if strings.Contains(out, "horse") {
				t.Errorf("the secret is shown:\n%s", out)
			}
		}
	}
}

func TestAFileThatOthersCanChangeIsRefused(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "hosts.hcl"), `host "a" { knock = [1001] }`, 0o666)
	if host, read := Find("a", []string{path}); host != nil || !strings.Contains(said(t, read), "Everybody on this host can write") {
		t.Errorf("the host is %+v\n%s", host, said(t, read))
	}
}

func TestEachErrorIsToldWithItsPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			host, read := Find("example.org", []string{path})
			if host != nil || !read.Diagnostics.HasErrors() {
				t.Error("no error")
			}
			got := said(t, read)
			golden := strings.TrimSuffix(path, ".hcl") + ".txt"
			if *update {
				write(t, golden, got, 0o644)
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("it differs from %s (-want +got); if it is better, run with -update:\n%s", golden, diff)
			}
		})
	}
}

func FuzzHostsFile(f *testing.F) {
	files, err := filepath.Glob("testdata/errors/*.hcl")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(`host "*" { identity = "` + identity + `"` + "\n door = \"ssh\"\n key = \"~/x\"\n}")
	f.Add("host \"*\" {\n rolling {\n secret = \"correct horse\"\n}\n}")
	path := filepath.Join(f.TempDir(), "hosts.hcl")
	f.Fuzz(func(t *testing.T, text string) {
		write(t, path, text, 0o600)
		host, read := Find("example.org", []string{path})
		if out := said(t, read); host == nil && read.Diagnostics.HasErrors() == (out == "") {
			t.Errorf("no host, and nothing is said: %q", text)
		}
		if host != nil && (host.Keyed == nil) == (host.Method == nil) {
			t.Errorf("%q: %+v has not one way to knock", text, host)
		}
	})
}

func TestFwknop(t *testing.T) {
	h := find(t, "example.org", `host "example.org" {
  source = "seen"
  fwknop {
    key      = "aGlwamF6eg=="
    hmac_key = "c3VwZXJhd2Vzb21l"
    hmac     = "SHA512"
    user     = "alice"
    access   = [22, "53/udp"]
    port     = 5000
    timeout  = "2m"
  }
}
`)
	want := &client.Fwknop{
		Keys: fwknop.Keys{Cipher: []byte("hipjazz"), HMAC: []byte("superawesome"), Kind: fwknop.SHA512}, User: "alice",
		Ports: []packet.Port{{Number: 22, Protocol: packet.TCP}, {Number: 53, Protocol: packet.UDP}}, Port: 5000, Timeout: 2 * time.Minute,
	}
	if !reflect.DeepEqual(want, h.Fwknop) {
		t.Errorf("%+v, want %+v", h.Fwknop, want)
	}
	if !h.Source.Seen {
		t.Errorf("the source is %+v", h.Source)
	}
}
