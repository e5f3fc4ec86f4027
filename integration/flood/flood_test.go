//go:build !race

package flood

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
)

// Floods need the speed of the ordinary build. TestAGentleFloodKeepsNobodyOut tests the
// build with the race detector.

// Whatever is flooded, clients with a window connect on the first SYN, and so do clients
// that knock. Sessions continue, windows end on time, nobody else is admitted, and the
// daemon stays small.
func TestAFloodKeepsNobodyOut(t *testing.T) {
	door, knocks, both := []uint16{22}, []uint16{4113, 1840}, []uint16{22, 4113, 1840}
	for _, c := range []struct {
		name   string
		server netip.Addr
		closed string
		ports  []uint16
	}{
		{"the door", lab.Server4, "drop", door},
		{"the door, IPv6", lab.Server6, "drop", door},
		{"the knock ports", lab.Server4, "drop", knocks},
		{"both", lab.Server4, "drop", both},
		{"both, IPv6", lab.Server6, "drop", both},
		{"both, and the door rejects", lab.Server4, "reject", both},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && len(c.ports) != len(both) {
				t.Skip("with -short, only floods of both")
			}
			l := lab.New(t)
			l.ServeTCP(22)
			rules := floodRules(c.closed)
			limits := limits(l, rules)
			started := time.Now()
			d := l.Run(rules)
			guests := letGuestsKnock(l, d, c.server, 50)
			session := l.OpenSession(guests.addresses[0], c.server)
			stranger := lab.Source(1000, c.server)
			logUnflooded(l, guests)
			before, status := readVitals(d), d.Status()

			began := time.Now()
			received := l.ReceivedPackets()
			f := follow(d, forge.Stream{To: c.server}, c.ports...)
			eventually.True(t, "the flood is on", func() bool { return f.Sent() > 20_000 })
			var took []time.Duration
			for i, guest := range guests.addresses {
				at := time.Now()
				if err := l.OnFirstSYN(guest, c.server); err != nil {
					t.Fatalf("guest %d of %d: %v", i+1, len(guests.addresses), err)
				}
				took = append(took, time.Since(at))
				if i%25 == 24 && l.AdmitsAtOnce(stranger, c.server, 22) {
					t.Error("a stranger gets in during the flood")
				}
				if i%10 == 9 {
					if err := lab.Exchange(session); err != nil {
						t.Errorf("during the flood the session is dead: %v", err)
					}
				}
				if i%2 == 0 {
					newcomer := lab.Source(500+i, c.server)
					guests.newcomers = append(guests.newcomers, newcomer)
					letNewcomerIn(l, newcomer, c.server, c.closed)
				}
				time.Sleep(40 * time.Millisecond) // so that the flood lasts
			}
			lines, during := d.Log.String(), readVitals(d)
			f.Stop()
			f.CheckKeptUp()
			received = l.ReceivedPackets() - received
			if err := lab.Exchange(session); err != nil {
				t.Errorf("after the flood the session is dead: %v", err)
			}
			if l.AdmitsAtOnce(stranger, c.server, 22) {
				t.Error("a stranger gets in after the flood")
			}
			guests.check(t, d)

			after := d.Status()
			counters := after.Doors[0].Counters
			lasted := time.Since(started)
			slices.Sort(took)
			t.Logf("%d SYNs sent, %.0f/s, the flood waited %s, %d received, %d not taken by the cable; connects took %s at the median, %s at the 49th of 50, %s at most; %s",
				f.Sent(), f.Rate(), f.Rested(), received, f.Dropped(), took[len(took)/2], took[len(took)-2], took[len(took)-1], l.DescribeConntrack())
			t.Logf("the daemon: %s of CPU in %s (%.0f %%; the flood %.0f %%); %s; knocks %d, held %d, refused %d, by the kernel %d, lost %d",
				during.cpu-before.cpu, f.Took(), 100*(during.cpu-before.cpu).Seconds()/f.Took().Seconds(), 100*f.CPU().Seconds()/f.Took().Seconds(),
				during, counters.Knocks, counters.Held, counters.Refused, counters.KernelRefused, after.Counters.Lost)

			// It was a flood: far more packets reached the door than the kernel passes
			// on.
			if received < uint64(f.Sent())/2 {
				t.Errorf("of %d SYNs only %d have arrived", f.Sent(), received)
			}
			if slices.Equal(c.ports, knocks) && counters.Knocks+after.Counters.Lost < received/2 {
				t.Errorf("%d knocks arrived, of which %d were heard and %d lost", received, counters.Knocks, after.Counters.Lost)
			}
			// It was more than the rules hand on, whatever this machine's speed.
			if slices.Contains(c.ports, 22) && counters.KernelRefused < max(counters.Held, 1) {
				t.Errorf("no flood: %d SYNs were refused, and %d held", counters.KernelRefused, counters.Held)
			}

			// The daemon received no more than that.
			heard, queued := counters.Knocks, counters.Held
			if bound := limits.log.in(lasted); heard > bound || heard < 50*3 {
				t.Errorf("%d knocks were heard in %s; the rules hand on up to %d", heard, lasted, bound)
			}
			if bound := limits.queue.in(lasted); queued > bound {
				t.Errorf("%d packets were held in %s; the rules hand on up to %d", queued, lasted, bound)
			}
			if bound := limits.queue.in(lasted) + limits.log.in(lasted); heard+queued+after.Counters.Lost > bound {
				t.Errorf("%d packets were heard and held, and %d lost, of %d that the rules hand on at most",
					heard+queued, after.Counters.Lost, bound)
			}
			if after.Counters.Attempts > 65536 {
				t.Errorf("%d attempts are remembered, more than max_sources", after.Counters.Attempts)
			}
			checkSmall(d, before, 3)
			// Accepted connections are not strangers, and each has an event.
			accepted := int(counters.Accepted - status.Doors[0].Counters.Accepted)
			written := strings.Count(lines, "\n") - before.lines
			bound := lab.FloodLogLines(time.Since(began)) + accepted + 8*len(guests.newcomers)
			t.Logf("the log got %d lines, of %d at most", written, bound)
			if written > bound {
				t.Errorf("the log got %d lines, want %d at most:\n%s", written, bound, lab.Tail(lines, 4000))
			}
			if n := d.Logged(" overloaded "); n > 1 {
				t.Errorf("the overload is told of %d times", n)
			}
		})
	}
}

