//go:build linux

package nft

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

var update = flag.Bool("update", false, "write the golden files anew, to be reviewed by eye")

// someTime is in the middle of a step of half a minute.
var someTime = time.Unix(1_740_000_015, 0)

func tcp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }
func udp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.UDP} }

// load reads rules from a file that others cannot read, because some contain secrets.
func load(t testing.TB, text string) *ruleset.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l := ruleset.Load(path)
	if l.Config == nil {
		t.Fatal(l.Diagnostics)
	}
	return l.Config
}

// doorWith loads a configuration of one door.
func doorWith(t testing.TB, body string) *ruleset.Config {
	t.Helper()
	return load(t, "door \"d\" {\nports = [22]\n"+body+"\n}\n")
}

// at returns the effective configuration at a time, on a host without programs.
func at(t testing.TB, written *ruleset.Config, now time.Time) *effective.Config {
	t.Helper()
	c, err := effective.Resolve(written, now, effective.Host{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTablesPrintAsReviewed(t *testing.T) {
	paths, err := filepath.Glob("testdata/tables/*.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rule files in testdata/tables: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".hcl"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c := at(t, load(t, string(text)), time.Unix(1_740_000_000, 0))
			got := NewTable(c, NumbersOf(c.Wall, 0)).String()
			golden := strings.TrimSuffix(path, ".hcl") + ".nft"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("not what %s has (-want +got); if it is better, run with -update:\n%s", golden, diff)
			}
		})
	}
}

// The traps in the table are all ports of the rule files, without the present knocks of a
// rolling sequence.
func TestTrapsLoseTheKnocksOfAStep(t *testing.T) {
	c := doorWith(t, `rolling { secret = "correct horse battery staple" }`+"\ntraps = [\"20000-29999\"]")
	once := at(t, c, someTime.Add(time.Hour))
	numbers := NumbersOf(once.Wall, 0)
	table := newListed(newContents(once, numbers).chains)
	for n := 20000; n <= 29999; n++ {
		isTrap := slices.Contains(table.passes(unservedChain, tcp(uint16(n)), netip.Addr{}), "jump d_trap")
		if isKnock := once.Doors[0].Knocks(tcp(uint16(n))); isTrap == isKnock {
			t.Errorf("%d is a trap: %t, and a knock: %t", n, isTrap, isKnock)
		}
	}
}

// The chains have the same names when the knocks of a rolling sequence change: some kernels
// before 6.4 would replace the whole table to delete one, and lose packets that wait.
func TestChainsKeepTheirNamesWhenKnocksChange(t *testing.T) {
	c := doorWith(t, `rolling { secret = "correct horse battery staple" }`+"\nto = [\"192.0.2.1\"]")
	names := func(now time.Time) (names []string) {
		e := at(t, c, now)
		for _, c := range newContents(e, NumbersOf(e.Wall, 0)).chains {
			names = append(names, c.name)
		}
		return names
	}
	if diff := cmp.Diff(names(someTime), names(someTime.Add(time.Hour))); diff != "" {
		t.Errorf("an hour later there are other chains:\n%s", diff)
	}
}

// FuzzTable makes tables from garbage. Every valid configuration makes a table at any
// time, and each door is in it.
func FuzzTable(f *testing.F) {
	f.Setenv("KNOCKWALL_TEST_SECRET", "correct horse battery staple")
	for _, folder := range []string{"../../ruleset/testdata/warnings", "testdata/tables"} {
		paths, err := filepath.Glob(filepath.Join(folder, "*.hcl"))
		if err != nil || len(paths) == 0 {
			f.Fatalf("no rule files in %s: %v", folder, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte(`door "r" {
  ports          = [1, 65535, "1-3/udp"]
  close_sequence = [1, 65535]
  traps          = ["1-65535/udp", 2]
  closed         = "reject"
  rolling {
    secret = "x"
    length = 32
    ports  = "65471-65535"
    step   = "5s"
  }
}
door "o" {
  one_time_sequences = "/dev/null"
  traps              = []
  on_open { command = ["true"] }
}
door "p" {
  ports = ["51820/udp"]
  otp {
    port        = "2000/udp"
    open_secret = env("KNOCKWALL_TEST_SECRET")
  }
}
`))

	path := filepath.Join(f.TempDir(), "rules.hcl")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		l := ruleset.Load(path)
		if l.Config == nil {
			return
		}
		for turn := range 2 {
			// The error says which lists cannot be read. There is a table nevertheless.
			now, _ := effective.Resolve(l.Config, time.Unix(int64(turn), 0), everySeventh)
			if len(now.Doors) != len(l.Config.Doors) {
				t.Fatalf("%d doors have become %d", len(l.Config.Doors), len(now.Doors))
			}
			table := NewTable(now, NumbersOf(now.Wall, turn)).String()
			for d := range doorsOf(now) {
				for _, want := range wanted(d) {
					if !strings.Contains(table, want) {
						t.Fatalf("%q is not in the table:\n%s", want, table)
					}
				}
				for _, steps := range d.Sequences {
					if len(steps) > sequence.MaxSteps {
						t.Fatalf("%d knocks: %v", len(steps), steps)
					}
				}
			}
		}
	})
}

// contents are texts in the table of a door.
func wanted(d door) []string {
	want := []string{fmt.Sprintf("\tchain %s {", admitChain(d.Name))}
	if len(d.Ports) > 0 {
		want = append(want, fmt.Sprintf("\tchain %s {", refuseChain(d.Name)), "jump "+admitChain(d.Name)+"\n", "jump "+refuseChain(d.Name)+"\n")
	}
	if len(d.AllKnocks()) > 0 {
		want = append(want, fmt.Sprintf("log prefix %q ", d.Name))
	}
	for i, m := range d.Methods {
		for range d.States[i].Datagrams {
			want = append(want, fmt.Sprintf("log prefix %q ", d.Name+" "+m.Name()))
		}
	}
	return want
}

// everySeventh is a host with a listener at every seventh port.
var everySeventh = func() effective.Host {
	h := effective.Host{Served: map[packet.Port]bool{}}
	for n := 0; n < 1<<16; n += 7 {
		h.Served[tcp(uint16(n))] = true
		h.Served[udp(uint16(n))] = true
	}
	return h
}()

// A door's name may begin like that of a chain to which packets to a port go.
func TestNoDoorHasTheChainOfAnother(t *testing.T) {
	var text strings.Builder
	for i, name := range []string{"x", "knocks_tcp_x", "knocks_udp_x", "ports_tcp_x", "ports_udp_x", "unjudged_tcp_x", "ports_tcp", "x_knock"} {
		fmt.Fprintf(&text, `
door %q {
  ports           = [%d]
  sequence        = [%d, "%[3]d/udp"]
  to              = ["192.0.2.1", "192.0.2.0/24"]
  max_connections = 1
  otp {
    port        = "%[4]d/udp"
    open_secret = "hipjazz"
  }
}`, name, 100+i, 4000+i, 5000+i)
	}
	c := at(t, load(t, text.String()), someTime)
	known := map[string]bool{}
	for _, chain := range newContents(c, NumbersOf(c.Wall, 0)).chains {
		if known[chain.name] {
			t.Errorf("two chains are named %s", chain.name)
		}
		known[chain.name] = true
	}
}
