package share

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/wall"
)

// load is for how long hosts share as many windows as they can be expected to:
//
//	go test ./integration/share -run UnderLoad -v -timeout 20m -load 10m
var load = flag.Duration("load", 12*time.Second, "how long five hosts share 10,000 windows a minute")

const windowsAMinute = 10_000

// observed is the changes at a daemon, as it tells a companion.
type observed struct {
	mu     sync.Mutex
	states int // that were told; a follower that misses a change is told another one
	opened map[netip.Addr]opened
	again  int // openings of windows that had been open before
	failed error
}

type opened struct {
	at     time.Time
	origin string
}

// observe follows the changes at the daemon of a member until the test ends.
func (m *member) observe() *observed {
	o := &observed{opened: map[netip.Addr]opened{}}
	ctx, end := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() {
		err := control.NewClient(m.daemon.Control).FollowChanges(ctx, "", func(c wall.Change) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			switch c.Kind {
			case wall.StateBegins:
				o.states++
			case wall.ChangeOpen:
				if _, ok := o.opened[c.Source.Addr()]; ok {
					o.again++
					break
				}
				o.opened[c.Source.Addr()] = opened{time.Now(), c.Origin}
			}
			return nil
		})
		o.mu.Lock()
		defer o.mu.Unlock()
		if ctx.Err() == nil {
			o.failed = err
		}
	})
	m.fleet.t.Cleanup(func() {
		end()
		following.Wait()
	})
	return o
}

func (o *observed) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.opened)
}

// resident returns the resident memory of a process, in MiB, as proc_pid_status(5) has it.
func resident(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	lab.Must(t, err)
	_, rest, _ := strings.Cut(string(b), "\nVmRSS:")
	var kibibytes float64
	if _, err := fmt.Sscan(rest, &kibibytes); err != nil {
		t.Fatalf("the memory of process %d: %v", pid, err)
	}
	return kibibytes / 1024
}

// Clients knock at five hosts. Each window opens at all five, and when as many windows end as
// open, the memory of the programs does not grow.
func TestUnderLoadNoWindowIsLost(t *testing.T) {
	const hosts = 5
	length := *load
	if testing.Short() {
		length = min(length, 4*time.Second)
	}
	// So from the second quarter on as many windows end as open, unless that is soon. A shorter
	// window may be over at a busy machine before another host hears of it.
	window := min(30*time.Second, max(2*time.Second, length/6))
	f := running(t, hosts, 1, fmt.Sprintf("window = %q", window))
	var all []*observed
	for _, m := range f.members {
		all = append(all, m.observe())
	}
	// No source comes twice, as it would only refresh its window.
	total := int(windowsAMinute * length.Minutes())
	if total > 2*65_000 {
		t.Fatalf("the client has no addresses for %s", length)
	}
	source := func(n int) netip.Addr {
		if n%2 == 0 {
			return lab.Source(n/2, f.members[0].v4)
		}
		return lab.Source(n/2, f.members[0].v6)
	}
	processes := map[string]int{"NATS server": f.servers[0].cmd.Process.Pid}
	for _, m := range f.members {
		processes["daemon of "+m.name] = m.daemon.Cmd.Process.Pid
		processes["companion of "+m.name] = m.companion.Process.Pid
	}
	var quarters [4]map[string]float64 // the most memory of each process
	for i := range quarters {
		quarters[i] = map[string]float64{}
	}
	began := time.Now()
	measured := began
	lab.Must(t, f.hub.Do(func() error {
		for n := range total {
			time.Sleep(time.Until(began.Add(length * time.Duration(n) / time.Duration(total))))
			at, from := f.members[n%hosts], source(n)
			to := at.v4
			if from.Is6() {
				to = at.v6
			}
			if err := at.knocks(from, to)(); err != nil {
				return err
			}
			if time.Since(measured) < length/40 {
				continue
			}
			measured = time.Now()
			quarter := quarters[n*4/total]
			for name, pid := range processes {
				quarter[name] = max(quarter[name], resident(t, pid))
			}
		}
		return nil
	}))
	took := time.Since(began)
	for i, m := range f.members {
		eventually.True(t, fmt.Sprintf("all %d windows have opened at %s", total, m.name), func() bool { return all[i].count() >= total })
	}

	var delays []time.Duration
	again := 0
	for i, o := range all {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.failed != nil {
			t.Errorf("%s: %v", f.members[i].name, o.failed)
		}
		if o.states != 1 {
			t.Errorf("%s has told its state %d times", f.members[i].name, o.states)
		}
		again += o.again
	}
	for n := range total {
		at := n % hosts
		for i, o := range all {
			there, want := o.opened[source(n)], f.members[at].name
			if i == at {
				want = ""
			} else {
				delays = append(delays, there.at.Sub(all[at].opened[source(n)].at))
			}
			if there.origin != want {
				t.Fatalf("window %d has the origin %q at %s, not %q", n, there.origin, f.members[i].name, want)
			}
		}
	}
	late := uint64(0)
	for _, m := range f.members {
		eventually.True(t, m.name+" hears all others", func() bool {
			s := m.daemon.Status().Sharing
			return s != nil && s.Companion != nil && s.Companion.Count == hosts-1
		})
		late += m.daemon.Status().Sharing.Companion.Lost
		stop(m.companion, syscall.SIGTERM) // so that what it says when it ends is known
		if out := m.log.String(); strings.Contains(out, "not shared") || strings.Contains(out, "can be used") {
			t.Errorf("the companion of %s says: %s", m.name, out)
		}
	}
	slices.Sort(delays)
	at := func(percent int) time.Duration { // nearest rank
		return delays[(len(delays)*percent+99)/100-1].Round(10 * time.Microsecond)
	}
	t.Logf("%d windows of %s in %s; from their opening to that at another host: %s at the median, %s at p95, %s at p99, %s at most",
		total, window, took.Round(time.Millisecond), at(50), at(95), at(99), at(100))
	// A companion takes a message as lost that is late by more than a beat, and asks for all
	// windows. One that ends before the answer has come opens again, for as long as that took.
	t.Logf("%d messages were lost or late, and %d of %d openings were of a window that had just ended", late, again, hosts*total)
	if again > hosts*total/100 {
		t.Error("too many windows open again")
	}
	for _, name := range slices.Sorted(maps.Keys(processes)) {
		second, last := quarters[1][name], quarters[3][name]
		t.Logf("the %s has %.1f MiB at most in the second quarter of the time, and %.1f MiB in the last", name, second, last)
		// The garbage collector lets a heap become twice as large as what is in use.
		if last > 1.5*second+16 {
			t.Errorf("the memory of the %s grows from %.1f to %.1f MiB", name, second, last)
		}
	}
}
