package wall_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/rolling"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
)

// kernel is the part of netfilter that a wall uses: tables whose windows time out by the
// clock of the bubble, the packets that their rules log and queue, and the sockets that
// receive them. It behaves like the kernel with three exceptions. It has no rate limits.
// It has no connection tracking, so each packet is the first of a connection, also a
// retransmission or a FIN. And a packet that one table has admitted does not meet
// another.
type kernel struct {
	t *testing.T

	mu      sync.Mutex
	configs []*ruleset.Config // needed to decode installed tables
	tables  map[string]*table
	logs    map[uint16]*fakeLog
	queues  map[uint16]*fakeQueue
	lastID  uint32
	calls   []string // calls that change something
	// kept is where daemons keep windows; nil: nowhere. readable is how many windows of a table
	// can be read; 0: all.
	kept     *shelf
	readable int
	// generation counts the changes of tables.
	generation uint32
	batches    int // batch verdicts
	// clocks are times for which tables may have been made, in addition to the present.
	clocks    []time.Time
	listening map[packet.Port]bool // ports on which programs of this host listen
	used, due wall.Store           // of all daemons on this host, in succession
	singles   int                  // all other verdicts
	// ownership: tables have owners, which no other process can change, and a trial's
	// goes with its owner.
	ownership   bool
	watchers    []*watcher
	connections []connection
	known, room int // entries of conntrack's table, and its limit
	directions  func(each func(sessions.Session, sessions.Seen)) error
	seeded      int          // number of SeedConntrack calls
	wanted      sessionsOf   // the last argument of SeedConntrack
	ending      sessionsOf   // the last argument of EndSessions
	barred      []connection // ended connections that are not gone
	dumps       int          // number of EndedSessions and ClearMarks calls
	losing      bool         // admitted packets are lost behind the wall

	// intercept can replace the answer of any call. The kernel is not locked meanwhile,
	// so that intercept may wait, and send packets.
	intercept func(call string) error
}

// connection is an established connection.
type connection struct {
	local  packet.Port
	remote netip.Addr
}

type sessionsOf = func(sessions.Session) bool

// session is a connection to this host.
func session(port packet.Port, remote netip.Addr) sessions.Session {
	return sessions.Session{Port: port, Local: server, Here: true, Remote: remote}
}

// table is a table in the kernel.
type table struct {
	config   *effective.Config
	numbers  nft.Numbers
	listing  string
	trial    bool
	tampered bool
	own      bool                  // of the daemon that runs
	windows  map[opening]time.Time // by end
	openers  map[opening]method.Opener
	trapped  map[opening]time.Time // by end
	counts   map[string]nft.Counts
}

// opening is an element of a set. It has only the address of a source.
type opening struct {
	door string
	addr netip.Addr
}

// journey is a packet's way through the kernel.
type journey struct {
	packet packet.Packet
	data   []byte // payload of a datagram
	marked bool   // has the mark of refused packets
	passes int    // number of times it met the rules
	fate   string
	at     time.Time // when its fate was decided
	done   chan struct{}
}

// The fates of packets.
const (
	waiting  = ""
	accepted = "accepted"
	refused  = "refused" // by the rules of a closed door
	dropped  = "dropped" // by the kernel, from a queue
)

func newKernel(t *testing.T) *kernel {
	return &kernel{
		t:         t,
		tables:    map[string]*table{},
		logs:      map[uint16]*fakeLog{},
		queues:    map[uint16]*fakeQueue{},
		used:      wall.NewMemoryStore(),
		due:       wall.NewMemoryStore(),
		lastID:    1<<32 - 100, // so that every test that queues some packets wraps
		intercept: func(string) error { return nil },
	}
}

func (k *kernel) edges() wall.Edges {
	watch := k.watch
	if k.ownership {
		watch = nil
	}
	var kept wall.WindowStore
	if k.kept != nil {
		kept = k.kept
	}
	return wall.Edges{
		Kept:        kept,
		Look:        func() (effective.Host, error) { return effective.Host{Served: k.listening}, nil },
		Used:        k.used,
		Due:         k.due,
		Kernel:      k,
		ListenLog:   k.listenLog,
		ListenQueue: k.listenQueue,
		LogInUse: func(group uint16) (bool, error) {
			if err := k.begin("LogInUse %d", group); err != nil {
				return false, err
			}
			defer k.mu.Unlock()
			return k.logs[group] != nil, nil
		},
		QueueInUse: func(number uint16) (bool, error) {
			if err := k.begin("QueueInUse %d", number); err != nil {
				return false, err
			}
			defer k.mu.Unlock()
			return k.queues[number] != nil, nil
		},
		Watch:         watch,
		SeedConntrack: k.seedConntrack,
		Tracked:       k.tracked,
		Usage: func() (int, int, error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.known, k.room, nil
		},
		Directions:  k.directions,
		EndSessions: k.endSessions, EndedSessions: k.endedSessions, ClearMarks: k.clearMarks,
	}
}

func (k *kernel) tracked(p packet.Packet) (bool, error) {
	if err := k.begin("Tracked %s", p.Source); err != nil {
		return false, err
	}
	defer k.mu.Unlock()
	return !k.losing, nil
}

