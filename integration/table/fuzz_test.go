package table

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/ruleset"
)

// FuzzInstall checks that the kernel takes the table of every rule file that check
// accepts.
func FuzzInstall(f *testing.F) {
	for _, name := range tables {
		text, err := os.ReadFile(filepath.Join(tableFolder, name+".hcl"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	door := func(attributes string) string {
		return "door \"d\" {\n ports = [22]\n sequence = [1, 2, 3]\n " + attributes + "\n}"
	}
	for _, attributes := range []string{
		``, `closed = "reject"`, `on_failure = "open"`, `to = ["10.0.0.0/8", "11.0.0.0/8", "255.255.255.255", "ffff::/16"]`,
		`trusted = ["128.0.0.0/1", "0.0.0.0/1", "8000::/1"]`, `source_prefix = { ipv4 = 1, ipv6 = 127 }`,
		`tcp_flags = ["!syn", "!ack"]`, `tcp_flags = ["urg"]`, `seq_timeout = "1h"`, `interfaces = ["a", "b.1"]`,
	} {
		f.Add(door(attributes))
	}
	f.Add(`door "e" { ports = ["1-65535/tcp", "1-65535/udp"]
 sequence = [65535, "65535/udp", 1] }`)

	// The fuzzer's workers share a network, so each has its own table.
	name := fmt.Sprintf("fuzz%d", os.Getpid())
	kernel, err := nft.OpenKernel()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		kernel.Remove(name)
		kernel.Close()
	})
	path := filepath.Join(f.TempDir(), "fuzz.hcl")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded := ruleset.Load(path)
		if loaded.Config == nil {
			return
		}
		loaded.Config.Wall.Table = name
		for turn := range 2 {
			// The error says which lists cannot be read. The table exists nevertheless.
			now, _ := effective.Resolve(loaded.Config, goldenTime, effective.Host{})
			table := nft.NewTable(now, nft.NumbersOf(now.Wall, turn))
			if err := kernel.Install(table, nil, ""); err != nil {
				t.Fatalf("a rule file without errors cannot be installed: %v\n%s", err, text)
			}
		}
	})
}
