package table

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// randomDoors are variants of doors. A configuration has at most one of each line.
var randomDoors = [][]string{
	{`door "a" {
  ports = [22]
  sequence = [4113, "27911/udp", 1840]
}`, `door "a" {
  ports = [22, "22/udp"]
  sequence = [4113, 1841]
  traps = ["5000-5010", "6000/udp"]
  source_prefix = { ipv4 = 24, ipv6 = 64 }
}`, `door "a" {
  ports = [2222]
  sequence = [4113, "27911/udp", 1840]
  traps = 0
  closed = "reject"
  max_connections = 2
}`},
	{`door "b" {
  ports = [22, 443]
  sequence = [1841, "27911/udp", 4113]
  to = ["10.1.0.0/16", "2001:db8:1::/64"]
}`, `door "b" {
  ports = [2223]
  sequence = [1841, 1842]
  interfaces = ["wan0", "ppp*"]
  closed = "reject"
  on_failure = "open"
  trusted = ["192.0.2.0/24"]
}`, `door "b" {
  ports = ["443/udp", "8000-9000"]
  rolling {
    secret = "correct horse battery staple"
    step = "1h"
  }
  udp_timeout = "77s"
}`},
	{`door "c" {
  ports = [22, "53/udp"]
  otp {
    port = "2053/udp"
    open_secret = "hipjazz"
  }
}`, `door "c" {
  sequence = [1843, 1840]
  tcp_flags = ["syn"]
  on_open {
    command = ["/bin/true"]
  }
}`},
	{`door "d1" {
  ports = [25]
  sequence = [1, 2, 3]
  to = ["10.0.0.1"]
}
door "d2" {
  ports = [25]
  sequence = [1, 2, 4]
  to = ["10.0.0.2"]
}
door "d3" {
  ports = [25]
  sequence = [1, 3, 4]
  to = ["10.0.0.3"]
}
door "d4" {
  ports = [25]
  sequence = [2, 3, 4]
  to = ["10.0.0.4"]
  penalty = "7m"
  penalty_prefix = { ipv4 = 24, ipv6 = 56 }
}`},
}

// steadyDoors are doors of all configurations, so that most of these have sets of the same
// shapes: else nothing of a table stays.
func steadyDoors() (text string) {
	for i := range 5 {
		text += fmt.Sprintf(`
door "steady%d" {
  ports = [%d]
  sequence = [%d, 20]
  traps = [%d]
  penalty = "7m"
  penalty_prefix = { ipv4 = 24, ipv6 = 56 }
  source_prefix = { ipv4 = %d, ipv6 = 64 }
}`, i, 100+i, 200+i, 300+i, 24+8*(i%2))
	}
	return text
}

// randomConfig is a configuration at a time and of a host that can follow any other one.
func randomConfig(l *lab.Lab, r *rand.Rand) *effective.Config {
	l.T.Helper()
	text := []string{steadyDoors()}
	if r.IntN(2) == 0 {
		text = append(text, fmt.Sprintf("wall {\n  trusted = [\"198.51.100.%d\"]\n  max_windows = %d\n}", r.IntN(3), 65535+min(1, r.IntN(8))))
	}
	for _, variants := range randomDoors {
		if i := r.IntN(len(variants) + 1); i < len(variants) {
			text = append(text, variants[i])
		}
	}
	loaded := ruleset.Load(l.WriteRules(strings.Join(text, "\n")))
	if loaded.Config == nil {
		l.T.Fatal(loaded.Diagnostics)
	}
	host := effective.Host{Served: map[packet.Port]bool{}, Uplinks: map[uint32]string{}}
	for i := range uint16(r.IntN(3)) {
		host.Served[lab.TCP(80+i)] = true
	}
	for range r.IntN(2) {
		host.Uplinks[1] = "lo"
	}
	c, err := effective.Resolve(loaded.Config, goldenTime.Add(time.Duration(r.IntN(3))*time.Hour), host)
	lab.Must(l.T, err)
	return c
}

var (
	anonymous = regexp.MustCompile(`\b(__(?:set|map))\d+`)
	elements  = regexp.MustCompile(`(?m)^\t\telements = .*(\n\t\t\t.*)*\n`)
)