func (k *kernel) endedSessions() (ended []sessions.Session, err error) {
	if err := k.begin("EndedSessions"); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	k.dumps++
	for _, c := range k.barred {
		ended = append(ended, session(c.local, c.remote))
	}
	return ended, nil
}

func (k *kernel) clearMarks(wanted sessionsOf) error {
	if err := k.begin("ClearMarks"); err != nil {
		return err
	}
	defer k.mu.Unlock()
	k.dumps++
	k.barred = slices.DeleteFunc(k.barred, func(c connection) bool {
		pardoned := wanted(session(c.local, c.remote))
		if pardoned {
			k.connections = append(k.connections, c)
		}
		return pardoned
	})
	return nil
}

func (k *kernel) seedConntrack(wanted sessionsOf, _ bool) (seeded int, err error) {
	if err := k.begin("SeedConntrack"); err != nil {
		return 0, err
	}
	defer k.mu.Unlock()
	k.seeded++
	k.wanted = wanted
	return 0, nil
}

func (k *kernel) endSessions(wanted sessionsOf) (ended int, err error) {
	if err := k.begin("EndSessions"); err != nil {
		return 0, err
	}
	defer k.mu.Unlock()
	k.ending = wanted
	k.connections = slices.DeleteFunc(k.connections, func(c connection) bool {
		if wanted(session(c.local, c.remote)) {
			k.barred = append(k.barred, c)
			ended++
			return true
		}
		return false
	})
	return ended, nil
}

// watcher receives changes by other processes.
type watcher struct {
	k       *kernel
	changed func(nft.Change)
	failed  func(error)
	busy    sync.WaitGroup
}

func (k *kernel) watch(changed func(nft.Change), failed func(error)) (io.Closer, error) {
	if err := k.begin("Watch"); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	w := &watcher{k: k, changed: changed, failed: failed}
	k.watchers = append(k.watchers, w)
	return w, nil
}

// Close waits until no change is being reported, as [nft.Watcher] does.
func (w *watcher) Close() error {
	w.k.mu.Lock()
	w.k.watchers = slices.DeleteFunc(w.k.watchers, func(other *watcher) bool { return w == other })
	w.k.mu.Unlock()
	w.busy.Wait()
	return nil
}

// tell reports a change to the watchers.
func (k *kernel) tell(c nft.Change) {
	k.mu.Lock()
	watchers := slices.Clone(k.watchers)
	for _, w := range watchers {
		w.busy.Add(1)
	}
	k.mu.Unlock()
	for _, w := range watchers {
		w.changed(c)
		w.busy.Done()
	}
}

// flush deletes a table as `nft delete table` does, before the change is reported.
func (k *kernel) flush(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unhook()
	delete(k.tables, name)
	k.generation++
}

// begin begins a call: it is intercepted, or k.mu is held.
func (k *kernel) begin(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	k.mu.Lock()
	k.calls = append(k.calls, call)
	intercept := k.intercept
	k.mu.Unlock()
	if err := intercept(call); err != nil {
		return err
	}
	k.mu.Lock()
	if changesTables(call) {
		k.generation++
	}
	return nil
}

// answering makes do answer all calls that begin with a prefix.
func (k *kernel) answering(prefix string, do func() error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.intercept = func(call string) error {
		if strings.HasPrefix(call, prefix) {
			return do()
		}
		return nil
	}
}

// failing makes all calls that begin with a prefix fail.
func (k *kernel) failing(prefix string, err error) {
	k.answering(prefix, func() error { return err })
}

// intercepted calls do before each call that begins with a prefix.
func (k *kernel) intercepted(prefix string, do func()) {
	k.answering(prefix, func() error {
		do()
		return nil
	})
}

// once calls do before the next call that begins with a prefix.
func (k *kernel) once(prefix string, do func()) {
	k.intercepted(prefix, func() {
		k.failing("nothing", nil)
		do()
	})
}

func changesTables(call string) bool {
	verb, _, _ := strings.Cut(call, " ")
	return slices.Contains([]string{"Install", "Restore", "Remove", "OpenWindows", "CloseWindow"}, verb)
}

// changes returns the calls since the last time that change tables.
func (k *kernel) changes() (calls []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, call := range k.calls {
		if changesTables(call) {
			calls = append(calls, call)
		}
	}
	k.calls = nil
	return calls
}

// Install keeps the hooks, windows and counters of a table of the same kind, as
// [nft.Kernel] does.
func (k *kernel) Install(t *nft.Table, windows iter.Seq[nft.Window], replaced string) error {
	call := "Install " + t.Name
	if replaced != "" && replaced != t.Name {
		call += " for " + replaced
	}
	if err := k.begin("%s", call); err != nil {
		return err
	}
	defer k.mu.Unlock()
	return k.put(t, windows, replaced, true)
}

func (k *kernel) Restore(t *nft.Table, windows iter.Seq[nft.Window]) error {
	if err := k.begin("Restore %s", t.Name); err != nil {
		return err
	}
	defer k.mu.Unlock()
	return k.put(t, windows, "", false)
}

