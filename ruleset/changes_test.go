package ruleset

import (
	"crypto/ed25519"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
		{"a person's key", edit("KNOCKWALL_TEST_HMAC_KEY", "KNOCKWALL_TEST_OTHER_HMAC_KEY"),
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

func TestTheBeginningAndTheEndOfSharingAreTold(t *testing.T) {
	setSecrets(t)
	alone := mustLoad(t, write(t, aDoor))
	shared := mustLoad(t, write(t, aDoor+"share {\n  group   = \"prod\"\n  servers = [\"nats://localhost\"]\n}\n"))
	for _, test := range []struct {
		former, now *Config
		want        string
	}{
		{alone, shared, "a share block, with the group prod: start knockwall-share to share windows"},
		{shared, alone, "no share block any more: stop knockwall-share"},
	} {
		if diff := cmp.Diff([]Change{{Kind: Changed, What: []string{test.want}}}, test.now.Changes(test.former)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
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

// attribute is an attribute of a block with several values, each of which is a change of the
// one before it. "" leaves the attribute out.
type attribute struct {
	values []string
	told   string // what names the change; "": the attribute's name
}

func values(all ...string) attribute { return attribute{values: all} }

func (a attribute) isToldAs(what string) attribute { a.told = what; return a }

// eachAttribute returns the attributes of each block of rule files. They name files of a
// folder.
func eachAttribute(folder string) map[string]map[string]attribute {
	file := func(name string) string { return strconv.Quote(filepath.Join(folder, name)) }
	command := func(told string) map[string]attribute {
		return map[string]attribute{
			"command": values(`["/bin/true"]`, `["/bin/false"]`).isToldAs(told),
			"timeout": values(``, `"7s"`).isToldAs(told),
		}
	}
	person := func(all ...string) attribute { return values(all...).isToldAs("alice has another block") }
	return map[string]map[string]attribute{
		"wall": {
			"table":       values(``, `"house"`),
			"nflog_group": values(``, `7300`),
			"queue":       values(``, `7300`),
			"interfaces":  values(``, `["eth0"]`),
			"trusted":     values(``, `["192.0.2.0/24"]`),
			"on_stop":     values(``, `"remove"`),
			"hold":        values(``, `"500ms"`),
			"reorder":     values(``, `"30ms"`),
			"max_sources": values(``, `1000`),
			"max_windows": values(``, `1000`),
			"identity":    values(file("identity"), file("other_identity")),
		},
		"door": {
			"ports":              values(`[22]`, `[22, "51820/udp"]`),
			"sequence":           values(``, `[4113, "27911/udp", 1840]`, `[4114, "27911/udp", 1840]`),
			"one_time_sequences": values(``, file("list"), file("other_list")),
			"close_sequence":     values(`[1840, "27911/udp", 4113]`, `[1841, "27911/udp", 4113]`),
			"seq_timeout":        values(``, `"3s"`),
			"window":             values(``, `"1h"`),
			"tcp_flags":          values(``, `["syn"]`),
			"max_connections":    values(``, `2`),
			"closed":             values(``, `"reject"`),
			"on_failure":         values(``, `"open"`),
			"interfaces":         values(``, `["ppp*"]`),
			"to":                 values(``, `["192.0.2.1"]`),
			"trusted":            values(``, `["198.51.100.0/24"]`),
			"source_prefix":      values(``, `{ ipv6 = 64 }`),
			"penalty_prefix":     values(``, `{ ipv6 = 48 }`),
			"udp_timeout":        values(``, `"1m"`),
			"traps":              values(``, `3`, `["2000-2010"]`),
			"penalty":            values(``, `"10s"`),
		},
		"on_open":  command("on_open is another"),
		"on_close": command("on_close is another"),
		"share": {
			"group":       values(`"prod"`, `"test"`),
			"name":        values(``, `"host1"`),
			"servers":     values(`["nats://localhost"]`, `["nats://localhost:4223"]`),
			"doors":       values(``, `["d"]`),
			"credentials": values(``, `"/creds"`),
			"nkey":        values(``, `"/nkey"`),
		},
		"tls": {
			"ca":   values(``, `"/ca"`),
			"cert": values(`"/cert"`, `"/other_cert"`),
			"key":  values(`"/key"`, `"/other_key"`),
		},
		"rolling": {
			"secret": values(`env("KNOCKWALL_TEST_SECRET")`, `env("KNOCKWALL_TEST_SHORT_SECRET")`),
			"length": values(``, `5`),
			"ports":  values(``, `"2000-3000"`),
			"step":   values(``, `"1m"`),
		},
		"otp": {
			"port":         values(`"2000/udp"`, `"2001/udp"`),
			"open_secret":  values(`env("KNOCKWALL_TEST_SECRET")`, `env("KNOCKWALL_TEST_SHORT_SECRET")`),
			"close_secret": values(``, `env("KNOCKWALL_TEST_SHORT_SECRET")`),
			"skew":         values(``, `"2m"`),
		},
		"keys": {
			"port":       values(``, `"2000/udp"`),
			"authorized": values(`[`+file("alice")+`]`, `[`+file("alice")+`, `+file("bob")+`]`).isToldAs("bob@desk is listed"),
			"revoked":    values(``, `[`+file("bob")+`]`).isToldAs("what is revoked is another"),
			"skew":       values(``, `"1m"`),
			"source":     values(``, `"signed"`),
		},
		"fwknop": {
			"port":     person(``, `"2000/udp"`),
			"key":      person(`env("KNOCKWALL_TEST_KEY")`, `env("KNOCKWALL_TEST_SHORT_SECRET")`),
			"hmac_key": person(`env("KNOCKWALL_TEST_HMAC_KEY")`, `env("KNOCKWALL_TEST_OTHER_HMAC_KEY")`),
			"hmac":     person(``, `"SHA512"`),
			"user":     person(``, `"alice"`),
			"source":   person(``, `"signed"`),
			"from":     person(``, `["192.0.2.0/24"]`),
			"expires":  person(``, `"2037-01-31"`),
		},
	}
}

func TestAChangeOfEachAttributeIsTold(t *testing.T) {
	setSecrets(t)
	folder := writeAll(t, map[string]string{
		"identity": string(newIdentity(t).Text()), "other_identity": string(newIdentity(t).Text()),
		"alice": lineOf(t, "alice@laptop"), "bob": lineOf(t, "bob@desk"),
		"list": "5227,911,30411\n5228,912,30412\n", "other_list": "5227,911,30411\n5228,912,30412\n",
	})
	const otp = "otp {\nport = \"3000/udp\"\nopen_secret = env(\"KNOCKWALL_TEST_SECRET\")\n}\n"
	door := func(body string) string { return "door \"d\" {\nports = [22]\n" + body + "}\n" }
	keys := func(wall, body string) string {
		return "wall {\n" + wall + "}\n" + door("keys {\n"+body+"}\n")
	}
	people := `authorized = ["` + filepath.Join(folder, "alice") + "\"]\n"
	identity := `identity = "` + filepath.Join(folder, "identity") + "\"\n"
	// around are rule files around the attributes of a block.
	around := map[string]func(body string) string{
		"wall":     func(body string) string { return keys(body, people) },
		"door":     func(body string) string { return "door \"d\" {\n" + body + otp + "}\n" },
		"on_open":  func(body string) string { return door(otp + "on_open {\n" + body + "}\n") },
		"on_close": func(body string) string { return door(otp + "on_close {\n" + body + "}\n") },
		"share":    func(body string) string { return "share {\n" + body + "}\n" + door(otp) },
		"tls": func(body string) string {
			return "share {\ngroup = \"prod\"\nservers = [\"nats://localhost\"]\ntls {\n" + body + "}\n}\n" + door(otp)
		},
		"rolling": func(body string) string { return door("rolling {\n" + body + "}\n") },
		"otp":     func(body string) string { return door("otp {\n" + body + "}\n") },
		"keys":    func(body string) string { return keys(identity, body) },
		"fwknop":  func(body string) string { return door("fwknop \"alice\" {\n" + body + "}\n") },
	}
	schemas := blockSchemas()
	schemas["on_close"] = schemas["on_open"]
	blocks := eachAttribute(folder)
	for block, schema := range schemas {
		var names []string
		for _, a := range schema.Attributes {
			names = append(names, a.Name)
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(names)), slices.Sorted(maps.Keys(blocks[block]))); diff != "" {
			t.Errorf("this test changes other attributes of %s than there are (-there are +changed):\n%s", block, diff)
		}
	}
	for block, attributes := range blocks {
		// load loads rule files in which one attribute of the block has its nth value, and the
		// others their first.
		load := func(t *testing.T, changed string, n int) *Config {
			t.Helper()
			body := ""
			for name, a := range attributes {
				value := a.values[0]
				if name == changed {
					value = a.values[n]
				}
				if value != "" {
					body += name + " = " + value + "\n"
				}
			}
			return mustLoad(t, writePrivate(t, around[block](body)))
		}
		for name, a := range attributes {
			told := a.told
			if told == "" {
				told = name
			}
			t.Run(block+" "+name, func(t *testing.T) {
				for n := 1; n < len(a.values); n++ {
					changes := load(t, name, n).Changes(load(t, name, n-1))
					isTold := func(c Change) bool { return c.Kind == Changed && strings.Contains(strings.Join(c.What, "\n"), told) }
					if !slices.ContainsFunc(changes, isTold) {
						t.Errorf("from %q to %q it is told: %+v", a.values[n-1], a.values[n], changes)
					}
				}
			})
		}
	}
}
