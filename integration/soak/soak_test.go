package soak

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

var (
	soakTime = flag.Duration("soak", 10*time.Second, "how long TestSoak takes; 1m where CI is set")
	soakSeed = flag.Uint64("soak.seed", 0, "the seed of TestSoak's actions; 0 for a random one. The actions depend on the time, too")
)

const (
	soakKnockTimeout = 3 * time.Second
	soakHold         = 100 * time.Millisecond
	soakReorder      = 5 * time.Millisecond
	// apart is a pause between knocks that is so long that none overtakes another.
	apart = 10 * soakReorder
	// edge is how close to its end the model makes no statement about a window or an
	// attempt.
	edge = 500 * time.Millisecond
	// drift is how much the end of a window may differ from the time for which it was
	// opened, after daemons and tables have handed it over.
	drift = 250 * time.Millisecond
)

// soakDoor is a door in the model.
type soakDoor struct {
	name   string
	port   int
	knocks []packet.Port
	max    int
	prefix packet.SourcePrefix
	window time.Duration
}

// soakRules are rule files that the model understands.
type soakRules struct {
	group, queue int
	doors        []soakDoor
}

func (r soakRules) door(name string) *soakDoor {
	for i := range r.doors {
		if r.doors[i].name == name {
			return &r.doors[i]
		}
	}
	return nil
}

func (r soakRules) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "wall {\n  nflog_group = %d\n  queue = %d\n  hold = %q\n  reorder = %q\n  max_sources = 1000\n}\n",
		r.group, r.queue, soakHold, soakReorder)
	for _, d := range r.doors {
		fmt.Fprintf(&b, "door %q {\n  ports = [%d]\n  seq_timeout = %q\n  window = %q\n  source_prefix = { ipv4 = %d, ipv6 = %d }\n",
			d.name, d.port, soakKnockTimeout, d.window, d.prefix.IPv4, d.prefix.IPv6)
		if d.max > 0 {
			fmt.Fprintf(&b, "  max_connections = %d\n", d.max)
		}
		var knocks []string
		for _, k := range d.knocks {
			knocks = append(knocks, strconv.Quote(k.String()))
		}
		fmt.Fprintf(&b, "  sequence = [%s]\n}\n", strings.Join(knocks, ", "))
	}
	return b.String()
}

// soakPorts are the ports of all doors that may exist.
var soakPorts = []struct {
	door string
	port int
}{{"ssh", 22}, {"mail", 25}, {"net", 80}, {"extra", 81}}

// soakSources are the sources of all clients. Some share a prefix.
var soakSources = []netip.Addr{
	lab.Client4, lab.Source(1, lab.Server4), lab.Source(2, lab.Server4), lab.Source(257, lab.Server4), lab.Source(258, lab.Server4), lab.Source(513, lab.Server4),
	lab.Client6, lab.Source(1, lab.Server6), lab.Source(2, lab.Server6), lab.Source(257, lab.Server6), lab.Source(258, lab.Server6), lab.Source(513, lab.Server6),
}

// soakKey is one source at one door.
type soakKey struct {
	door   string
	source netip.Prefix
}

func (k soakKey) String() string { return fmt.Sprintf("%s for %s", k.door, k.source) }

// soakWindow is a window that ends at some moment between lo and hi.
type soakWindow struct {
	lo, hi      time.Time
	length      time.Duration
	fresh       bool // the moment at which the daemon opened it is not known yet
	connections int
	max         int
}

// soakAttempt is an attempt at a door that began at some moment between lo and hi.
type soakAttempt struct {
	taken   int
	lo, hi  time.Time
	spoiled bool // by a knock in the wrong order, which the daemon judges at the next knock
}

type soakSession struct {
	door string
	from netip.Addr
	conn net.Conn
}

// soak is the wall, and the model of which sources should be admitted.
type soak struct {
	*testing.T
	l      *lab.Lab
	random *rand.Rand
	kernel *nft.Kernel
	d      *lab.Daemon
	client *control.Client

	alive    bool // a daemon runs
	owned    bool // and owns the table
	rules    soakRules
	windows  map[soakKey]*soakWindow
	attempts map[soakKey]*soakAttempt
	knocks   map[string]uint64 // knocks that counted since the daemon started, by door
	healed   uint64
	sessions []soakSession
	unsure   map[soakKey]time.Time // the model knows nothing about these until then, because the machine was too slow

	steps   int
	did     []string
	counted map[string]int
}