// put applies the whole transaction to a copy, which then replaces the tables.
func (k *kernel) put(t *nft.Table, windows iter.Seq[nft.Window], replaced string, keep bool) error {
	tables := maps.Clone(k.tables)
	next := k.understand(t)
	if next == nil {
		return fmt.Errorf("no configuration that is known makes this table:\n%s", t)
	}
	old := k.tables[t.Name]
	drops := old != nil
	var kept map[string]bool
	if keep && old != nil && !old.tampered && (!k.ownership || old.trial == t.Trial) {
		drops = false
		kept = next.keep(old)
	}
	tables[t.Name] = next
	next.own = true
	if windows == nil {
		windows = slices.Values([]nft.Window(nil))
	}
	for w := range windows {
		i := next.config.Index(w.Door)
		if kept[w.Door] || i < 0 || !next.config.Doors[i].SourcePrefix.Covers(w.Source) {
			continue // it is there, or the table does not take it
		}
		if err := next.open(w); err != nil {
			return err
		}
	}
	if replaced != "" && replaced != t.Name {
		if tables[replaced] == nil {
			return fmt.Errorf("deleting %s: %w", replaced, unix.ENOENT)
		}
		delete(tables, replaced)
		drops = true
	}
	if drops {
		k.unhook()
	}
	k.tables = tables
	return nil
}

// keep takes over the state of a table of the same name where it means the same. It returns
// the doors whose windows it has taken over.
func (t *table) keep(old *table) (kept map[string]bool) {
	kept = map[string]bool{}
	for _, d := range t.config.Doors {
		for _, former := range old.config.Doors {
			if former.Name != d.Name {
				continue
			}
			kept[d.Name] = former.SourcePrefix == d.SourcePrefix
			t.counts[d.Name] = old.counts[d.Name]
			for o, until := range old.windows {
				if o.door == d.Name && former.SourcePrefix.Of(o.addr) == d.SourcePrefix.Of(o.addr) {
					t.windows[o] = until
					t.openers[o] = old.openers[o]
				}
			}
			for o, until := range old.trapped {
				if o.door == d.Name && former.SourcePrefix.Of(o.addr) == d.SourcePrefix.Of(o.addr) {
					t.trapped[o] = until
				}
			}
		}
	}
	return kept
}

func (k *kernel) Intact(t *nft.Table) (bool, error) {
	if err := k.begin("Intact %s", t.Name); err != nil {
		return false, err
	}
	defer k.mu.Unlock()
	stands := k.tables[t.Name]
	return stands != nil && !stands.tampered && stands.listing == t.String(), nil
}

// unhook drops all queued packets, as the kernel does when any base chain of the table is
// removed (nf_queue_nf_hook_drop). Their messages stay.
func (k *kernel) unhook() {
	for _, q := range k.queues {
		q.drop()
	}
}

// understand returns the table that a listing describes.
func (k *kernel) understand(t *nft.Table) *table {
	listing := t.String()
	for _, c := range k.configs {
		for _, now := range k.moments(c) {
			c, _ := effective.Resolve(c, now, effective.Host{Served: k.listening})
			for turn := range 2 {
				if n := nft.NumbersOf(c.Wall, turn); c.Wall.Table == t.Name && nft.NewTable(c, n).String() == listing {
					next := newTable(c, n)
					next.listing, next.trial = listing, t.Trial
					return next
				}
			}
		}
	}
	return nil
}

// moments returns the times for which a table installed now may have been made. The
// configuration may resolve differently at the time of the install.
func (k *kernel) moments(c *ruleset.Config) []time.Time {
	now := time.Now()
	all := append([]time.Time{now}, k.clocks...)
	for _, d := range c.Doors {
		for _, m := range d.Methods {
			if r, ok := m.(*rolling.Rolling); ok {
				all = append(all, now.Add(-r.Step))
			}
		}
	}
	return all
}

func newTable(c *effective.Config, n nft.Numbers) *table {
	t := &table{config: c, numbers: n, windows: map[opening]time.Time{}, openers: map[opening]method.Opener{}, trapped: map[opening]time.Time{}, counts: map[string]nft.Counts{}}
	for _, d := range c.Doors {
		t.counts[d.Name] = nft.Counts{}
	}
	return t
}

func (t *table) open(w nft.Window) error {
	if _, ok := t.counts[w.Door]; !ok || w.Left <= 0 {
		return fmt.Errorf("opening %s for %s: %w", w.Door, w.Source, unix.EINVAL)
	}
	t.windows[opening{w.Door, w.Source.Addr()}] = time.Now().Add(w.Left)
	t.openers[opening{w.Door, w.Source.Addr()}] = w.Opener
	return nil
}

func (t *table) isOpen(door string, source packet.Source) bool {
	return time.Now().Before(t.windows[opening{door, source.Addr()}])
}

func (k *kernel) Remove(name string) (bool, error) {
	if err := k.begin("Remove %s", name); err != nil {
		return false, err
	}
	defer k.mu.Unlock()
	if k.tables[name] == nil {
		return false, nil
	}
	k.unhook()
	delete(k.tables, name)
	return true, nil
}