// A daemon that cannot read for a while loses packets. They are counted and reported
// once, not every 10 s, with no other effect. As soon as their queue is full, the kernel
// alone admits clients with a window; until then they wait.
func TestAFloodThatOverflowsTheDaemonIsSurvived(t *testing.T) {
	l := lab.New(t)
	l.ServeTCP(22)
	rules := floodRules("drop")
	limits := limits(l, rules)
	started := time.Now()
	d := l.Run(rules)
	guests := letGuestsKnock(l, d, lab.Server4, 20)
	session := l.OpenSession(guests.addresses[0], lab.Server4)
	before := readVitals(d)
	const admitted, strangers = 7100, 7101

	// Sources within a sequence have the highest log rate of all. In a second, and with
	// that many SYNs, the rules log more than any socket can hold.
	began := lab.Source(1000, lab.Server4)
	overload := func() {
		t.Helper()
		f := l.Flood(began, lab.Server4, 1840, 22, 22, 22)
		lab.Must(t, d.Cmd.Process.Signal(syscall.SIGSTOP))
		was, at := queue(l, strangers).lost(), time.Now()
		eventually.True(t, "the strangers' queue and the log overflow", func() bool {
			return queue(l, strangers).lost() > was && f.Sent() > 100_000 && time.Since(at) > time.Second
		})
		f.Stop()
		t.Logf("%.0f SYNs a second were sent for %s until queue and log overflowed: %+v", f.Rate(), f.Took(), queue(l, strangers))
	}
	resume := func() { lab.Must(t, d.Cmd.Process.Signal(syscall.SIGCONT)) }
	// The number of the next logged knock shows how many were lost.
	countedMoreThan := func(n uint64) func() bool {
		return func() bool {
			l.Knock(lab.Source(1003, lab.Server4), lab.Server4, lab.TCP(4113))
			return d.Status().Counters.Lost > n
		}
	}
	t.Cleanup(func() { d.Cmd.Process.Signal(syscall.SIGCONT) })

	overload()
	if err := lab.Exchange(session); err != nil {
		t.Errorf("with the daemon stopped the session is dead: %v", err)
	}
	if l.AdmitsAtOnce(lab.Source(1001, lab.Server4), lab.Server4, 22) {
		t.Error("with the daemon stopped a stranger gets in")
	}
	// The first clients must wait for it.
	early := make(chan error, 1)
	at := time.Now()
	go func() {
		conn, err := l.Dial(guests.addresses[1], lab.Server4, 22, lab.Deadline)
		if err == nil {
			conn.Close()
		}
		early <- err
	}()
	select {
	case err := <-early:
		t.Logf("with the daemon stopped and room in the queue, a guest gets in after %s: %v", time.Since(at), err)
		early <- err
	case <-time.After(lab.Short):
		t.Logf("with the daemon stopped and room in the queue, a guest waits: %+v", queue(l, admitted))
	}
	f := l.Flood(guests.addresses[2], lab.Server4, 22)
	full, sent := -1, int64(0)
	eventually.True(t, "the queue of those with a window is full", func() bool {
		if f.Sent() < sent+20_000 {
			return false
		}
		was := full
		full, sent = queue(l, admitted).waiting, f.Sent()
		return full == was
	})
	f.Stop()
	t.Logf("with the daemon stopped, %d SYNs of guests wait at most", full)
	if lost := queue(l, admitted).lost(); lost != 0 {
		t.Errorf("%d SYNs of guests were lost", lost)
	}
	for i, guest := range guests.addresses[3:] {
		if err := l.OnFirstSYN(guest, lab.Server4); err != nil {
			t.Fatalf("with the daemon stopped and the queue full, guest %d: %v", i, err)
		}
	}
	dropped := queue(l, strangers).lost() + queue(l, admitted).lost()
	resume()
	if err := <-early; err != nil {
		t.Errorf("who has waited for the daemon is not let in: %v", err)
	}
	t.Logf("who came first got in after %s", time.Since(at))

	eventually.True(t, "what the log has lost is counted, too", countedMoreThan(dropped))
	d.WaitFor(" overloaded ", "read")
	lost := d.Status().Counters.Lost
	if bound := limits.log.in(time.Since(started)) + limits.queue.in(time.Since(started)); lost > bound {
		t.Errorf("%d packets are lost, of %d that the rules handed on at most", lost, bound)
	}

	overload()
	resume()
	eventually.True(t, "what was lost since is counted", countedMoreThan(lost))
	time.Sleep(audit.SumInterval + time.Second) // when it would be reported again
	if n := d.Logged(" overloaded ", "read"); n != 1 {
		t.Errorf("the overload is told of %d times, want once", n)
	}
	t.Logf("%d packets were lost in all", d.Status().Counters.Lost)

	newcomer := lab.Source(1002, lab.Server4)
	if err := l.OnFirstSYN(newcomer, lab.Server4, lab.Knocks...); err != nil {
		t.Errorf("who knocks after the overload: %v", err)
	}
	guests.newcomers = append(guests.newcomers, newcomer)
	for i, guest := range guests.addresses {
		if err := l.OnFirstSYN(guest, lab.Server4); err != nil {
			t.Fatalf("after the overload guest %d: %v", i, err)
		}
	}
	if err := lab.Exchange(session); err != nil {
		t.Errorf("after the overload the session is dead: %v", err)
	}
	if l.AdmitsAtOnce(lab.Source(1001, lab.Server4), lab.Server4, 22) {
		t.Error("after the overload a stranger gets in")
	}
	guests.check(t, d)
	t.Logf("the daemon: %s", readVitals(d))
	checkSmall(d, before, 40)
}