// inKernel returns all that counts of a table in the kernel: how nft lists it, but for
// windows and timeouts of former rules, and the instructions of each rule.
func inKernel(l *lab.Lab, table string) (listing, code string) {
	l.T.Helper()
	listing = l.Nft("--stateless", "list", "table", "inet", table)
	listing = strings.ReplaceAll(ownership.ReplaceAllString(listing, "{\n"), "table inet "+table+" ", "table inet x ")
	blocks := strings.Split(strings.TrimSuffix(sortBlocks(sortMaps(listing)), "}\n"), "\n\n")
	for i, b := range blocks {
		if strings.Contains(b, "set open") {
			blocks[i] = elements.ReplaceAllString(b, "")
		}
	}
	blocks = slices.DeleteFunc(blocks, func(b string) bool { return strings.HasPrefix(b, "\tct timeout ") })
	listing = strings.Join(blocks, "\n\n")
	var rules []string
	chain := ""
	for line := range strings.Lines(l.Nft("--debug=netlink", "list", "table", "inet", table)) {
		if name, ok := strings.CutPrefix(line, "inet "+table+" "); ok {
			chain, _, _ = strings.Cut(strings.TrimSpace(name), " ")
			if !strings.HasPrefix(chain, "@") { // a set
				rules = append(rules, chain+":\n")
			}
			continue
		}
		if strings.HasPrefix(line, "  [ ") && len(rules) > 0 {
			rules[len(rules)-1] += anonymous.ReplaceAllString(line, "$1")
		}
	}
	// The rules of each chain stay in their order.
	slices.SortStableFunc(rules, func(a, b string) int {
		first, _, _ := strings.Cut(a, ":")
		second, _, _ := strings.Cut(b, ":")
		return strings.Compare(first, second)
	})
	return listing, strings.Join(rules, "")
}

// After any reloads, the kernel has the table that it would have after the last one alone, and
// the windows of the doors that were the same all the time.
func TestReloadsByDifferencesMakeTheSameTable(t *testing.T) {
	t.Parallel()
	rounds := 12
	if testing.Short() {
		rounds = 6
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			r := rand.New(rand.NewPCG(seed, 0))
			open := func() (k *nft.Kernel) {
				lab.Must(t, l.Server.Do(func() (err error) {
					k, err = nft.OpenKernel()
					return err
				}))
				t.Cleanup(func() { k.Close() })
				return k
			}
			kernel, other := open(), open()
			windows := map[source]nft.Window{}
			stayed, kept := "", 0
			for round := range rounds {
				c := randomConfig(l, r)
				bank := r.IntN(2)
				table := nft.NewTable(c, nft.NumbersOf(c.Wall, bank))
				given := func(yield func(nft.Window) bool) {
					for _, w := range windows {
						if !yield(w) {
							return
						}
					}
				}
				switch {
				case r.IntN(4) == 0: // another daemon
					lab.Must(t, kernel.Close())
					kernel = open()
				case r.IntN(8) == 0:
					lab.Must(t, kernel.Restore(table, given))
				case r.IntN(8) == 0:
					table.Trial = true
				}
				lab.Must(t, kernel.Install(table, given, ""))
				if listed := l.Nft("--handle", "list", "chain", "inet", table.Name, "knocked"); listed == stayed {
					kept++
				} else {
					stayed = listed
				}
				var doors []string
				for key := range windows {
					d := c.Written.Door(key.door)
					if d == nil || d.SourcePrefix.Of(key.Addr()) != key.Source {
						delete(windows, key)
					}
				}
				for i := range c.Doors {
					doors = append(doors, c.Doors[i].Name)
				}
				left, err := lab.WindowsIn(other, c.Wall.Table)
				lab.Must(t, err)
				var got, want []string
				for _, w := range left {
					got = append(got, w.Door+" "+w.Source.String())
				}
				for key := range windows {
					want = append(want, key.door+" "+key.Source.String())
				}
				slices.Sort(got)
				slices.Sort(want)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("round %d: the windows (-want +got):\n%s", round, diff)
				}

				written := *c.Written
				written.Wall.Table = "fresh"
				fresh := *c
				fresh.Written, fresh.Wall = &written, &written.Wall
				lab.Must(t, other.Install(nft.NewTable(&fresh, nft.NumbersOf(c.Wall, bank)), nil, ""))
				wantListing, wantCode := inKernel(l, "fresh")
				gotListing, gotCode := inKernel(l, c.Wall.Table)
				if _, err := other.Remove("fresh"); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(wantListing, gotListing); diff != "" {
					t.Fatalf("round %d, with the doors %v (-fresh +reloaded):\n%s", round, doors, diff)
				}
				if diff := cmp.Diff(wantCode, gotCode); diff != "" {
					t.Fatalf("round %d, with the doors %v, the instructions (-fresh +reloaded):\n%s", round, doors, diff)
				}

				var opened []nft.Window
				for range 1 + r.IntN(4) {
					name := doors[r.IntN(len(doors))]
					addr := netip.AddrFrom4([4]byte{11, 0, byte(r.IntN(4)), byte(r.IntN(2))})
					if r.IntN(2) == 0 {
						addr = netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 2, 0, byte(r.IntN(4)), 15: byte(r.IntN(2))})
					}
					w := nft.Window{Door: name, Source: c.Written.Door(name).SourcePrefix.Of(addr), Left: time.Hour}
					if _, ok := windows[source{name, w.Source}]; !ok {
						windows[source{name, w.Source}] = w
						opened = append(opened, w)
					}
				}
				if len(opened) > 0 {
					lab.Must(t, kernel.OpenWindows(c.Wall.Table, opened))
				}
			}
			if kernel.Features().Ownership && kept == 0 {
				t.Error("no reload has left a chain as it was")
			}
		})
	}
}