func (k *kernel) Standing(name string) (*nft.Standing, error) {
	if err := k.begin("Standing %s", name); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	if t := k.tables[name]; t != nil {
		s := t.read()
		s.Owned = k.ownership && t.own
		return s, nil
	}
	return nil, nil
}

func (k *kernel) Generation() (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.generation, nil
}

func (k *kernel) IsUnchangedSince(generation uint32, _ string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.generation == generation
}

func (k *kernel) Windows(s *nft.Standing, begin func(), take func(nft.Window)) (bool, error) {
	if err := k.begin("Windows %s", s.Table); err != nil {
		return false, err
	}
	begin()
	t := k.tables[s.Table]
	if t == nil {
		k.mu.Unlock()
		return false, unix.ENOENT
	}
	windows := t.left()
	k.mu.Unlock()
	for n, w := range windows {
		if k.readable > 0 && n == k.readable {
			return false, nil
		}
		take(w)
	}
	return true, nil
}

func (k *kernel) Others(name string) (others []*nft.Standing, err error) {
	if err := k.begin("Others %s", name); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	for _, t := range k.tables {
		if t.config.Wall.Table != name {
			others = append(others, t.read())
		}
	}
	return others, nil
}

func (t *table) read() *nft.Standing {
	return &nft.Standing{
		Table:  t.config.Wall.Table,
		Groups: []uint16{t.numbers.LogGroup},
		Queues: []uint16{t.numbers.Admitted, t.numbers.Strangers},
	}
}

// left returns the open windows.
func (t *table) left() (windows []nft.Window) {
	for _, d := range t.config.Doors {
		for o, until := range t.windows {
			if left := time.Until(until); o.door == d.Name && left > 0 {
				windows = append(windows, nft.Window{Door: d.Name, Source: d.SourcePrefix.Of(o.addr), Left: left, Opener: t.openers[o]})
			}
		}
	}
	return windows
}

func (k *kernel) OpenWindows(name string, windows []nft.Window) error {
	var text []string
	for _, w := range windows {
		text = append(text, fmt.Sprintf("%s %s", w.Door, w.Source))
	}
	if err := k.begin("OpenWindows %s", strings.Join(text, ", ")); err != nil {
		return err
	}
	defer k.mu.Unlock()
	t := k.tables[name]
	if t == nil {
		return unix.ENOENT
	}
	was := maps.Clone(t.windows)
	for _, w := range windows {
		if w.New && t.isOpen(w.Door, w.Source) {
			k.t.Errorf("it is said to be certain that %s has no window of %s, and there is one", w.Source, w.Door)
		}
		if err := t.open(w); err != nil {
			t.windows = was // a transaction is atomic
			return err
		}
	}
	return nil
}

func (k *kernel) CloseWindow(name, door string, source packet.Source) (bool, error) {
	if err := k.begin("CloseWindow %s %s", door, source); err != nil {
		return false, err
	}
	defer k.mu.Unlock()
	t := k.tables[name]
	if t == nil || !t.isOpen(door, source) {
		return false, nil
	}
	delete(t.windows, opening{door, source.Addr()})
	return true, nil
}

func (k *kernel) Describe(name string, host effective.Host) error {
	if err := k.begin("Describe %s", name); err != nil {
		return err
	}
	defer k.mu.Unlock()
	t := k.tables[name]
	if t == nil {
		return unix.ENOENT
	}
	described := *t.config
	described.Host = host
	t.config, t.listing = &described, nft.NewTable(&described, t.numbers).String()
	return nil
}

func (k *kernel) Trapped(c *effective.Config, door int, source packet.Source) (time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tables[c.Wall.Table]
	if t == nil {
		return 0, unix.ENOENT
	}
	return max(0, time.Until(t.trapped[opening{c.Doors[door].Name, source.Addr()}])), nil
}

func (k *kernel) Counts(name string) (map[string]nft.Counts, error) {
	if err := k.begin("Counts %s", name); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	if t := k.tables[name]; t != nil {
		return maps.Clone(t.counts), nil
	}
	return nil, unix.ENOENT
}

// stands returns the names of the installed tables.
func (k *kernel) stands() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.tables))
}

// left returns the remaining time of a window.
func (k *kernel) left(door string, addr netip.Addr) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tables {
		if until, ok := t.windows[opening{door, addr}]; ok {
			return max(0, time.Until(until))
		}
	}
	return 0
}

// bound returns the bound sockets.
func (k *kernel) bound() (sockets []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range slices.Sorted(maps.Keys(k.logs)) {
		sockets = append(sockets, fmt.Sprintf("group %d", n))
	}
	for _, n := range slices.Sorted(maps.Keys(k.queues)) {
		sockets = append(sockets, fmt.Sprintf("queue %d", n))
	}
	return sockets
}

// named returns the numbers that the table uses.
func (k *kernel) named() nft.Numbers {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tables {
		return t.numbers
	}
	return nft.Numbers{}
}

// log and lanes return the sockets that the table uses.
func (k *kernel) log() *fakeLog {
	n := k.named()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.logs[n.LogGroup]
}

func (k *kernel) lanes() (admitted, strangers *fakeQueue) {
	n := k.named()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.queues[n.Admitted], k.queues[n.Strangers]
}