// floodRules have a UDP knock, so a flood of SYNs never completes the sequence by chance.
func floodRules(closed string) string {
	return `door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "10m"
  closed   = "` + closed + `"
}`
}

const floodWindow = 10 * time.Minute // longer than any test

// floodGuests are sources with a window.
type floodGuests struct {
	lab       *lab.Lab
	server    netip.Addr
	addresses []netip.Addr
	began     time.Time // no source knocked before
	seen      time.Time // all windows were open by then
	newcomers []netip.Addr
}

func letGuestsKnock(l *lab.Lab, d *lab.Daemon, server netip.Addr, n int) *floodGuests {
	l.T.Helper()
	g := &floodGuests{lab: l, server: server, began: time.Now()}
	for i := range n {
		g.addresses = append(g.addresses, lab.Source(i+1, server))
		l.Knock(g.addresses[i], server, lab.Knocks...)
	}
	eventually.True(l.T, "all windows are open", func() bool { return len(d.Status().Windows) == n })
	g.seen = time.Now()
	return g
}

// letNewcomerIn knocks, and connects without a pause. If the door drops instead of rejecting,
// nothing waits for the knock, so the client may need another SYN.
func letNewcomerIn(l *lab.Lab, from, to netip.Addr, closed string) {
	l.T.Helper()
	if closed == "reject" {
		l.Knock(from, to, lab.Knocks...)
		eventually.True(l.T, "a newcomer is let in", func() bool { return l.OnFirstSYN(from, to) == nil })
		return
	}
	if err := l.OnFirstSYN(from, to, lab.Knocks...); err != nil {
		l.T.Errorf("who knocks during the flood: %v", err)
	}
}

