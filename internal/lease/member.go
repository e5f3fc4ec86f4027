package lease

import "time"

// Member is one host of a group: its table, and what its daemon has. It is not safe for
// concurrent use.
type Member struct {
	name  string
	now   func() time.Time
	doors map[string]time.Duration // the shared doors, with their windows

	table   *table
	used    map[usedKey]Used
	local   map[Key]window // that the daemon has
	reading bool           // the daemon's state is not complete
	due     map[Key]bool   // to be compared with the daemon's window
	learn   map[usedKey]bool
	expired time.Time // when the table was last cleaned
}

type window struct {
	end    time.Time
	found  time.Duration // how long ago it was opened; only in a state
	told   bool          // by another host
	person Person
}

// Used is that a signed knock was used.
type Used struct {
	Method string    `json:"method"`
	Time   time.Time `json:"time"` // in the knock
	Person
}

type usedKey struct{ method, key string }

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
	return &Member{name: name, now: now, table: newTable(), reading: true, used: map[usedKey]Used{},
		local: map[Key]window{}, due: map[Key]bool{}, learn: map[usedKey]bool{}}
}

// SetDoors sets the doors that this host shares, with their windows. Call it when a state
// begins, because other rules may be in force.
func (m *Member) SetDoors(doors map[string]time.Duration) { m.doors = doors }

// Shares reports whether the host shares a door.
func (m *Member) Shares(door string) bool { return m.doors[door] > 0 }

// StateBegins forgets the windows of the daemon.
func (m *Member) StateBegins() {
	m.reading = true
	clear(m.local)
}

// StateIsKnown compares the windows of the daemon with the table, and returns what the other
// hosts may not know.
func (m *Member) StateIsKnown() (n News) {
	m.reading = false
	for k, w := range m.local {
		if w.told {
			continue
		}
		own, known := m.table.own(k, m.name)
		if known && own.end.Sub(w.end).Abs() < slack {
			continue
		}
		n.add(m.opened(k, w.end.Sub(m.now()), w.found+doubt, w.person))
	}
	for k := range m.table.entries {
		m.due[k] = true
	}
	for k := range m.used {
		m.learn[k] = true
	}
	return n
}

// Opened takes that the daemon has opened or refreshed a window, age ago. told says that
// another host has caused it.
func (m *Member) Opened(k Key, left, age time.Duration, p Person, told bool) (n News) {
	if !m.Shares(k.Door) {
		return n
	}
	m.local[k] = window{end: m.now().Add(left), found: age, person: p, told: told}
	if !m.reading && !told {
		n.add(m.opened(k, left, age, p))
	}
	return n
}

func (m *Member) opened(k Key, left, age time.Duration, p Person) (s Statement, ok bool) {
	now := m.now()
	s = Statement{Door: k.Door, Source: k.Source, Host: m.name, Stamp: m.table.stamp(k, now, age), Left: left.Milliseconds(), Person: p}
	// The windows of this host may be longer than those of its door.
	_, err := m.table.merge(m.name, &s, now, max(left, m.doors[k.Door]))
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
	if m.remember(u) && !m.reading {
		n.Used = append(n.Used, u)
	}
	return n
}

func (m *Member) remember(u Used) (isNews bool) {
	k := usedKey{u.Method, u.Key}
	known, ok := m.used[k]
	if ok && !u.Time.After(known.Time) || !ok && len(m.used) >= maxUsed {
		return false
	}
	m.used[k] = u
	return true
}

// Told takes news of another host. It returns what the others know wrongly of this one. The
// error is the first about a statement that it does not take, which is at.
func (m *Member) Told(from string, n *News) (wrongly News, at Key, err error) {
	now := m.now()
	for i := range n.Statements {
		s := &n.Statements[i]
		most := m.doors[s.Door]
		changed, wrong := false, ErrNotShared
		if most > 0 {
			changed, wrong = m.table.merge(from, s, now, most)
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
		if m.remember(u) {
			m.learn[usedKey{u.Method, u.Key}] = true
		}
	}
	return wrongly, at, err
}

// correct replaces what others have told of this host, from before its companion was started,
// by what its daemon has had since.
func (m *Member) correct(k Key, n *News) {
	w, isOpen := m.local[k]
	own, known := m.table.own(k, m.name)
	if m.reading || !isOpen || w.told || !known || own.end.Sub(w.end).Abs() < slack {
		return
	}
	now := m.now()
	left := w.end.Sub(now)
	s := Statement{Door: k.Door, Source: k.Source, Host: m.name, Stamp: own.stamp + 1, Left: left.Milliseconds(), Person: w.person}
	_, err := m.table.merge(m.name, &s, now, max(left, m.doors[k.Door]))
	n.add(s, err == nil)
}

// Own returns what has happened at this host, for a host that has missed some of it.
func (m *Member) Own() News {
	return News{m.table.statements(m.now(), m.name), m.allUsed()}
}

// All returns what this host knows, whichever host has told it.
func (m *Member) All() News {
	return News{m.table.statements(m.now(), ""), m.allUsed()}
}

func (m *Member) allUsed() (all []Used) {
	for _, u := range m.used {
		all = append(all, u)
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
		m.table.expire(now)
	}
	for k := range m.learn {
		if len(all) == most {
			return all
		}
		delete(m.learn, k)
		u := m.used[k]
		all = append(all, Action{Origin: m.name, Used: &u})
	}
	for k := range m.due {
		if len(all) == most {
			return all
		}
		delete(m.due, k)
		if a, ok := m.action(k, now); ok {
			all = append(all, a)
		}
	}
	return all
}

func (m *Member) action(k Key, now time.Time) (a Action, ok bool) {
	e := m.table.entries[k]
	if e == nil || !m.Shares(k.Door) {
		return a, false
	}
	has, isOpen := m.local[k]
	w, wanted := e.window(now)
	switch {
	case wanted && (!isOpen || has.end.Add(slack).Before(w.end)) && w.end.Sub(now) >= shortest:
		return Action{Key: k, Origin: w.from, Left: w.end.Sub(now), Person: w.person}, true
	case isOpen && e.closed != 0 && (!wanted || has.end.After(w.end.Add(slack))): // what had opened it for longer was closed
		return Action{Key: k, Origin: e.by, Close: true}, true
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