// For as long as -soak says, knocks, connections, windows by command, reloads, restarts,
// kills and attacks happen in a random order. After each the wall agrees with a model of
// which sources should be admitted. The memory, goroutines and file descriptors of a daemon
// do not grow.
func TestSoak(t *testing.T) {
	t.Parallel()
	length, seed := *soakTime, *soakSeed
	if os.Getenv("CI") != "" && length == 10*time.Second {
		length = time.Minute
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again with: -soak %s -soak.seed %d", length, seed)
	s := newSoak(t, seed)

	// The first half has restarts and kills. In the second half one daemon runs for a long
	// time.
	s.goOn(time.Now().Add(length/2), true)
	s.restart(syscall.SIGTERM)
	var samples []sample
	end := time.Now().Add(length / 2)
	for warm := time.Now().Add(length / 8); time.Now().Before(end); {
		s.goOn(time.Now().Add(length/50), false)
		if time.Now().After(warm) {
			samples = append(samples, s.sample())
		}
	}
	s.settled("at the end")
	s.noGrowth(samples)
	goroutines := s.goroutines()
	s.alive = false
	s.start(s.rules, s.owned)
	if fresh := s.goroutines(); goroutines > fresh+2 {
		t.Errorf("the daemon ended with %d goroutines, but a new one has %d", goroutines, fresh)
	}
	s.alive = false
	s.start(s.rules, s.owned)
	lab.Must(t, s.d.Stop(syscall.SIGTERM))
	s.nothingLeft()
	t.Logf("%d steps: %v", s.steps, s.counted)
}

func newSoak(t *testing.T, seed uint64) *soak {
	s := &soak{
		T: t, l: lab.New(t), random: rand.New(rand.NewPCG(seed, 0)),
		windows: map[soakKey]*soakWindow{}, attempts: map[soakKey]*soakAttempt{}, unsure: map[soakKey]time.Time{},
		counted: map[string]int{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, step %d; what was done last, the oldest first:\n%s\nand the rules were\n%s", seed, s.steps,
				strings.Join(s.did[max(0, len(s.did)-20):], "\n"), s.rules)
		}
	})
	for _, p := range soakPorts {
		s.l.ServeTCP(p.port)
	}
	lab.Must(t, s.l.Server.Do(func() (err error) {
		s.kernel, err = nft.OpenKernel()
		return err
	}))
	t.Cleanup(func() { s.kernel.Close() })
	s.start(s.otherRules(), true)
	return s
}

// goOn acts until the time is up.
func (s *soak) goOn(end time.Time, restarts bool) {
	for time.Now().Before(end) {
		s.steps++
		s.act(restarts)
		s.settled(s.did[len(s.did)-1])
		s.comeAndTry()
		s.settled("the tries to get in")
	}
}

// note records an action, for the message of a failure.
func (s *soak) note(kind, format string, values ...any) {
	s.counted[kind]++
	s.did = append(s.did, fmt.Sprintf("%d at %s: %s %s", s.steps, time.Now().Format("15:04:05.000"), kind, fmt.Sprintf(format, values...)))
}

// act does something at random.
func (s *soak) act(restarts bool) {
	if !s.alive && s.random.IntN(2) == 0 {
		s.start(s.perhapsOtherRules(), s.random.IntN(2) == 0)
		return
	}
	acts := []struct {
		weight int
		dead   bool // possible without a daemon
		act    func()
	}{
		{20, true, s.knockAll},
		{8, true, s.knockAgain},
		{4, true, s.knockSlowly},
		{6, true, s.knockPart},
		{5, true, s.knockWrong},
		{1, false, s.knockLate},
		{6, false, s.openByHand},
		{6, false, s.closeByHand},
		{8, false, s.reload},
		{3, false, s.reloadBroken},
		{2, false, s.reloadOnTrial},
		{8, false, s.attack},
		{4, true, s.session},
		{2, true, s.waitForAnEnd},
	}
	if restarts {
		acts = append(acts, []struct {
			weight int
			dead   bool
			act    func()
		}{
			{3, false, func() { s.stop(syscall.SIGKILL) }},
			{2, false, func() { s.stop(syscall.SIGTERM) }},
			{2, false, func() { s.restart(syscall.SIGKILL) }},
			{2, false, func() { s.restart(syscall.SIGTERM) }},
		}...)
	}
	total := 0
	for _, a := range acts {
		if s.alive || a.dead {
			total += a.weight
		}
	}
	n := s.random.IntN(total)
	for _, a := range acts {
		if !s.alive && !a.dead {
			continue
		}
		if n -= a.weight; n < 0 {
			a.act()
			return
		}
	}
}