// check compares the windows of the daemon and of the kernel, and their remaining time,
// with what is expected.
func (g *floodGuests) check(t *testing.T, d *lab.Daemon) {
	t.Helper()
	check := func(who string, left map[netip.Addr]time.Duration, asked, answered time.Time) {
		t.Helper()
		if n := len(g.addresses) + len(g.newcomers); len(left) != n {
			t.Errorf("%s has %d windows, want %d", who, len(left), n)
		}
		// The kernel counts in ticks.
		const tick = 100 * time.Millisecond
		least, most := floodWindow-answered.Sub(g.began)-tick, floodWindow-asked.Sub(g.seen)+tick
		for _, a := range g.addresses {
			if got, ok := left[a]; !ok || got < least || got > most {
				t.Errorf("%s: the window of %s has %s left (%v), want %s to %s", who, a, got, ok, least, most)
			}
		}
		for _, a := range g.newcomers {
			if got, ok := left[a]; !ok || got < most-tick {
				t.Errorf("%s: the window of %s, which came later, has %s left (%v)", who, a, got, ok)
			}
		}
	}
	left := map[netip.Addr]time.Duration{}
	asked := time.Now()
	for _, w := range d.Status().Windows {
		left[w.Source.Addr()] = time.Duration(w.LeftSeconds * float64(time.Second))
	}
	check("the daemon", left, asked, time.Now())
	clear(left)
	asked = time.Now()
	for _, w := range g.lab.KernelWindows() {
		left[w.Source.Addr()] = w.Left
	}
	check("the kernel", left, asked, time.Now())
}