// send sends a packet to the host.
func (k *kernel) send(p packet.Packet) *journey { return k.sendData(p, nil) }

// sendData sends a datagram with a payload to the host.
func (k *kernel) sendData(p packet.Packet, data []byte) *journey {
	k.mu.Lock()
	defer k.mu.Unlock()
	j := &journey{packet: p, data: data, done: make(chan struct{})}
	k.judge(j)
	return j
}

// judge sends a packet through the rules.
func (k *kernel) judge(j *journey) {
	if j.passes++; j.passes > 1000 {
		k.t.Errorf("%+v goes round for ever", j.packet)
		k.seal(j, dropped)
		return
	}
	for _, t := range k.tables {
		if k.judgeBy(t, j) {
			return
		}
	}
	k.seal(j, accepted)
}

// judgeBy reports whether a table's rules have kept the packet.
func (k *kernel) judgeBy(t *table, j *journey) bool {
	p := j.packet
	var guards []*effective.Door
	for i := range t.config.Doors {
		d := &t.config.Doors[i]
		if !d.GuardsAt(p.Destination, p.Destination != behind) {
			continue
		}
		flagged := p.Port.Protocol == packet.UDP || p.Flags&d.Flags.Mask == d.Flags.Value
		here := opening{d.Name, d.SourcePrefix.Of(p.Source).Addr()}
		switch {
		case flagged && packet.InRanges(p.Port, d.Traps):
			t.trapped[here] = time.Now().Add(d.Penalty)
			k.notify(t.numbers.LogGroup, d.Name+" trapped", j)
		case flagged && d.Knocks(p.Port) && !time.Now().Before(t.trapped[here]):
			k.notify(t.numbers.LogGroup, d.Name, j)
		}
		for i, m := range d.Methods {
			for _, dg := range d.States[i].Datagrams {
				if p.Port == dg.Port && dg.Takes(j.data) {
					k.notify(t.numbers.LogGroup, d.Name+" "+m.Name(), j)
				}
			}
		}
		if d.Guards(p.Port) {
			guards = append(guards, d)
		}
	}
	for _, d := range guards {
		if !j.marked && t.isOpen(d.Name, d.SourcePrefix.Of(p.Source)) {
			n := t.counts[d.Name]
			n.Admitted++
			t.counts[d.Name] = n
			return k.queue(t.numbers.Admitted, true, j)
		}
	}
	if len(guards) == 0 {
		return false
	}
	d := guards[0]
	if !j.marked && d.Closed != ruleset.Reject {
		return k.queue(t.numbers.Strangers, d.OnFailure == ruleset.FailOpen, j)
	}
	if !j.marked {
		k.notify(t.numbers.LogGroup, d.Name+" refused", j)
	}
	n := t.counts[d.Name]
	n.Refused++
	t.counts[d.Name] = n
	k.seal(j, refused)
	return true
}

// queue reports whether the packet is queued or dropped. Otherwise it goes on to the next
// rule: by bypass if no process is bound, by fail-open if the queue is full.
func (k *kernel) queue(number uint16, bypass bool, j *journey) bool {
	q := k.queues[number]
	if q == nil || len(q.pending) >= int(q.config.Length) {
		if q == nil && bypass || q != nil && q.config.FailOpen {
			return false
		}
		k.seal(j, dropped)
		return true
	}
	k.lastID++
	id := k.lastID
	q.pending = append(q.pending, queued{id, j})
	if j.packet.Port.Protocol == 0 {
		q.post(func() { q.handler.Unreadable(id) })
	} else {
		q.post(func() { q.handler.Queued(id, j.packet) })
	}
	return true
}

func (k *kernel) notify(group uint16, prefix string, j *journey) {
	if l := k.logs[group]; l != nil {
		p, data := j.packet, j.data
		l.post(func() { l.handler.Logged([]byte(prefix), p, data) })
	}
}

func (k *kernel) seal(j *journey, fate string) {
	j.fate, j.at = fate, time.Now()
	close(j.done)
}

// fate returns the fate of a packet so far.
func (k *kernel) fate(j *journey) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return j.fate
}

// rounds returns how often a packet has met the rules so far.
func (k *kernel) rounds(j *journey) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return j.passes
}

// socket passes posted messages to a handler, in order and one at a time. Everything but its
// channels and handling is guarded by the mu of the kernel.
type socket struct {
	k        *kernel
	handling sync.Mutex // held while a message is taken and handled

	inbox   []func() // unread messages
	held    bool     // reading is blocked
	few     int      // except for this many
	starved bool     // the goroutine that reads gets no CPU
	wake    chan struct{}
	closed  chan struct{}
	done    chan struct{}
	failed  func(error) // the handler's Failed
	read    uint64      // messages handled
	begun   uint64
}

func newSocket(k *kernel, failed func(error)) *socket {
	s := &socket{k: k, failed: failed, wake: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{})}
	go s.readAll()
	return s
}

func (s *socket) readAll() {
	defer close(s.done)
	for {
		select {
		case <-s.closed:
			s.failed(os.ErrClosed) // as nflog and nfqueue may report if they are closed during a read
			return
		case <-s.wake:
		}
		if !s.isStarved() {
			s.readNow()
		}
	}
}

