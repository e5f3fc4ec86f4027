package ruleset

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// aDoor is a rule file with a door of every way to knock that needs no other file.
const aDoor = `
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  fwknop "alice" {
    key      = env("KNOCKWALL_TEST_KEY")
    hmac_key = env("KNOCKWALL_TEST_HMAC_KEY")
  }
  otp {
    port        = "2000/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}
`

func TestChangesAreToldByDoor(t *testing.T) {
	setSecrets(t)
	t.Setenv("KNOCKWALL_TEST_SECRET_KEY", "mK3jmyNthUPxqzFl0NIQmlMZfa+ZSSiJZS3F6f6xhS/+39iK2GSvhGKOVUd6iSV+5GoiTT1dg+Pcrps3bC9oQA==")
	edit := func(pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(aDoor, pairs[i]) {
				t.Fatalf("the rule file has no %q", pairs[i])
			}
		}
		return strings.NewReplacer(pairs...).Replace(aDoor)
	}
	changed := func(what ...string) []Change { return []Change{{"ssh", Changed, what}} }
	for _, test := range []struct {
		name, now string
		want      []Change
	}{
		{"nothing", aDoor, []Change{}},
		{"places only", "\n\n# a comment\n" + aDoor, []Change{}},
		{"a default that is written out", edit("ports    = [22]", "ports = [22]\n  window = \"30s\""), []Change{}},
		{"the files are empty", "", []Change{{"ssh", Removed, []string{"it no longer guards 22/tcp"}}}},
		{"another name", edit(`"ssh"`, `"shell"`), []Change{
			{"shell", Added, []string{"it guards 22/tcp"}}, {"ssh", Removed, []string{"it no longer guards 22/tcp"}}}},
		{"values", edit("ports    = [22]", `ports = [22, "51820/udp"]
  window          = "1h"
  seq_timeout     = "3s"
  max_connections = 2
  closed          = "reject"
  on_failure      = "open"
  interfaces      = ["ppp*"]
  to              = ["192.0.2.1"]
  trusted         = ["198.51.100.0/24"]
  tcp_flags       = ["syn"]
  source_prefix   = { ipv4 = 24 }
  udp_timeout     = "1m"
  traps           = 3
  penalty         = "10s"
  close_sequence  = [1840, "27911/udp", 4113]
  on_open { command = ["/bin/true"] }`), changed(
			"ports is 22/tcp, 51820/udp, was 22/tcp",
			"close_sequence is another",
			"seq_timeout is 3s, was 5s",
			"window is 1h, was 30s",
			"tcp_flags is syn, was syn, !ack",
			"max_connections is 2, was 0",
			"closed is reject, was drop",
			"on_failure is open, was closed",
			"interfaces is ppp*, was all but lo",
			"to is 192.0.2.1/32, was this host's own addresses",
			"trusted is 198.51.100.0/24, was nothing",
			"source_prefix is { ipv4 = 24, ipv6 = 128 }, was { ipv4 = 32, ipv6 = 128 }",
			"penalty_prefix is { ipv4 = 24, ipv6 = 64 }, was { ipv4 = 32, ipv6 = 64 }",
			"udp_timeout is 1m, was 5m",
			"traps is another",
			"penalty is 10s, was 30s",
			"on_open is another",
		)},
		{"knocks, which are not shown", edit("4113", "4114"), changed("sequence is another")},
		{"a secret, which is not shown", edit(`"KNOCKWALL_TEST_SECRET"`, `"KNOCKWALL_TEST_SHORT_SECRET"`), changed("otp: open_secret is another")},
		{"a port of passwords", edit("2000/udp", "2001/udp"), changed("otp: port is 2001/udp, was 2000/udp")},
		{"another way", edit(`sequence = [4113, "27911/udp", 1840]`, "rolling { secret = env(\"KNOCKWALL_TEST_SECRET\") }"),
			changed("rolling opens it now", "sequence no longer opens it")},
		{"another person", edit("alice", "bob"), changed("fwknop: bob has a block", "fwknop: alice has no block any more")},
		{"a person's key", edit("KNOCKWALL_TEST_HMAC_KEY", "KNOCKWALL_TEST_SECRET_KEY"),
			changed("fwknop: alice has another block")},
		{"the wall", aDoor + "wall {\n  hold = \"500ms\"\n  trusted = [\"192.0.2.0/24\"]\n}\n", []Change{
			{Kind: Changed, What: []string{"trusted is 192.0.2.0/24, was nothing", "hold is 500ms, was 200ms"}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			former, now := mustLoad(t, write(t, aDoor)), mustLoad(t, write(t, test.now))
			if diff := cmp.Diff(test.want, now.Changes(former)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// lineOf returns a line of a people file.
func lineOf(t *testing.T, name string) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + name + "\n"
}

// The files that doors name change without the rule files.
func TestChangesOfPeopleAreTold(t *testing.T) {
	folder := t.TempDir()
	people, revoked := filepath.Join(folder, "people"), filepath.Join(folder, "revoked")
	alice, bob := lineOf(t, "alice@laptop"), lineOf(t, "bob@desk")
	identity := filepath.Join(folder, "identity")
	if err := os.WriteFile(identity, newIdentity(t).Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "wall { identity = \"" + identity + "\" }\ndoor \"ssh\" {\n  ports = [22]\n  keys {\n    authorized = [\"" + people + "\"]\n    revoked = [\"" + revoked + "\"]\n  }\n}\n"
	loaded := func(listed, gone string) *Config {
		t.Helper()
		for path, text := range map[string]string{people: listed, revoked: gone} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return mustLoad(t, write(t, text))
	}
	for _, test := range []struct {
		name, listed, revoked string
		want                  []string
	}{
		{"nothing", alice, "", nil},
		{"another line", "# comment\n\n" + alice, "", nil},
		{"somebody else", bob, "", []string{"keys: bob@desk is listed", "keys: alice@laptop is no longer listed"}},
		{"one more", alice + bob, "", []string{"keys: bob@desk is listed"}},
		{"an option", `from="192.0.2.0/24" ` + alice, "", []string{"keys: alice@laptop has other options"}},
		{"a name", strings.Replace(alice, "laptop", "phone", 1), "", []string{"keys: alice@phone is listed", "keys: alice@laptop is no longer listed"}},
		{"a revoked key", alice, alice, []string{"keys: what is revoked is another"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			former := loaded(alice, "")
			want := []Change{}
			if test.want != nil {
				want = []Change{{"ssh", Changed, test.want}}
			}
			if diff := cmp.Diff(want, loaded(test.listed, test.revoked).Changes(former)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
