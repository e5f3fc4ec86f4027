package lease

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

// The model is a group of hosts with a network that loses, delays, repeats and reorders what
// they tell, clocks that are minutes apart, and companions that forget all they know. Each
// host has a daemon as simple as one can be. What it knows without a network is the history
// of each window: which opening knew of which closing.

const (
	doorWindow = 30 * time.Second
	delayMost  = 40 * time.Millisecond
)

// opening is one opening of a window at a host.
type opening struct {
	id   int
	key  Key
	host int
	at   time.Duration
	end  time.Duration
	dead bool // a host that had heard of it has closed the window
}

// endAt returns when the window ends at a host: at others than its own it is not open for
// longer than windows of the door there.
func (o *opening) endAt(host int) time.Duration {
	if host == o.host {
		return o.end
	}
	return min(o.end, o.at+doorWindow)
}

// daemonWindow is a window of a daemon.
type daemonWindow struct {
	end, granted time.Duration
	origin       string
	name         string // of who has opened it: the number of the opening
}

// packetOf is news on its way.
type packetOf struct {
	from, to int
	at       time.Duration
	news     News
}

type modelHost struct {
	name    string
	offset  time.Duration // of its clock
	member  *Member
	windows map[Key]*daemonWindow
	closed  map[Key]time.Duration // when its daemon has closed a window last, by itself
	shares  map[string]bool
	group   int          // of the partition
	heard   map[int]bool // the openings that it may know of
}

