package lease

import (
	"time"
	"unique"

	"github.com/knockwall/knockwall/internal/method"
)

// Member is one host of a group: its table, and what its daemon has. It is not safe for
// concurrent use.
type Member struct {
	name  string
	now   func() time.Time
	doors map[string]time.Duration // the shared doors, with their windows

	table   *table
	used    map[usedKey]knock
	usedBy  map[string]int // knocks in used, by the host that has told of them
	local   map[Key]window // that the daemon has
	reading bool           // the daemon's state is not complete
	closed  map[Key]int64  // the stamps of the daemon's own last closings, in a state
	due     map[Key]bool   // to be compared with the daemon's window
	learn   map[usedKey]bool
	expired time.Time // when the table was last cleaned
}

type window struct {
	begun, end moment
	person     unique.Handle[Person]
	told       bool // by another host
}

// Used is that a signed knock was used.
type Used struct {
	Method string    `json:"method"`
	Time   time.Time `json:"time"` // in the knock
	Person
}

type usedKey struct{ method, key string }

// knock is the last used knock of a key.
type knock struct {
	Used
	from string // who told of it
}

// News is what a host tells the others.
type News struct {
	Statements []Statement `json:"windows,omitempty"`
	Used       []Used      `json:"used,omitempty"`
}

// IsEmpty reports whether there is no news.
func (n *News) IsEmpty() bool { return len(n.Statements)+len(n.Used) == 0 }

// Action is what the daemon is to do.
type Action struct {
	Key
	Origin string // who told of it
	Close  bool
	Left   time.Duration // if it opens
	Person Person
	Used   *Used // if it only learns of a knock
}

// slack is by how much a lease may end later than the daemon's window without a new opening:
// several delays.
const slack = 500 * time.Millisecond

// doubt is how much older a window of a state may be than it looks. If it was closed at
// another host in that time, it stays closed.
const doubt = 5 * time.Millisecond

// shortest is the shortest time that a window is opened for.
const shortest = 100 * time.Millisecond

// NewMember returns the member of that name. now is the time of the host's clock, with the
// monotonic time.
func NewMember(name string, now func() time.Time) *Member {
	return &Member{name: name, now: now, table: newTable(name, now()), reading: true, used: map[usedKey]knock{}, usedBy: map[string]int{},
		local: map[Key]window{}, closed: map[Key]int64{}, due: map[Key]bool{}, learn: map[usedKey]bool{}}
}

// SetDoors sets the doors that this host shares, with the length of their windows, and how
// many windows they can have together. One other host can tell of that many, and all of twice
// as many, as windows that have ended are remembered for some time; but of no more than
// MaxEntries. Call it when a state begins, because other rules may be in force.
func (m *Member) SetDoors(doors map[string]time.Duration, windows int) {
	m.doors, m.table.limit = doors, min(2*min(windows, MaxEntries), MaxEntries)
}

// Shares reports whether the host shares a door.
func (m *Member) Shares(door string) bool { return m.doors[door] > 0 }

// StateBegins forgets the windows of the daemon.
func (m *Member) StateBegins() {
	m.reading = true
	clear(m.local)
	clear(m.closed)
}

// StateIsKnown compares the windows of the daemon with the table, and returns what the other
// hosts may not know.
func (m *Member) StateIsKnown() (n News) {
	m.reading = false
	for k, w := range m.local {
		if w.told {
			continue
		}
		if m.isKnown(k, w) {
			continue
		}
		now := m.table.at(m.now())
		n.add(m.opened(k, w.end.sub(now), now.sub(w.begun)+doubt, w.person.Value()))
	}
	clear(m.closed)
	m.Compare()
	return n
}

// isKnown reports whether the lease of this host is known, by whichever host. From then on
// it counts as told by this host itself.
func (m *Member) isKnown(k Key, w window) bool {
	own := m.table.own(k)
	if own == nil || own.end.sub(w.end).Abs() >= slack {
		return false
	}
	own.from = m.table.name
	return true
}

