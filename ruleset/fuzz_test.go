package ruleset

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad reads garbage. Whatever it is, it must not panic, and what comes out
// of it as a configuration must make a table in which each door is.
func FuzzLoad(f *testing.F) {
	for _, folder := range []string{"errors", "warnings", "tables"} {
		paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.hcl"))
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
	// The examples of the design, with what is to be built yet.
	f.Add([]byte(`door "ssh" {
  ports          = [22]
  sequence       = [7000, "8000/udp", 9000]
  close_sequence = [9000, "8000/udp", 7000]
  traps          = 64
  on_open  { command = ["/usr/local/bin/notify", "${door}", "${source}"] }
}
`))
	f.Add([]byte(`door "vpn" {
  ports  = ["51820/udp"]
  window = "1m"
  otp {
    port        = "2000/udp"
    open_secret = credential("vpn-open")
    skew        = "1m"
  }
}
`))

	path := filepath.Join(f.TempDir(), "rules.hcl")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		l := Load(path)
		if err := l.WriteText(io.Discard, 78, true); err != nil {
			t.Fatal(err)
		}
		if (l.Config == nil) != l.Diagnostics.HasErrors() {
			t.Fatalf("configuration %v with %v", l.Config, l.Diagnostics)
		}
		if l.Config == nil {
			return
		}
		for turn := range 2 {
			table := NewTable(l.Config, l.Config.Wall.Numbers(turn)).String()
			for _, d := range l.Config.Doors {
				for _, want := range []string{
					fmt.Sprintf("\tchain %s {", admitChain(d.Name)),
					fmt.Sprintf("\tchain %s {", refuseChain(d.Name)),
					"jump " + admitChain(d.Name) + "\n",
					"goto " + refuseChain(d.Name) + "\n",
					fmt.Sprintf("log prefix %q ", d.Name),
				} {
					if !strings.Contains(table, want) {
						t.Fatalf("%q is not in the table:\n%s", want, table)
					}
				}
			}
		}
	})
}
