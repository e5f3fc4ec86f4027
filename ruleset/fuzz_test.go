package ruleset

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/sequence"
)

// FuzzLoad reads garbage. Load must neither panic nor show a secret. FuzzTable of
// internal/nft tests what follows from a configuration.
func FuzzLoad(f *testing.F) {
	setSecrets(f)
	for _, folder := range []string{"testdata/errors", "testdata/warnings", tableFolder} {
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
	// Examples of the documentation, and rare syntax.
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
    open_secret = env("KNOCKWALL_TEST_SECRET")
    skew        = "1m"
  }
}
`))
	f.Add([]byte(`door "r" {
  ports          = [1, 65535, "1-3/udp"]
  close_sequence = [1, 65535]
  traps          = ["1-65535/udp", 2]
  penalty        = "1s"
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
  on_open {
    command = ["sh", "${port}-${door}$${}", <<EOT
${source}
EOT
    ]
    timeout = "1m"
  }
}
`))

	for _, around := range places {
		f.Add(fmt.Appendf(nil, around, `sercet = "qzqzjazz"`))
	}
	for _, text := range mistakes {
		f.Add(fmt.Appendf(nil, places["otp"], fmt.Sprintf(text, "qzqzjazz")))
	}

	path := filepath.Join(f.TempDir(), "rules.hcl")
	f.Fuzz(func(t *testing.T, text []byte) {
		// Others cannot read the file, so secrets are allowed in it.
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		l := Load(path)
		var said strings.Builder
		if err := l.WriteText(&said, 1000, true); err != nil {
			t.Fatal(err)
		}
		checkHidden(t, text, said.String()+l.Diagnostics.Error())
		if (l.Config == nil) != l.Diagnostics.HasErrors() {
			t.Fatalf("configuration %v with %v", l.Config, l.Diagnostics)
		}
		if l.Config == nil {
			return
		}
		for _, d := range l.Config.Doors {
			for _, m := range d.Methods {
				if s, ok := m.(*fixed.Sequence); ok && len(s.Sequences[0]) > sequence.MaxSteps {
					t.Fatalf("%d knocks: %v", len(s.Sequences[0]), s)
				}
			}
		}
	})
}