// starve takes the CPU from the goroutine that reads.
func (s *socket) starve() {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.starved = true
}

func (s *socket) isStarved() bool {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return s.starved
}

// readNow handles the messages that wait.
func (s *socket) readNow() {
	for s.readOne() {
	}
}

func (s *socket) readOne() bool {
	s.handling.Lock()
	defer s.handling.Unlock()
	handle := s.next()
	if handle == nil {
		return false
	}
	handle()
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.read++
	return true
}

// Progress returns the progress of the socket.
func (s *socket) Progress() progress.Progress {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return progress.Progress{Done: s.read, Idle: s.begun == s.read && len(s.inbox) == 0}
}

func (s *socket) next() (handle func()) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if len(s.inbox) == 0 || s.held && s.few == 0 {
		return nil
	}
	s.few = max(0, s.few-1)
	handle, s.inbox = s.inbox[0], s.inbox[1:]
	s.begun++
	return handle
}

// post is called with mu of the kernel held.
func (s *socket) post(handle func()) {
	s.inbox = append(s.inbox, handle)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// do posts something other than a packet.
func (s *socket) do(handle func()) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.post(handle)
}

// hold stops the daemon from reading, as if it were busy; resume lets it read again.
func (s *socket) hold() {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.held = true
}

// readFew lets the daemon read n messages while it is stopped.
func (s *socket) readFew(n int) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.few = n
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *socket) resume() {
	s.k.mu.Lock()
	s.held = false
	s.k.mu.Unlock()
	s.do(func() {})
}

// close waits for the handler after unbinding, as go-nflog and go-nfqueue do.
func (s *socket) close(unbind func()) error {
	s.k.mu.Lock()
	select {
	case <-s.closed:
		s.k.mu.Unlock()
		return os.ErrClosed
	default:
	}
	close(s.closed)
	s.inbox = nil
	unbind()
	s.k.mu.Unlock()
	<-s.done
	return nil
}

// fakeLog is an NFLOG group.
type fakeLog struct {
	*socket
	handler nflog.Handler
}

func (k *kernel) listenLog(group uint16, h nflog.Handler) (wall.Log, error) {
	if err := k.begin("ListenLog %d", group); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	if k.logs[group] != nil {
		return nil, unix.EBUSY
	}
	l := &fakeLog{newSocket(k, h.Failed), h}
	k.logs[group] = l
	for _, t := range k.tables {
		if t.numbers.LogGroup == group {
			k.t.Errorf("group %d is bound while rules name it", group)
		}
	}
	return l, nil
}

func (l *fakeLog) Drained() bool {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	return len(l.inbox) == 0
}

func (l *fakeLog) Close() error {
	return l.close(func() {
		maps.DeleteFunc(l.k.logs, func(_ uint16, bound *fakeLog) bool { return bound == l })
	})
}

// fakeQueue is an NFQUEUE.
type fakeQueue struct {
	*socket
	config  nfqueue.Config
	handler nfqueue.Handler
	pending []queued // without a verdict, in the order of ids
	lost    uint64
}

type queued struct {
	id uint32
	*journey
}

func (k *kernel) listenQueue(c nfqueue.Config, h nfqueue.Handler) (wall.Queue, error) {
	if err := k.begin("ListenQueue %d", c.Number); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	if k.queues[c.Number] != nil {
		return nil, unix.EBUSY
	}
	q := &fakeQueue{socket: newSocket(k, h.Failed), config: c, handler: h}
	k.queues[c.Number] = q
	for _, t := range k.tables {
		if t.numbers.Admitted == c.Number || t.numbers.Strangers == c.Number {
			k.t.Errorf("queue %d is bound while rules name it", c.Number)
		}
	}
	return q, nil
}

func (q *fakeQueue) Close() error {
	return q.close(func() {
		maps.DeleteFunc(q.k.queues, func(_ uint16, bound *fakeQueue) bool { return bound == q })
		q.drop()
	})
}

func (q *fakeQueue) drop() {
	for _, p := range q.pending {
		q.k.seal(p.journey, dropped)
	}
	q.pending = nil
}

func (q *fakeQueue) Accept(id uint32) error {
	return q.verdict(id, func(j *journey) { q.k.seal(j, accepted) })
}

func (q *fakeQueue) Repeat(id uint32) error {
	return q.verdict(id, q.k.judge)
}

func (q *fakeQueue) Refuse(id uint32) error {
	return q.verdict(id, q.refuse)
}

func (q *fakeQueue) refuse(j *journey) {
	j.marked = j.marked || q.config.RefusedMark == nft.RefusedMark
	q.k.judge(j)
}

func (q *fakeQueue) verdict(id uint32, then func(*journey)) error {
	q.k.mu.Lock()
	defer q.k.mu.Unlock()
	q.k.singles++
	select {
	case <-q.closed:
		return os.ErrClosed
	default:
	}
	for i, p := range q.pending {
		if p.id == id {
			q.pending = slices.Delete(q.pending, i, i+1)
			then(p.journey)
			break
		}
	}
	return nil // the kernel reports ENOENT asynchronously, and nfqueue ignores it
}

