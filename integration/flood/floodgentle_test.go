package flood

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
)

// Floods that every daemon can handle, even with the race detector: they displace a few
// attempts, open doors, and try in vain, while rules are reloaded and every request is
// sent. Clients that knock are still admitted.
func TestAGentleFloodKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	const rate, newcomers = 1500, 40
	for _, c := range []struct {
		name    string
		sources int
		ports   []uint16
		shows   func(d *lab.Daemon) uint64 // shows that the flood has its effect
		least   uint64
	}{
		{"first knocks", 5000, []uint16{4113}, func(d *lab.Daemon) uint64 { return d.Status().Counters.Evicted }, 500},
		{"whole sequences", 50, []uint16{4113, 27911, 1840}, func(d *lab.Daemon) uint64 {
			c := d.Status().Doors[0].Counters
			return c.Opened + c.Refreshed
		}, 50 + newcomers},
		{"knocks and the door", 5000, []uint16{22, 4113, 1840}, func(d *lab.Daemon) uint64 { return d.Status().Doors[0].Counters.Refused }, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			rules := []string{"wall {\n  max_sources = 100\n}\n" + synRules, "wall {\n  max_sources = 50\n}\n" + synRules + otherDoor}
			d := l.Run(rules[0])
			client := control.NewClient(d.Control)
			l.Stream(forge.Stream{To: lab.Server4, Sources: c.sources, Rate: rate}, c.ports...)

			ctx, cancel := context.WithCancel(context.Background())
			var asking sync.WaitGroup
			defer asking.Wait()
			defer cancel()
			asking.Go(func() { client.Events(ctx, control.Selection{Follow: true}, func(audit.Event) error { return nil }) })
			asking.Go(func() {
				for ctx.Err() == nil {
					if _, err := client.Explain(context.Background(), lab.Source(500, lab.Server4).String()); err != nil {
						t.Errorf("explain: %v", err)
						return
					}
				}
			})
			for i := range newcomers {
				if i%10 == 9 {
					l.WriteRules(rules[i/10%2])
					_, err := client.Reload(context.Background(), "")
					lab.Must(t, err)
				}
				if err := l.OnFirstSYN(lab.Source(500+i, lab.Server4), lab.Server4, synKnocks...); err != nil {
					t.Errorf("newcomer %d: %v", i, err)
				}
			}
			eventually.True(t, fmt.Sprintf("the flood of %s is one", c.name), func() bool { return c.shows(d) >= c.least })
			if l.AdmitsAtOnce(lab.Source(1000, lab.Server4), lab.Server4, 22) {
				t.Error("a stranger gets in")
			}
			if lost := d.Status().Counters.Lost; lost != 0 {
				t.Errorf("%d packets were lost", lost)
			}
		})
	}
}

const otherDoor = `
door "telnet" {
  ports    = [23]
  sequence = [5227, 911, 30411]
}`