// Compare compares everything with the daemon, as it may not have done what it was to do.
func (m *Member) Compare() {
	for k := range m.table.entries {
		m.due[k] = true
	}
	for k, u := range m.used {
		if u.from != m.name {
			m.learn[k] = true
		}
	}
}

// CompareWindow compares one window with the daemon's.
func (m *Member) CompareWindow(k Key) { m.due[k] = true }

// Opened takes that the daemon has opened or refreshed a window, age ago. told says that
// another host has caused it.
func (m *Member) Opened(k Key, left, age time.Duration, p Person, told bool) (n News) {
	if !m.Shares(k.Door) {
		return n
	}
	now := m.table.at(m.now())
	k.Door = unique.Make(k.Door).Value()
	m.local[k] = window{begun: now.add(-age), end: now.add(left), person: unique.Make(p), told: told}
	if !m.reading && !told {
		n.add(m.opened(k, left, age, p))
	}
	return n
}

func (m *Member) opened(k Key, left, age time.Duration, p Person) (s Statement, ok bool) {
	now := m.now()
	s = Statement{Door: k.Door, Source: k.Source, Host: m.name, Stamp: max(m.table.stamp(k, now, age), m.closed[k]+1), Left: left.Milliseconds(), Age: age.Milliseconds(), Person: p}
	_, err := m.table.merge(m.name, &s, now, m.doors[k.Door])
	m.due[k] = true
	return s, err == nil
}

// Closed takes that the daemon has closed a window, age ago. told says that another host has
// caused it, and quietly that it concerns no other host.
func (m *Member) Closed(k Key, age time.Duration, told, quietly bool) (n News) {
	delete(m.local, k)
	if told {
		m.due[k] = true // another lease may be the window now
	}
	if told || quietly || !m.Shares(k.Door) {
		return n
	}
	now := m.now()
	s := Statement{Door: k.Door, Source: k.Source, Host: m.name, Stamp: m.table.stamp(k, now, age), Closed: true}
	if m.reading {
		if e := m.table.entries[k]; e != nil && e.by == m.table.name && s.Stamp <= e.closed+doubt.Milliseconds() {
			return n // it is known; a state has its time to the millisecond
		}
		m.closed[k] = s.Stamp
	}
	changed, err := m.table.merge(m.name, &s, now, m.doors[k.Door])
	if m.reading && !changed {
		return n
	}
	m.due[k] = true
	n.add(s, err == nil)
	return n
}

// Expired takes that the time of a window of the daemon is up.
func (m *Member) Expired(k Key) { delete(m.local, k) }

// KnockUsed takes that a knock was used at the daemon.
func (m *Member) KnockUsed(u Used) (n News) {
	if isNews, _ := m.remember(m.name, u); isNews && !m.reading {
		n.Used = append(n.Used, u)
	}
	return n
}

// remember remembers a used knock that a host tells of. Those of this host have no limits.
func (m *Member) remember(from string, u Used) (isNews bool, err error) {
	k := usedKey{u.Method, u.Key}
	known, ok := m.used[k]
	now := m.now()
	switch {
	case ok && !u.Time.After(known.Time), isOver(u, now):
		return false, nil
	case from == m.name:
	case u.Time.After(now.Add(maxAhead)):
		return false, ErrUsedAhead
	case known.from != from && m.usedBy[from] >= maxUsedPerHost, !ok && len(m.used)-m.usedBy[m.name] >= maxUsed:
		return false, ErrUsedFull
	}
	m.forgetUsed(k)
	m.used[k] = knock{u, from}
	m.usedBy[from]++
	return true, nil
}

// isOver reports whether a knock is too old to be used again.
func isOver(u Used, now time.Time) bool { return now.Sub(u.Time) > method.UseLifetime }

func (m *Member) forgetUsed(k usedKey) {
	u, ok := m.used[k]
	if !ok {
		return
	}
	delete(m.used, k)
	if m.usedBy[u.from]--; m.usedBy[u.from] == 0 {
		delete(m.usedBy, u.from)
	}
}