func (q *fakeQueue) RefuseUpTo(id uint32) error { return q.batch(id, q.refuse) }
func (q *fakeQueue) RepeatUpTo(id uint32) error { return q.batch(id, q.k.judge) }

// batch compares ids as nfqnl_recv_verdict_batch does.
func (q *fakeQueue) batch(id uint32, then func(*journey)) error {
	q.k.mu.Lock()
	defer q.k.mu.Unlock()
	q.k.batches++
	select {
	case <-q.closed:
		return os.ErrClosed
	default:
	}
	n := slices.IndexFunc(q.pending, func(p queued) bool { return int32(p.id-id) > 0 })
	if n < 0 {
		n = len(q.pending)
	}
	judged := slices.Clone(q.pending[:n])
	q.pending = slices.Delete(q.pending, 0, n)
	for _, p := range judged {
		then(p.journey)
	}
	return nil
}

func (q *fakeQueue) ReadNow() { q.readNow() }

func (q *fakeQueue) Stats() (nfqueue.Stats, error) {
	q.k.mu.Lock()
	defer q.k.mu.Unlock()
	select {
	case <-q.closed:
		return nfqueue.Stats{}, os.ErrClosed
	default:
	}
	return nfqueue.Stats{Waiting: len(q.pending), Lost: q.lost}, nil
}

// lose counts packets as lost because the queue is full.
func (q *fakeQueue) lose(n uint64) {
	q.k.mu.Lock()
	defer q.k.mu.Unlock()
	q.lost += n
}

// trail collects events.
type trail struct {
	mu     sync.Mutex
	events []audit.Event
	check  func(audit.Event) // may be nil
}

func (t *trail) Record(e audit.Event) {
	noteCode(e)
	t.mu.Lock()
	t.events = append(t.events, e)
	check := t.check
	t.mu.Unlock()
	if check != nil {
		check(e)
	}
}

func (t *trail) watch(check func(audit.Event)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.check = check
}

// take returns short forms of the events since the last call.
func (t *trail) take(kinds ...audit.Kind) (events []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.events {
		if len(kinds) > 0 && !slices.Contains(kinds, e.Kind) {
			continue
		}
		s := string(e.Kind)
		if e.Door != "" {
			s += " " + e.Door
		}
		if e.Source.IsValid() {
			s += " " + e.Source.String()
		}
		if e.Steps != 0 {
			s += fmt.Sprintf(" %d/%d", e.Step, e.Steps)
		}
		if e.Count > 1 {
			s += fmt.Sprintf(" ×%d", e.Count)
		}
		if e.Reason != "" {
			s += ": " + e.Reason
		}
		events = append(events, s)
	}
	t.events = nil
	return events
}

// past returns the events since the last call.
func (t *trail) past() []audit.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.events)
}

// expect compares the events of some kinds, or of all, and clears them.
func (t *trail) expect(tb testing.TB, kinds []audit.Kind, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, t.take(kinds...)); diff != "" {
		tb.Errorf("the audit trail (-want +got):\n%s", diff)
	}
}

// host is a kernel with a wall.
type host struct {
	*kernel
	wall  *wall.Wall
	trail *trail
	stop  func()     // makes Run end
	ended chan error // what Run returned
}

const (
	hold   = 200 * time.Millisecond
	window = 30 * time.Second
)

var (
	alice  = netip.MustParseAddr("192.0.2.1")
	bob    = netip.MustParseAddr("192.0.2.2")
	carol  = netip.MustParseAddr("192.0.2.3")
	server = netip.MustParseAddr("203.0.113.7")
	behind = netip.MustParseAddr("10.0.0.7") // another host, to which this one forwards
)

func tcp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }

func single(addr netip.Addr) packet.Source {
	return packet.SourcePrefix{IPv4: 32, IPv6: 128}.Of(addr)
}

// config returns the configuration of a wall with the given doors.
func config(doors ...ruleset.Door) *ruleset.Config {
	return &ruleset.Config{
		Wall: ruleset.Wall{
			Table: "knockwall", LogGroup: 7100, Queue: 7100, OnStop: ruleset.Keep,
			Hold: hold, Reorder: 20 * time.Millisecond, MaxSources: 1024, MaxWindows: 65536,
		},
		Doors: doors,
	}
}

// door returns a door for one TCP port.
func door(name string, port uint16, knocks ...uint16) ruleset.Door {
	d := ruleset.Door{
		Name:            name,
		Ports:           []packet.PortRange{{First: port, Last: port, Protocol: packet.TCP}},
		SequenceTimeout: 5 * time.Second,
		Window:          window,
		Flags:           ruleset.FlagMatch{Mask: packet.SYN | packet.ACK, Value: packet.SYN},
		Closed:          ruleset.Drop,
		OnFailure:       ruleset.FailClosed,
		SourcePrefix:    packet.SourcePrefix{IPv4: 32, IPv6: 128},
	}
	var steps []packet.Port
	for _, n := range knocks {
		steps = append(steps, tcp(n))
	}
	if len(steps) > 0 {
		d = knockedBy(d, steps)
	}
	return d
}