// otherRules returns random rules.
func (s *soak) otherRules() soakRules {
	seconds := func(n ...time.Duration) time.Duration { return pick(s, n) * time.Second }
	each, network := packet.SourcePrefix{IPv4: 32, IPv6: 128}, packet.SourcePrefix{IPv4: 24, IPv6: 64}
	if s.random.IntN(4) == 0 {
		network = each
	}
	r := soakRules{group: 7100 + 100*s.random.IntN(3), queue: 7100 + 100*s.random.IntN(3), doors: []soakDoor{
		{"ssh", 22, []packet.Port{lab.TCP(4113), lab.UDP(27911), lab.TCP(1840)}, 0, each, seconds(6, 9, 14)},
		{"mail", 25, []packet.Port{lab.TCP(5301), lab.TCP(2207), lab.TCP(9120)}, 2 + s.random.IntN(2), each, seconds(7, 12)},
		{"net", 80, []packet.Port{lab.TCP(3310), lab.TCP(8822), lab.TCP(1203), lab.TCP(6011)}, 0, network, seconds(6, 10, 20)},
	}}
	if s.random.IntN(2) == 0 {
		knocks := []packet.Port{lab.UDP(4001), lab.TCP(2999)}
		if s.random.IntN(2) == 0 {
			knocks = []packet.Port{lab.TCP(2999), lab.UDP(4001)}
		}
		r.doors = append(r.doors, soakDoor{"extra", 81, knocks, 0, each, seconds(8)})
	}
	s.random.Shuffle(len(r.doors), func(i, j int) { r.doors[i], r.doors[j] = r.doors[j], r.doors[i] })
	return r
}

func (s *soak) perhapsOtherRules() soakRules {
	if s.random.IntN(2) == 0 {
		return s.rules
	}
	return s.otherRules()
}

// start starts a daemon. The daemon takes windows over from the kernel. It knows nothing of
// earlier attempts, nor how many connections a window has admitted.
func (s *soak) start(r soakRules, owned bool) {
	s.note("start", "owned: %v, %d doors, group %d, queue %d", owned, len(r.doors), r.group, r.queue)
	if owned {
		s.d = s.l.Run(r.String())
	} else {
		s.d = s.l.RunUnowned(r.String())
	}
	s.client = control.NewClient(s.d.Control)
	s.alive, s.owned = true, owned && s.kernel.Features().Ownership
	s.healed = 0
	s.attempts, s.knocks = map[soakKey]*soakAttempt{}, map[string]uint64{}
	s.apply(r)
	for k, w := range s.windows {
		w.connections, w.max = 0, s.rules.door(k.door).max
	}
}

// apply applies other rules to the model: windows stay at doors that stay and have the same
// source prefix. Attempts stay at doors that also have the same knocks.
func (s *soak) apply(r soakRules) {
	stays := func(k soakKey) bool {
		d := r.door(k.door)
		return d != nil && d.prefix.Of(k.source.Addr()).Prefix == k.source
	}
	maps.DeleteFunc(s.windows, func(k soakKey, _ *soakWindow) bool { return !stays(k) })
	maps.DeleteFunc(s.attempts, func(k soakKey, _ *soakAttempt) bool {
		return !stays(k) || s.rules.door(k.door).prefix != r.door(k.door).prefix || !slices.Equal(s.rules.door(k.door).knocks, r.door(k.door).knocks)
	})
	maps.DeleteFunc(s.knocks, func(door string, _ uint64) bool { return r.door(door) == nil })
	s.rules = r
}

func (s *soak) stop(signal syscall.Signal) {
	s.note("stop", "%v", signal)
	err := s.d.Stop(signal)
	if signal == syscall.SIGTERM && err != nil {
		s.Fatalf("asked to stop, the daemon ended with %v", err)
	}
	s.alive = false
	s.attempts = map[soakKey]*soakAttempt{}
}

func (s *soak) restart(signal syscall.Signal) {
	if s.alive {
		s.stop(signal)
	}
	s.start(s.perhapsOtherRules(), s.random.IntN(2) == 0)
}

// pick returns a random one of all.
func pick[T any](s *soak, all []T) T { return all[s.random.IntN(len(all))] }

func (s *soak) key(d *soakDoor, from netip.Addr) soakKey {
	return soakKey{d.name, d.prefix.Of(from).Prefix}
}