// Told takes news of another host. It returns what the others know wrongly of this one. The
// error is the first about a statement that it does not take, which is at.
func (m *Member) Told(from string, n *News) (wrongly News, at Key, err error) {
	now := m.now()
	for i := range n.Statements {
		s := &n.Statements[i]
		changed, wrong := false, ErrNotShared
		if m.Shares(s.Door) {
			changed, wrong = m.table.merge(from, s, now, m.doors[s.Door])
		}
		if changed {
			m.due[s.key()] = true
		}
		if changed && s.Host == m.name {
			m.correct(s.key(), &wrongly)
		}
		if wrong != nil && err == nil {
			at, err = s.key(), wrong
		}
	}
	for _, u := range n.Used {
		isNews, wrong := m.remember(from, u)
		if isNews {
			m.learn[usedKey{u.Method, u.Key}] = true
		}
		if wrong != nil && err == nil {
			at, err = Key{}, wrong
		}
	}
	return wrongly, at, err
}

// correct replaces what others have told of this host, from before its companion was started,
// by what its daemon has had since.
func (m *Member) correct(k Key, n *News) {
	w, isOpen := m.local[k]
	own := m.table.own(k)
	if m.reading || !isOpen || w.told || own == nil || m.isKnown(k, w) {
		return
	}
	now := m.now()
	at := m.table.at(now)
	s := Statement{Door: k.Door, Source: k.Source, Host: m.name, Stamp: own.stamp + 1, Left: w.end.sub(at).Milliseconds(), Age: at.sub(w.begun).Milliseconds(), Person: w.person.Value()}
	_, err := m.table.merge(m.name, &s, now, m.doors[k.Door])
	n.add(s, err == nil)
}

// Own returns what has happened at this host, for a host that has missed some of it.
func (m *Member) Own() News {
	return News{m.table.statements(m.table.at(m.now()), true), m.allUsed()}
}

// All returns what this host knows, whichever host has told it.
func (m *Member) All() News {
	return News{m.table.statements(m.table.at(m.now()), false), m.allUsed()}
}

func (m *Member) allUsed() (all []Used) {
	for _, u := range m.used {
		all = append(all, u.Used)
	}
	return all
}

// Due returns what the daemon is to do, at most some of it. Call it until there is nothing.
func (m *Member) Due(most int) (all []Action) {
	if m.reading {
		return nil
	}
	now := m.now()
	if now.Sub(m.expired) > time.Second {
		m.expired = now
		m.table.expire(m.table.at(now))
		for k, u := range m.used {
			if isOver(u.Used, now) {
				m.forgetUsed(k)
			}
		}
	}
	for k := range m.learn {
		if len(all) == most {
			return all
		}
		delete(m.learn, k)
		if u, ok := m.used[k]; ok {
			all = append(all, Action{Origin: u.from, Used: &u.Used})
		}
	}
	for k := range m.due {
		if len(all) == most {
			return all
		}
		delete(m.due, k)
		if a, ok := m.action(k, m.table.at(now)); ok {
			all = append(all, a)
		}
	}
	return all
}

func (m *Member) action(k Key, now moment) (a Action, ok bool) {
	e := m.table.entries[k]
	if e == nil || !m.Shares(k.Door) {
		return a, false
	}
	has, isOpen := m.local[k]
	w, wanted := e.window(m.table.name, m.doors[k.Door], now)
	switch {
	case wanted && (!isOpen || has.end.add(slack) < w.end) && w.end.sub(now) >= shortest:
		return Action{Key: k, Origin: w.from.Value(), Left: w.end.sub(now), Person: w.person.Value()}, true
	case isOpen && e.closed != 0 && (!wanted || has.end > w.end.add(slack)): // what had opened it for longer was closed
		return Action{Key: k, Origin: e.by.Value(), Close: true}, true
	}
	return a, false
}

// Len returns how many windows and closings the host knows.
func (m *Member) Len() int { return len(m.table.entries) }

func (n *News) add(s Statement, ok bool) {
	if ok {
		n.Statements = append(n.Statements, s)
	}
}