// logUnflooded logs how long connecting takes without a flood.
func logUnflooded(l *lab.Lab, g *floodGuests) {
	l.T.Helper()
	var took []time.Duration
	for _, a := range g.addresses[:20] {
		at := time.Now()
		lab.Must(l.T, l.OnFirstSYN(a, g.server))
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	l.T.Logf("without a flood connects take %s at the median, %s at most", took[len(took)/2], took[len(took)-1])
}

// rate is what the limits of the rules let through.
type rate struct{ perSecond, burst uint64 }

func (r rate) in(d time.Duration) uint64 { return uint64(float64(r.perSecond)*d.Seconds()) + r.burst }

// floodLimits are the most packets of strangers that all rules together pass to the
// daemon.
type floodLimits struct{ log, queue rate }

var limited = regexp.MustCompile(`limit rate (\d+)/second burst (\d+) packets (?:ct label set \d+ )?(log|queue)`)

// limits reads the limits from the table of rules.
func limits(l *lab.Lab, rules string) (limits floodLimits) {
	l.T.Helper()
	out, err := lab.Knockwall("ruleset", "--config", l.WriteRules(rules)).Output()
	lab.Must(l.T, err)
	for _, m := range limited.FindAllStringSubmatch(string(out), -1) {
		perSecond, err := strconv.ParseUint(m[1], 10, 64)
		lab.Must(l.T, err)
		burst, err := strconv.ParseUint(m[2], 10, 64)
		lab.Must(l.T, err)
		to := &limits.log
		if m[3] == "queue" {
			to = &limits.queue
		}
		to.perSecond += perSecond
		to.burst += burst
	}
	if limits.log.perSecond == 0 {
		l.T.Fatalf("the rules have no limits:\n%s", out)
	}
	return limits
}

// queueState is the kernel's state of a queue.
type queueState struct {
	waiting      int
	full, unread uint64 // dropped: the queue was full, or the socket was
}

func (q queueState) lost() uint64 { return q.full + q.unread }

// queue reads the state of one of the server's queues.
func queue(l *lab.Lab, number int) (q queueState) {
	l.T.Helper()
	lab.Must(l.T, l.Server.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			var n, port, mode, length int
			if _, err := fmt.Sscan(line, &n, &port, &q.waiting, &mode, &length, &q.full, &q.unread); err == nil && n == number {
				return nil
			}
		}
		return fmt.Errorf("there is no queue %d:\n%s", number, b)
	}))
	return q
}

// vitals are the resources of a process.
type vitals struct {
	rss, peak   int // KiB
	threads     int
	descriptors int
	cpu         time.Duration
	lines       int // of the log
}

func (v vitals) String() string {
	return fmt.Sprintf("memory %d KiB, at its peak %d KiB, %d threads, %d descriptors, %s of CPU", v.rss, v.peak, v.threads, v.descriptors, v.cpu)
}

func readVitals(d *lab.Daemon) (v vitals) {
	t := d.Lab.T
	t.Helper()
	folder := fmt.Sprintf("/proc/%d", d.Cmd.Process.Pid)
	b, err := os.ReadFile(filepath.Join(folder, "status"))
	lab.Must(t, err)
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		for n, to := range map[string]*int{"VmRSS": &v.rss, "VmHWM": &v.peak, "Threads": &v.threads} {
			if n == name {
				fmt.Sscan(value, to)
			}
		}
	}
	if v.rss == 0 || v.peak == 0 {
		t.Fatalf("the memory of the daemon is not known:\n%s", b)
	}
	b, err = os.ReadFile(filepath.Join(folder, "stat"))
	lab.Must(t, err)
	// Fields 14 and 15, in hundredths of a second. The name before them may contain
	// spaces.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		lab.Must(t, err)
		v.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	descriptors, err := os.ReadDir(filepath.Join(folder, "fd"))
	lab.Must(t, err)
	v.descriptors = len(descriptors)
	v.lines = strings.Count(d.Log.String(), "\n")
	return v
}

// checkSmall fails the test if the daemon has grown beyond 64 MiB, or in file descriptors.
// It allows one descriptor for each connection on which the test has asked the daemon. While
// the daemon examines the host, it has a few more.
func checkSmall(d *lab.Daemon, before vitals, asked int) {
	t := d.Lab.T
	t.Helper()
	if v := readVitals(d); v.peak >= 64<<10 {
		t.Errorf("the daemon's memory was %d KiB at its peak, want less than 64 MiB", v.peak)
	}
	eventually.True(t, fmt.Sprintf("the daemon has %d file descriptors, as before, or %d more", before.descriptors, asked), func() bool {
		return readVitals(d).descriptors <= before.descriptors+asked
	})
}