// serverFor returns the address of the server to which a source connects.
func serverFor(from netip.Addr) netip.Addr {
	if from.Is4() {
		return lab.Server4
	}
	return lab.Server6
}

// someone returns a source, and a door at which the model knows about it.
func (s *soak) someone() (*soakDoor, netip.Addr, bool) {
	d, from := &s.rules.doors[s.random.IntN(len(s.rules.doors))], pick(s, soakSources)
	k := s.key(d, from)
	if time.Now().Before(s.unsure[k]) {
		return d, from, false
	}
	a := s.attempts[k]
	if a == nil {
		return d, from, true
	}
	// The attempt of the source must not expire during the next action.
	return d, from, time.Since(a.lo) < soakKnockTimeout/3 || time.Since(a.hi) > soakKnockTimeout+edge
}

func (s *soak) knockAll() {
	d, from, ok := s.someone()
	if !ok {
		s.doNothing()
		return
	}
	s.note("knock", "%s at %s", from, d.name)
	s.send(d, from, 0, upTo(len(d.knocks))...)
}

// doNothing records that an action is not possible now.
func (s *soak) doNothing() { s.note("nothing", "") }

// upTo returns 0, 1, … n-1.
func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

func (s *soak) knockAgain() {
	for _, from := range soakSources {
		for i := range s.rules.doors {
			d := &s.rules.doors[i]
			k := s.key(d, from)
			if s.windows[k] != nil && s.attempts[k] == nil && !time.Now().Before(s.unsure[k]) {
				s.note("knock again", "%s at %s", from, d.name)
				s.send(d, from, 0, upTo(len(d.knocks))...)
				return
			}
		}
	}
	s.knockAll()
}

func (s *soak) knockSlowly() {
	if d, from, ok := s.someone(); ok {
		s.note("knock slowly", "%s at %s", from, d.name)
		s.send(d, from, apart+time.Duration(s.random.IntN(100))*time.Millisecond, upTo(len(d.knocks))...)
		return
	}
	s.doNothing()
}

func (s *soak) knockPart() {
	if d, from, ok := s.someone(); ok {
		n := 1 + s.random.IntN(len(d.knocks)-1)
		s.note("knock in part", "%s at %s, %d knocks", from, d.name, n)
		s.send(d, from, 0, upTo(n)...)
		return
	}
	s.doNothing()
}

// knockWrong knocks in another order than that of the sequence, so slowly that the daemon
// does not take a knock for one that was overtaken.
func (s *soak) knockWrong() {
	if d, from, ok := s.someone(); ok {
		order := s.random.Perm(len(d.knocks))
		s.note("knock wrongly", "%s at %s: %v", from, d.name, order)
		s.send(d, from, apart, order...)
		return
	}
	s.doNothing()
}

// knockLate knocks in the right order, but the last knock is too late.
func (s *soak) knockLate() {
	d, from, ok := s.someone()
	if !ok {
		s.doNothing()
		return
	}
	s.note("knock late", "%s at %s", from, d.name)
	all := upTo(len(d.knocks))
	s.send(d, from, 0, all[:len(all)-1]...)
	time.Sleep(soakKnockTimeout + edge)
	s.send(d, from, apart, all[len(all)-1])
}

// send sends knocks, by their place in the door's sequence, and updates the model.
func (s *soak) send(d *soakDoor, from netip.Addr, pause time.Duration, places ...int) {
	var at [][2]time.Time
	if pause == 0 {
		before := time.Now()
		var knocks []packet.Port
		for _, i := range places {
			knocks = append(knocks, d.knocks[i])
		}
		s.l.Knock(from, serverFor(from), knocks...)
		for range places {
			at = append(at, [2]time.Time{before, time.Now()})
		}
	} else {
		for _, i := range places {
			before := time.Now()
			s.l.Knock(from, serverFor(from), d.knocks[i])
			at = append(at, [2]time.Time{before, time.Now()})
			time.Sleep(pause)
		}
	}
	for n, i := range places {
		s.heard(d, from, i, at[n][0], at[n][1])
	}
}

