package integration

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
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
		shows   func(d *daemon) uint64 // shows that the flood has its effect
		least   uint64
	}{
		{"first knocks", 5000, []uint16{4113}, func(d *daemon) uint64 { return d.status().Counters.Evicted }, 500},
		{"whole sequences", 50, []uint16{4113, 27911, 1840}, func(d *daemon) uint64 {
			c := d.status().Doors[0].Counters
			return c.Opened + c.Refreshed
		}, 50 + newcomers},
		{"knocks and the door", 5000, []uint16{22, 4113, 1840}, func(d *daemon) uint64 { return d.status().Doors[0].Counters.Refused }, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.serve(22)
			rules := []string{"wall {\n  max_sources = 100\n}\n" + synRules, "wall {\n  max_sources = 50\n}\n" + synRules + telnetDoor}
			d := l.run(rules[0])
			client := control.NewClient(d.control)
			l.stream(forge.Stream{To: server4, Sources: c.sources, Rate: rate}, c.ports...)

			ctx, cancel := context.WithCancel(context.Background())
			var asking sync.WaitGroup
			defer asking.Wait()
			defer cancel()
			asking.Go(func() { client.Events(ctx, true, func(audit.Event) error { return nil }) })
			asking.Go(func() {
				for ctx.Err() == nil {
					if _, err := client.Explain(context.Background(), nth(500, server4).String()); err != nil {
						t.Errorf("explain: %v", err)
						return
					}
				}
			})
			for i := range newcomers {
				if i%10 == 9 {
					l.rules(rules[i/10%2])
					_, err := client.Reload(context.Background(), "")
					must(t, err)
				}
				if err := l.onFirstSYN(nth(500+i, server4), server4, synKnocks...); err != nil {
					t.Errorf("newcomer %d: %v", i, err)
				}
			}
			eventually(t, fmt.Sprintf("the flood of %s is one", c.name), func() bool { return c.shows(d) >= c.least })
			if l.admits(nth(1000, server4), server4, 22) {
				t.Error("a stranger gets in")
			}
			if lost := d.status().Counters.Lost; lost != 0 {
				t.Errorf("%d packets were lost", lost)
			}
		})
	}
}