// knockedBy returns a door like d that each of the sequences opens.
func knockedBy(d ruleset.Door, sequences ...[]packet.Port) ruleset.Door {
	d.Methods = []method.Method{&fixed.Sequence{Sequences: sequences}}
	return d
}

// withKnock returns a door like d with one more knock.
func withKnock(d ruleset.Door, p packet.Port) ruleset.Door {
	return knockedBy(d, append(sequenceOf(d), p))
}

// sequenceOf returns the knocks of a door with a sequence.
func sequenceOf(d ruleset.Door) []packet.Port {
	return slices.Clone(d.Methods[0].(*fixed.Sequence).Sequences[0])
}

// methodOf returns the method of type M of a door.
func methodOf[M method.Method](d ruleset.Door) M {
	for _, m := range d.Methods {
		if m, ok := m.(M); ok {
			return m
		}
	}
	panic("the door has no such method")
}

func sshDoor() ruleset.Door { return door("ssh", 22, 7000, 8000, 9000) }

// limited returns a door like d with max_connections.
func limited(d ruleset.Door, connections int) ruleset.Door {
	d.MaxConnections = connections
	return d
}

// retransmitted is the time after which a lost packet is sent again.
const retransmitted = time.Second

// newHost returns a host whose wall is not installed.
func newHost(t *testing.T) *host { return newKernel(t).newHost() }

func (k *kernel) newHost() *host {
	h := &host{kernel: k, trail: &trail{}, ended: make(chan error, 1)}
	h.wall = wall.New(h.edges(), h.trail)
	return h
}

// knows adds a configuration whose table the kernel has to decode.
func (h *host) knows(c *ruleset.Config) *ruleset.Config {
	h.kernel.mu.Lock()
	defer h.kernel.mu.Unlock()
	h.configs = append(h.configs, c)
	return c
}

// resolved returns the effective configuration of now, on a host where no program
// listens.
func resolved(c *ruleset.Config) *effective.Config {
	now, _ := effective.Resolve(c, time.Now(), effective.Host{})
	return now
}

// raise installs the wall.
func (h *host) raise(c *ruleset.Config) error {
	return h.wall.Apply(h.knows(c))
}

// found installs a table as another daemon would have left it.
func (h *host) found(c *ruleset.Config, turn int, windows ...nft.Window) {
	h.t.Helper()
	if err := h.Install(nft.NewTable(resolved(h.knows(c)), nft.NumbersOf(&c.Wall, turn)), slices.Values(windows), ""); err != nil {
		h.t.Fatal(err)
	}
	h.tables[c.Wall.Table].own = false
	h.changes()
}

// run runs the wall until the test ends or stops it.
func (h *host) run() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { h.ended <- h.wall.Run(ctx) }()
	stopped := false
	h.stop = func() { stopped = true; cancel() }
	h.t.Cleanup(func() {
		if stopped {
			return
		}
		cancel()
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		if bound := h.bound(); bound != nil {
			h.t.Errorf("after Run, still bound: %v", bound)
		}
		if n := len(h.watchers); n != 0 {
			h.t.Errorf("after Run, %d watch the tables", n)
		}
	})
	synctest.Wait()
}

// guarded runs f in a bubble, with a host behind a running wall.
func guarded(t *testing.T, c *ruleset.Config, f func(h *host)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		if err := h.raise(c); err != nil {
			t.Fatal(err)
		}
		h.run()
		h.trail.take()
		h.changes()
		f(h)
	})
}

// expect checks the fate of a packet when all goroutines are blocked.
func (h *host) expect(what string, j *journey, want string) {
	h.t.Helper()
	synctest.Wait()
	if got := h.fate(j); got != want {
		h.t.Errorf("%s: the packet is %q, want %q", what, got, want)
	}
}

func (h *host) status() wall.Status {
	h.t.Helper()
	s, err := h.wall.Status(wall.WindowQuery{})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// client knocks and connects. Every connection is a new one.
type client struct {
	*host
	addr        netip.Addr
	connections int
}

func (h *host) client(addr netip.Addr) *client { return &client{host: h, addr: addr} }

// dial sends the first packet of a connection.
func (c *client) dial(port uint16) *journey { return c.dialTo(server, port) }

func (c *client) dialTo(to netip.Addr, port uint16) *journey {
	c.connections++
	return c.send(packet.Packet{
		Source: c.addr, Destination: to, SourcePort: uint16(40000 + c.connections), Port: tcp(port),
		Sequence: uint32(1000 * c.connections), Flags: packet.SYN,
	})
}

// press knocks at ports of any protocol, in order.
func (c *client) press(knocks []packet.Port) {
	for _, k := range knocks {
		if k.Protocol == packet.TCP {
			c.dial(k.Number)
		} else {
			c.datagram(k, nil)
		}
	}
}

// datagram sends a datagram from a new source port.
func (c *client) datagram(to packet.Port, data []byte) *journey {
	c.connections++
	return c.sendData(packet.Packet{
		Source: c.addr, Destination: server, SourcePort: uint16(40000 + c.connections), Port: to,
	}, data)
}

// knock dials ports in order.
func (c *client) knock(ports ...uint16) {
	for _, port := range ports {
		c.dial(port)
	}
}