// heard applies a knock to the model.
func (s *soak) heard(d *soakDoor, from netip.Addr, place int, before, after time.Time) {
	if !s.alive {
		return
	}
	k := s.key(d, from)
	a := s.attempts[k]
	if a != nil {
		over := before.Sub(a.hi) > soakKnockTimeout
		if perhaps := after.Sub(a.lo) > soakKnockTimeout-edge/2; perhaps && !over {
			s.Logf("this machine is so slow that nobody can tell whether %s was in time", k)
			s.unsure[k] = time.Now().Add(2 * soakKnockTimeout)
		}
		if over {
			a = nil
		}
	}
	all := len(d.knocks)
	switch {
	case a != nil && !a.spoiled && place == a.taken && a.taken < all: // the next one
		a.taken++
	case a != nil && !a.spoiled && place == a.taken-1 && !(a.taken == all && place == 0):
		return // the last step again
	case a != nil && !a.spoiled && a.taken < place: // a later one
		a.spoiled = true
	default: // a new attempt
		a = &soakAttempt{lo: before, hi: after, spoiled: place != 0}
		if place == 0 {
			a.taken = 1
		}
	}
	s.knocks[d.name]++
	s.attempts[k] = a
	if a.taken == all && !a.spoiled {
		s.opened(k, before, d.window, d.max)
	}
}

// opened adds a window to the model that was opened at an unknown moment after before.
func (s *soak) opened(k soakKey, before time.Time, length time.Duration, max int) {
	s.windows[k] = &soakWindow{lo: before.Add(length), hi: before.Add(length + time.Hour), length: length, fresh: true, max: max}
}

func (s *soak) openByHand() {
	d, from, ok := s.someone()
	if !ok {
		s.doNothing()
		return
	}
	k := s.key(d, from)
	length, text := d.window, ""
	if s.random.IntN(2) == 0 {
		length = time.Duration(5+s.random.IntN(11)) * time.Second
		text = length.String()
	}
	who := from.String()
	if d.prefix.Of(from).Prefix != netip.PrefixFrom(from, from.BitLen()) && s.random.IntN(2) == 0 {
		who = k.source.String()
	}
	s.note("open", "%s for %s, %s", d.name, who, text)
	before := time.Now()
	_, err := s.client.Open(context.Background(), d.name, who, text)
	lab.Must(s, err)
	s.opened(k, before, length, d.max)
}

func (s *soak) closeByHand() {
	d, from, ok := s.someone()
	if len(s.windows) > 0 && s.random.IntN(4) > 0 {
		k := pick(s, slices.SortedFunc(maps.Keys(s.windows), func(a, b soakKey) int { return strings.Compare(a.String(), b.String()) }))
		d, ok = s.rules.door(k.door), true
		from = soakSources[slices.IndexFunc(soakSources, k.source.Contains)]
	}
	k := s.key(d, from)
	w := s.windows[k]
	if !ok || w != nil && time.Now().After(w.lo.Add(-edge)) {
		s.doNothing()
		return
	}
	sessions := s.random.IntN(2) == 0
	s.note("close", "%s, sessions: %v", k, sessions)
	closed, err := s.client.Close(context.Background(), d.name, from.String(), sessions)
	if sessions || w != nil {
		lab.Must(s, err)
	} else if err == nil {
		s.Fatalf("a window was closed that should not be open: %s", k)
	}
	if closed.Closed != (w != nil) {
		s.Fatalf("closing %s, a window was open: %v, want %v", k, closed.Closed, w != nil)
	}
	delete(s.windows, k)
	if !sessions {
		return
	}
	s.sessions = slices.DeleteFunc(s.sessions, func(x soakSession) bool {
		if x.door != d.name || !k.source.Contains(x.from) {
			return false
		}
		x.conn.SetDeadline(time.Now().Add(edge))
		if lab.Ping(x.conn) == nil {
			s.Fatalf("the session of %s at %s was to end, and goes on", x.from, x.door)
		}
		x.conn.Close()
		return true
	})
}

func (s *soak) reload() {
	r := s.otherRules()
	s.note("reload", "%d doors, group %d, queue %d", len(r.doors), r.group, r.queue)
	s.l.WriteRules(r.String())
	_, err := s.client.Reload(context.Background(), "")
	lab.Must(s, err)
	s.apply(r)
}

func (s *soak) reloadBroken() {
	broken := pick(s, []string{"door {", "", "wall { queue = 70000 }", "door \"ssh\" { ports = [22] }"})
	s.note("reload of a broken file", "")
	text := strings.Replace(s.otherRules().String(), "door", broken+"\ndoor", 1) + "}"
	s.l.WriteRules(text)
	_, err := s.client.Reload(context.Background(), "")
	var wrong *control.RulesError
	if !errors.As(err, &wrong) {
		s.Fatalf("a broken file was not told so, but: %v\n%s", err, text)
	}
}

