package table

import (
	"slices"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// BenchmarkInstall measures the replacement of the table with 10,000 open windows.
func BenchmarkInstall(b *testing.B) {
	l := lab.New(b)
	loaded := ruleset.Load(l.WriteRules(lab.SSHRules))
	table := tableAt(b, loaded.Config, time.Now())
	prefix := packet.SourcePrefix{IPv4: 32, IPv6: 128}
	windows := make([]nft.Window, 10000)
	for i := range windows {
		windows[i] = nft.Window{Door: "ssh", Source: prefix.Of(lab.Source(i, lab.Server4)), Left: time.Hour}
	}
	lab.Must(b, l.Server.Do(func() error {
		k, err := nft.OpenKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		for b.Loop() {
			if err := k.Install(table, slices.Values(windows), ""); err != nil {
				return err
			}
		}
		return nil
	}))
}
