//go:build !race

package flood

import (
	"fmt"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
)

// A source that knows all knocks and forges 32,000 addresses opens the door for them
// again and again. Others can still knock, and the log stays small.
func TestAFloodOfWholeSequencesKeepsNobodyOut(t *testing.T) {
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(synRules)
	began := time.Now()
	f := follow(d, forge.Stream{To: lab.Server4, Sources: 32_000}, 4113, 27911, 1840)
	opened := func() uint64 {
		c := d.Status().Doors[0].Counters
		return c.Opened + c.Refreshed
	}
	eventually.Within(t, time.Minute, "the flood opens the door", func() bool { return opened() > 10_000 })
	for i := range 50 {
		if err := l.OnFirstSYN(lab.Source(500+i, lab.Server4), lab.Server4, synKnocks...); err != nil {
			t.Errorf("newcomer %d: %v", i, err)
		}
	}
	during := readVitals(d)
	f.Stop()
	f.CheckKeptUp()
	s := d.Status()
	t.Logf("%.0f SYNs a second, the flood waited %s of %s; %d windows, opened or refreshed %d times; lost %d; %s", f.Rate(), f.Rested(), f.Took(), len(s.Windows), opened(), s.Counters.Lost, during)
	if n := len(s.Windows); n > 32_000+50 {
		t.Errorf("%d windows are open, of 32,000 forged sources and 50 clients", n)
	}
	// The limits of [audit.Summer]: in each interval 256 events of each kind, and of the
	// rest 32 sources in up to five parts, and all others.
	intervals := int(time.Since(began)/audit.SumInterval) + 2
	told, bound := d.Logged(" opened ")+d.Logged(" refreshed "), intervals*2*(256+32*5+1)
	t.Logf("of them %d are told", told)
	if told > bound {
		t.Errorf("that the door was opened or refreshed was told %d times, want %d at most", told, bound)
	}
}

// A flood of first knocks from a million addresses displaces attempts. A client with
// pauses between its knocks is still admitted.
func TestAFloodFromAMillionSourcesKeepsNobodyOut(t *testing.T) {
	const (
		pause    = 1500 * time.Millisecond
		followed = 65536 // attempts; the flood displaces more than that in the meantime
	)
	for _, rate := range []int{50_000, 0} {
		t.Run(fmt.Sprintf("%d a second", rate), func(t *testing.T) {
			l := lab.New(t)
			l.ServeTCP(22)
			d := l.Run(synRules)
			before := readVitals(d)
			f := follow(d, forge.Stream{To: lab.Server4, Sources: 1_000_000, Rate: rate}, 4113)
			eventually.True(t, "attempts give way", func() bool { return d.Status().Counters.Evicted > 0 })
			slow := func(n int) {
				l.Knock(lab.Source(n, lab.Server4), lab.Server4, synKnocks[0])
			}
			for i := range 50 {
				slow(500 + i)
			}
			knocked, gone := time.Now(), d.Status().Counters.Evicted+followed
			eventually.Within(t, time.Minute, "as many have given way as can be followed", func() bool {
				return time.Since(knocked) > pause && d.Status().Counters.Evicted > gone
			})
			for i := range 50 {
				if err := l.OnFirstSYN(lab.Source(500+i, lab.Server4), lab.Server4, synKnocks[1:]...); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
			if l.AdmitsAtOnce(lab.Source(1000, lab.Server4), lab.Server4, 22) {
				t.Error("a stranger gets in")
			}
			during := readVitals(d)
			f.Stop()
			f.CheckKeptUp()
			t.Logf("%.0f SYNs a second, the flood waited %s of %s; %d attempts gave way; %s", f.Rate(), f.Rested(), f.Took(), d.Status().Counters.Evicted, during)
			checkSmall(d, before, 3)
		})
	}
}