func (s *soak) reloadOnTrial() {
	r := s.otherRules()
	s.note("reload on trial", "%d doors, group %d, queue %d", len(r.doors), r.group, r.queue)
	s.l.WriteRules(r.String())
	_, err := s.client.Reload(context.Background(), "1m")
	lab.Must(s, err)
	s.apply(r)
	s.settled("the reload on trial")
	_, err = s.client.Confirm(context.Background())
	lab.Must(s, err)
}

func (s *soak) attack() {
	a := pick(s, lab.Attacks)
	s.note("attack", "%s, owned: %v", a.Name, s.owned)
	err := s.l.Commit(a)
	switch {
	case s.owned && !a.Spares:
		if err == nil {
			s.Fatalf("%s is not refused", a.Name)
		}
	case err != nil:
		s.Fatalf("%s: %v", a.Name, err)
	case !s.owned && !a.Harmless:
		s.healed++
	}
}

// admits reports whether a source should be admitted at a port now, and whether the model
// is sure of that.
func (s *soak) admits(door string, from netip.Addr) (in, sure bool) {
	d := s.rules.door(door)
	if d == nil {
		return true, true // no door guards it
	}
	k := s.key(d, from)
	now := time.Now()
	if now.Before(s.unsure[k]) {
		return false, false
	}
	w := s.windows[k]
	if w == nil {
		return false, true
	}
	return true, now.Before(w.lo.Add(-edge))
}

// enter connects as a source that should be admitted.
func (s *soak) enter(door string, port int, from netip.Addr) *net.TCPConn {
	s.Helper()
	conn, err := s.l.Dial(from, serverFor(from), port, lab.Deadline)
	if err != nil {
		s.Fatalf("%s should get in at %s, alive: %v: %v", from, door, s.alive, err)
	}
	d := s.rules.door(door)
	if d == nil || !s.alive {
		return conn
	}
	k := s.key(d, from)
	w := s.windows[k]
	if w.connections++; w.connections == w.max {
		delete(s.windows, k)
	}
	return conn
}

func (s *soak) session() {
	p := pick(s, soakPorts)
	for _, i := range s.random.Perm(len(soakSources)) {
		from := soakSources[i]
		if in, sure := s.admits(p.door, from); in && sure {
			s.note("session", "%s at %s", from, p.door)
			s.sessions = append(s.sessions, soakSession{p.door, from, s.enter(p.door, p.port, from)})
			if len(s.sessions) > 6 {
				s.sessions[0].conn.Close()
				s.sessions = s.sessions[1:]
			}
			return
		}
	}
	s.doNothing()
}

// waitForAnEnd waits until a window expires, if one soon does.
func (s *soak) waitForAnEnd() {
	var soonest time.Time
	for _, w := range s.windows {
		if soonest.IsZero() || w.hi.Before(soonest) {
			soonest = w.hi
		}
	}
	if left := time.Until(soonest); soonest.IsZero() || left > 4*time.Second {
		s.doNothing()
		return
	}
	s.note("wait", "until %s", soonest.Format("15:04:05.000"))
	time.Sleep(time.Until(soonest.Add(edge)))
}

// comeAndTry lets some sources connect that should be admitted, and some that should not,
// and checks a session.
func (s *soak) comeAndTry() {
	const tries, wait = 8, 2 * soakHold
	var refused sync.WaitGroup
	defer refused.Wait()
	var mu sync.Mutex
	var wrong []string
	n := 0
	type visit struct {
		port int
		door string
		from netip.Addr
	}
	var all []visit
	for _, p := range soakPorts {
		for _, from := range soakSources {
			all = append(all, visit{p.port, p.door, from})
		}
	}
	s.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, v := range all {
		in, sure := s.admits(v.door, v.from)
		switch {
		case !sure:
		case in && (s.rules.door(v.door) == nil || s.rules.door(v.door).max > 0) && s.random.IntN(4) > 0:
			// Not every window with max_connections is to be used up at once.
		case in:
			s.enter(v.door, v.port, v.from).Close()
		case n < tries:
			n++
			refused.Go(func() {
				if s.l.AdmitsWithin(v.from, serverFor(v.from), v.port, wait) {
					mu.Lock()
					defer mu.Unlock()
					wrong = append(wrong, fmt.Sprintf("%s at %s", v.from, v.door))
				}
			})
		}
	}
	refused.Wait()
	if len(wrong) > 0 {
		s.Fatalf("who should not gets in: %v, alive: %v", wrong, s.alive)
	}
	if len(s.sessions) > 0 {
		if x := pick(s, s.sessions); lab.Exchange(x.conn) != nil {
			s.Fatalf("the session of %s at %s has died", x.from, x.door)
		}
	}
}