type model struct {
	t       testing.TB
	random  *rand.Rand
	now     time.Duration
	hosts   []*modelHost
	mail    []packetOf
	history []*opening
	skew    time.Duration // between any two clocks, at most
	log     []string
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newModel(t testing.TB, seed uint64, hosts int) *model {
	m := &model{t: t, random: rand.New(rand.NewPCG(seed, 1)), skew: time.Duration(seed%2) * 10 * time.Minute}
	for i := range hosts {
		h := &modelHost{name: fmt.Sprintf("host%d", i), windows: map[Key]*daemonWindow{}, closed: map[Key]time.Duration{},
			heard: map[int]bool{}, offset: time.Duration(m.random.Int64N(int64(m.skew) + 1)),
			shares: map[string]bool{"ssh": true, "web": true}}
		m.hosts = append(m.hosts, h)
		m.start(h)
	}
	return m
}

func (m *model) note(format string, a ...any) {
	m.log = append(m.log, fmt.Sprintf("%9.3fs ", m.now.Seconds())+fmt.Sprintf(format, a...))
}

// start starts the companion of a host, which knows nothing.
func (m *model) start(h *modelHost) {
	h.member = NewMember(h.name, func() time.Time { return epoch.Add(m.now + h.offset) })
	m.readState(h)
	m.ask(h)
}

// readState lets a companion read the state of its daemon.
func (m *model) readState(h *modelHost) {
	doors := map[string]time.Duration{}
	for d := range h.shares {
		doors[d] = doorWindow
	}
	h.member.StateBegins()
	h.member.SetDoors(doors, 1000)
	for k, at := range h.closed {
		m.send(h, h.member.Closed(k, m.now-at, false, false))
	}
	for k, w := range h.windows {
		h.member.Opened(k, w.end-m.now, m.now-w.granted, Person{Name: w.name}, w.origin != "")
	}
	m.send(h, h.member.StateIsKnown())
	m.apply(h)
}

// send sends news to all hosts.
func (m *model) send(h *modelHost, n News) {
	if n.IsEmpty() {
		return
	}
	for to := range m.hosts {
		m.sendTo(h, to, n)
	}
}

func (m *model) sendTo(h *modelHost, to int, n News) {
	from := slices.Index(m.hosts, h)
	if from == to || m.hosts[to].group != h.group {
		return
	}
	for range 1 + m.random.IntN(2) { // some of it comes twice
		m.mail = append(m.mail, packetOf{from, to, m.now + time.Duration(m.random.Int64N(int64(delayMost))), n})
	}
}

// ask makes all hosts that hear it tell what they know.
func (m *model) ask(h *modelHost) {
	to := slices.Index(m.hosts, h)
	for _, other := range m.hosts {
		if other != h && other.member != nil {
			m.sendTo(other, to, other.member.All())
		}
	}
}

// apply does what a companion tells its daemon.
func (m *model) apply(h *modelHost) {
	for {
		due := h.member.Due(1 + m.random.IntN(3))
		if len(due) == 0 {
			return
		}
		for _, a := range due {
			w := h.windows[a.Key]
			switch {
			case !h.shares[a.Door]:
			case a.Close && w != nil:
				delete(h.windows, a.Key)
				m.note("%s closes %v as %s tells", h.name, a.Key, a.Origin)
				h.member.Closed(a.Key, 0, true, false)
			case !a.Close && a.Left > 0:
				if a.Left > doorWindow {
					m.fail("%s is to open %v for %s", h.name, a.Key, a.Left)
				}
				end := m.now + a.Left
				if w == nil || w.end < end {
					h.windows[a.Key] = &daemonWindow{end: end, granted: m.now, origin: a.Origin, name: a.Person.Name}
					m.note("%s opens %v for %s as %s tells", h.name, a.Key, a.Left, a.Origin)
					h.member.Opened(a.Key, end-m.now, 0, a.Person, true)
				}
			}
		}
	}
}

// knock opens a window at a host.
func (m *model) knock(h *modelHost, k Key, length time.Duration) {
	if !h.shares[k.Door] {
		return
	}
	i := slices.Index(m.hosts, h)
	o := &opening{id: len(m.history), key: k, host: i, at: m.now, end: m.now + length}
	for _, other := range m.history { // a host has one lease
		if other.key == k && other.host == i {
			other.dead = true
		}
	}
	m.history = append(m.history, o)
	h.heard[o.id] = true
	h.windows[k] = &daemonWindow{end: o.end, granted: m.now, name: strconv.Itoa(o.id)}
	m.note("%s opens %v for %s", h.name, k, length)
	m.send(h, h.member.Opened(k, length, 0, Person{Name: strconv.Itoa(o.id)}, false))
	m.apply(h)
}

// closeAt closes a window at a host by hand.
func (m *model) closeAt(h *modelHost, k Key) {
	if h.windows[k] == nil {
		return
	}
	delete(h.windows, k)
	h.closed[k] = m.now
	for _, o := range m.history {
		if o.key == k && h.heard[o.id] {
			o.dead = true
		}
	}
	m.note("%s closes %v", h.name, k)
	m.send(h, h.member.Closed(k, 0, false, false))
	m.apply(h)
}

// run lets time pass.
func (m *model) run(d time.Duration) {
	until := m.now + d
	for {
		next, at := until, -1
		for i, p := range m.mail {
			if p.at <= next {
				next, at = p.at, i
			}
		}
		m.now = next
		for _, h := range m.hosts {
			for k, w := range h.windows {
				if w.end <= m.now {
					delete(h.windows, k)
					h.member.Expired(k)
				}
			}
		}
		if at < 0 {
			return
		}
		p := m.mail[at]
		m.mail = slices.Delete(m.mail, at, at+1)
		to, from := m.hosts[p.to], m.hosts[p.from]
		if to.group != from.group {
			continue // lost
		}
		for _, s := range p.news.Statements {
			if id, err := strconv.Atoi(s.Name); err == nil {
				to.heard[id] = true
			}
		}
		wrongly, _, _ := to.member.Told(from.name, &p.news)
		m.send(to, wrongly)
		m.apply(to)
	}
}

func (m *model) fail(format string, a ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\n%s", fmt.Sprintf(format, a...), joined(m.log))
}

func joined(lines []string) (s string) {
	for _, l := range lines[max(0, len(lines)-60):] {
		s += l + "\n"
	}
	return s
}

// check checks that all hosts have the same windows, that somebody has opened each of them
// whom nobody has closed since, and that none is missing.
func (m *model) check() {
	m.t.Helper()
	// Delays add up: one for each host that may have passed it on.
	tolerance := time.Duration(len(m.hosts)+1)*delayMost + slack
	keys := map[Key]bool{}
	for _, o := range m.history {
		keys[o.key] = true
	}
	for k := range keys {
		var ends []time.Duration
		for _, h := range m.hosts {
			if w := h.windows[k]; w != nil && w.end > m.now+tolerance {
				ends = append(ends, w.end)
			}
		}
		soon := slices.ContainsFunc(m.hosts, func(h *modelHost) bool { w := h.windows[k]; return w != nil && w.end <= m.now+2*tolerance })
		// A window that is longer than those of the door is over earlier at the other hosts.
		long := slices.ContainsFunc(m.history, func(o *opening) bool {
			return o.key == k && !o.dead && o.end > m.now && o.end-o.at > doorWindow
		})
		if len(ends) != 0 && len(ends) != len(m.hosts) && !soon && !long {
			m.fail("%v is open at %d of %d hosts", k, len(ends), len(m.hosts))
		}
		if len(ends) == 0 {
			continue
		}
		for i, h := range m.hosts {
			last := time.Duration(0)
			for _, o := range m.history {
				if o.key == k && !o.dead {
					last = max(last, o.endAt(i))
				}
			}
			if w := h.windows[k]; w != nil && w.end > max(last, m.now)+tolerance {
				m.fail("%v is open at %s until %s, and nobody has opened it beyond %s", k, h.name, w.end, last)
			}
		}
		if slices.Max(ends)-slices.Min(ends) > tolerance && !long {
			m.fail("the hosts close %v at %v", k, ends)
		}
	}
	// An opening that no closing is newer than by any clock is open everywhere.
	for _, o := range m.history {
		if o.dead {
			continue
		}
		closedSince := slices.ContainsFunc(m.hosts, func(h *modelHost) bool {
			at, ok := h.closed[o.key]
			return ok && at+m.skew+doubt+delayMost > o.at
		})
		if closedSince {
			continue
		}
		for i, h := range m.hosts {
			end := o.endAt(i)
			if w := h.windows[o.key]; end >= m.now+2*tolerance && (w == nil || w.end < end-tolerance) {
				m.fail("%s does not have %v until %s, which %s opened", h.name, o.key, end, m.hosts[o.host].name)
			}
		}
	}
}

// step does something at random.
func (m *model) step() {
	h := m.hosts[m.random.IntN(len(m.hosts))]
	k := Key{[]string{"ssh", "web"}[m.random.IntN(2)], fmt.Sprintf("192.0.2.%d", m.random.IntN(6))}
	switch n := m.random.IntN(20); {
	case n < 9:
		m.knock(h, k, []time.Duration{doorWindow, doorWindow, 4 * doorWindow}[m.random.IntN(3)])
	case n < 12:
		m.closeAt(h, k)
	case n < 13:
		// Until the others have told a companion what it has forgotten, it orders by clocks.
		if m.skew > 0 {
			m.heal()
			m.run(2 * delayMost)
			defer m.run(2 * delayMost)
		}
		m.note("%s: its companion restarts", h.name)
		for id := range h.heard { // until the others tell it again, it orders by clocks
			if m.history[id].host != slices.Index(m.hosts, h) {
				delete(h.heard, id)
			}
		}
		m.start(h)
	case n < 15: // a partition
		for _, h := range m.hosts {
			h.group = m.random.IntN(2)
		}
		m.note("the network is divided")
	case n < 16:
		m.heal()
	case n < 17: // its follower was too slow
		m.readState(h)
	default:
		m.run(time.Duration(m.random.Int64N(int64(8 * time.Second))))
	}
	m.run(time.Duration(m.random.Int64N(int64(delayMost / 2))))
}

// heal ends all partitions. Each host hears that it has missed something, and asks.
func (m *model) heal() {
	for _, h := range m.hosts {
		h.group = 0
	}
	m.note("the network is whole")
	for _, h := range m.hosts {
		m.ask(h)
	}
}

func runModel(t testing.TB, seed uint64, hosts, steps int) {
	m := newModel(t, seed, hosts)
	for n := range steps {
		m.step()
		if n%25 == 24 {
			m.heal()
			m.run(4 * delayMost)
			m.heal() // what was on its way while others asked
			m.run(4 * delayMost)
			m.check()
		}
	}
}

func TestHostsAgreeWhateverTheNetworkDoes(t *testing.T) {
	groups := 400
	if testing.Short() {
		groups = 60
	}
	for seed := range uint64(groups) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed, 2+int(seed%4), 200) })
	}
}