// settled waits until the wall agrees with the model.
func (s *soak) settled(after string) {
	s.Helper()
	var disagreement string
	for end := time.Now().Add(lab.Deadline); ; time.Sleep(2 * time.Millisecond) {
		if disagreement = s.disagreement(); disagreement == "" {
			break
		}
		if time.Now().After(end) {
			s.Fatalf("after %s, %s later: %s", after, lab.Deadline, disagreement)
		}
	}
	for _, w := range s.windows {
		if w.fresh {
			w.fresh, w.hi = false, time.Now().Add(w.length)
		}
	}
}

// disagreement returns how the wall differs from the model, or an empty string.
func (s *soak) disagreement() string {
	now := time.Now()
	maps.DeleteFunc(s.windows, func(_ soakKey, w *soakWindow) bool { return now.After(w.hi.Add(edge)) })
	maps.DeleteFunc(s.attempts, func(_ soakKey, a *soakAttempt) bool { return now.Sub(a.hi) > soakKnockTimeout+edge })
	windows, err := lab.WindowsIn(s.kernel, "knockwall")
	if err != nil {
		return fmt.Sprintf("the wall cannot be read: %v", err) // the daemon may be putting it back
	}
	in := map[soakKey]time.Duration{}
	for _, w := range windows {
		in[soakKey{w.Door, w.Source.Prefix}] = w.Left
	}
	if wrong := s.compare("the kernel", in, now, time.Now()); wrong != "" || !s.alive {
		return wrong
	}

	now = time.Now()
	status, err := s.client.Status(context.Background(), wall.WindowQuery{})
	lab.Must(s, err)
	read := time.Now()
	clear(in)
	for _, w := range status.Windows {
		k := soakKey{w.Door, w.Source.Prefix}
		in[k] = time.Duration(w.LeftSeconds * float64(time.Second))
		if m := s.windows[k]; m != nil && m.connections != w.Connections && read.Before(m.lo.Add(-edge)) && !read.Before(s.unsure[k]) {
			return fmt.Sprintf("%s has admitted %d connections, and status says %d", k, m.connections, w.Connections)
		}
	}
	if wrong := s.compare("status", in, now, read); wrong != "" {
		return wrong
	}
	if status.Counters.Waiting != 0 {
		return fmt.Sprintf("%d packets wait", status.Counters.Waiting)
	}
	if status.Counters.Healed != s.healed {
		return fmt.Sprintf("%d times it should have been healed, and status says %d", s.healed, status.Counters.Healed)
	}
	if status.Counters.Lost != 0 || status.Counters.Evicted != 0 {
		return fmt.Sprintf("lost: %d, evicted: %d", status.Counters.Lost, status.Counters.Evicted)
	}
	if len(status.Doors) != len(s.rules.doors) {
		return fmt.Sprintf("%d doors, want %d", len(status.Doors), len(s.rules.doors))
	}
	for i, d := range status.Doors {
		if d.Name != s.rules.doors[i].name {
			return fmt.Sprintf("door %d is %s, want %s", i, d.Name, s.rules.doors[i].name)
		}
		if len(s.unsure) == 0 && d.Counters.Knocks != s.knocks[d.Name] {
			return fmt.Sprintf("%d knocks at %s should have been heard, and status says %d", s.knocks[d.Name], d.Name, d.Counters.Knocks)
		}
	}
	return s.compareAttempts(status.Attempts, now, read)
}

// compare compares windows, and the time that they have left, with the model's. They were
// read at some moment between before and after.
func (s *soak) compare(what string, in map[soakKey]time.Duration, before, after time.Time) string {
	for k, left := range in {
		w := s.windows[k]
		switch {
		case after.Before(s.unsure[k]):
		case w == nil:
			return fmt.Sprintf("%s has a window that should not be open: %s, %s left", what, k, left)
		case after.Add(left + drift).Before(w.lo), before.Add(left - drift).After(w.hi):
			return fmt.Sprintf("%s has the window %s with %s left, and it should have %s to %s",
				what, k, left, w.lo.Sub(after), w.hi.Sub(before))
		}
	}
	for k, w := range s.windows {
		if _, ok := in[k]; !ok && after.Before(w.lo.Add(-edge)) && !after.Before(s.unsure[k]) {
			return fmt.Sprintf("%s lacks a window: %s, which should have %s left", what, k, w.lo.Sub(after))
		}
	}
	return ""
}

// compareAttempts compares unfinished attempts with the model's.
func (s *soak) compareAttempts(in []wall.AttemptStatus, before, after time.Time) string {
	taken := map[soakKey]int{}
	for _, a := range in {
		taken[soakKey{a.Door, a.Source.Prefix}] = a.Step
	}
	for k, n := range taken {
		a := s.attempts[k]
		switch {
		case n == 0 || after.Before(s.unsure[k]):
		case a == nil || a.taken == len(s.rules.door(k.door).knocks):
			return fmt.Sprintf("an attempt is under way that should not be: %s, %d steps", k, n)
		case !a.spoiled && a.taken != n:
			return fmt.Sprintf("the attempt at %s has taken %d steps, and should have taken %d", k, n, a.taken)
		}
	}
	for k, a := range s.attempts {
		underWay := !a.spoiled && a.taken < len(s.rules.door(k.door).knocks) && after.Sub(a.lo) < soakKnockTimeout-edge
		if underWay && taken[k] != a.taken && !after.Before(s.unsure[k]) {
			return fmt.Sprintf("an attempt is not under way that should be: %s, %d steps", k, a.taken)
		}
	}
	return ""
}

// sample returns the resources that the daemon uses.
type sample struct{ memory, files, threads int }

func (s *soak) sample() sample {
	s.Helper()
	folder := fmt.Sprintf("/proc/%d", s.d.Cmd.Process.Pid)
	files, err := os.ReadDir(filepath.Join(folder, "fd"))
	lab.Must(s, err)
	status, err := os.ReadFile(filepath.Join(folder, "status"))
	lab.Must(s, err)
	x := sample{files: len(files)}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			x.memory = n << 10
		case "Threads":
			x.threads = n
		}
	}
	return x
}

// noGrowth fails the test if a daemon uses more and more. The samples go up and down, so
// the smallest one of each quarter of the time counts.
func (s *soak) noGrowth(samples []sample) {
	s.Helper()
	if len(samples) < 8 {
		s.Logf("only %d samples: too few to see any growth", len(samples))
		return
	}
	least := func(of []sample, what func(sample) int) int {
		n := what(of[0])
		for _, x := range of {
			n = min(n, what(x))
		}
		return n
	}
	quarter := len(samples) / 4
	first, last := samples[:quarter], samples[len(samples)-quarter:]
	for _, m := range []struct {
		name    string
		of      func(sample) int
		allowed int
	}{
		// The runtime keeps threads and memory that it does not need at the moment.
		{"bytes of memory", func(x sample) int { return x.memory }, 8<<20 + least(first, func(x sample) int { return x.memory })/4},
		{"files", func(x sample) int { return x.files }, 0},
		{"threads", func(x sample) int { return x.threads }, 4},
	} {
		from, to := least(first, m.of), least(last, m.of)
		s.Logf("%s: %d at first, %d at last", m.name, from, to)
		if to > from+m.allowed {
			s.Errorf("%s have grown from %d to %d", m.name, from, to)
		}
	}
}

// goroutines ends the daemon with a signal that makes a Go program print its goroutines,
// and counts them.
func (s *soak) goroutines() int {
	s.Helper()
	s.d.WaitFor("guarding ")
	s.settled("a pause")
	before := len(s.d.Log.String())
	s.d.Stop(syscall.SIGQUIT)
	n := strings.Count(s.d.Log.String()[before:], "\ngoroutine ")
	if n == 0 {
		s.Fatalf("the daemon does not print its goroutines: %s", lab.Tail(s.d.Log.String(), 1000))
	}
	return n
}

// nothingLeft fails the test if the daemons have left sockets behind, or if something has
// changed outside of the server.
func (s *soak) nothingLeft() {
	s.Helper()
	for _, name := range []string{"nfnetlink_queue", "nfnetlink_log"} {
		var left []byte
		lab.Must(s, s.l.Server.Do(func() (err error) {
			left, err = os.ReadFile("/proc/thread-self/net/netfilter/" + name)
			return err
		}))
		for line := range strings.Lines(string(left)) {
			if name == "nfnetlink_queue" || !strings.Contains(line, "NONE") {
				s.Errorf("left behind in %s: %s", name, line)
			}
		}
	}
	out, err := exec.Command(lab.NeedsProgram(s, "nft"), "list", "tables").CombinedOutput()
	if lab.Must(s, err); len(out) > 0 {
		s.Errorf("there are tables where the tests themselves run: %s", out)
	}
}
