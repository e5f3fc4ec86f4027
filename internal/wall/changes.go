package wall

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// Followers of the changes see every change of a window, unlike followers of the events,
// which are for people: those are summed up in a flood. A follower that is too slow reads
// the state again.

// ChangeKind is what a change is.
type ChangeKind string

// The kinds of changes.
const (
	StateBegins   ChangeKind = "state"   // forget all windows: the state follows
	ChangeOpen    ChangeKind = "open"    // a window is open, or open for another time than before
	ChangeClosed  ChangeKind = "closed"  // a window was closed before its time
	ChangeExpired ChangeKind = "expired" // a window's time is up
	ChangeUsed    ChangeKind = "used"    // a signed knock was used, so that no older one of its key is good
	ToldWrongly   ChangeKind = "refused" // only told to the daemon: another host has told what a companion does not accept
	StateKnown    ChangeKind = "current" // the state is complete
)

// Change is one change. Fields that do not apply are zero.
type Change struct {
	Kind        ChangeKind    `json:"change"`
	Cursor      string        `json:"cursor,omitempty"` // the place after this change; not within a state
	Door        string        `json:"door,omitempty"`
	Source      packet.Source `json:"source,omitzero"`
	Person      string        `json:"person,omitempty"`
	Key         string        `json:"key,omitempty"`    // with Used, whose knock it was
	Grant       string        `json:"grant,omitempty"`  // by what the person may come in
	Origin      string        `json:"origin,omitempty"` // the other host that has caused it
	Code        audit.Code    `json:"code,omitempty"`   // why
	Method      string        `json:"method,omitempty"` // with Used
	Time        time.Time     `json:"time,omitzero"`    // with Used: the time in the knock
	LeftSeconds float64       `json:"left_seconds,omitempty"`
	AgeSeconds  float64       `json:"age_seconds,omitempty"` // how long ago it was
}

// maxChanges is how many changes are kept for followers that read slowly or come back, at
// some 200 bytes each.
const maxChanges = 8192

// changeLog keeps the last changes. Its lock is one of the last.
type changeLog struct {
	instance string // differs from that of any other daemon

	mu      sync.Mutex
	kept    []logged
	head    uint64        // how many changes there were
	valid   uint64        // a follower that knows fewer reads the state again
	waiting chan struct{} // closed at the next change; nil: nobody waits
}

// logged is a change as it is kept.
type logged struct {
	at time.Time
	Change
	until time.Time // when an open window ends
}

func newChangeLog() *changeLog { return &changeLog{instance: rand.Text()} }

// observe is an observer: it keeps the change of a window.
func (l *changeLog) observe(e windowEvent) {
	now := time.Now()
	c := logged{at: now, Change: Change{Door: e.Door, Source: e.Source, Person: e.Person, Key: e.Key, Origin: e.Origin, Code: e.Code}}
	switch {
	case e.Failed, e.wasSpent:
		return
	case e.Kind == audit.Opened, e.Kind == audit.Refreshed:
		c.Kind, c.Grant, c.until = ChangeOpen, e.opener.Grant, now.Add(e.Window)
	case e.Kind == audit.Closed:
		c.Kind = ChangeClosed
	default:
		c.Kind = ChangeExpired
	}
	l.add(c)
}

// use keeps that a signed knock was used.
func (l *changeLog) use(u method.Use) { l.add(logged{at: time.Now(), Change: usedOf(u)}) }

func usedOf(u method.Use) Change {
	return Change{Kind: ChangeUsed, Method: u.Kind, Key: u.Detail, Time: u.Begins, Person: u.By.Name, Grant: u.By.Grant}
}

// add keeps a change.
func (l *changeLog) add(c logged) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.append(c)
}

// forget makes all followers read the state again: other rules are in force.
func (l *changeLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.append(logged{}) // a place that no follower knows
	l.valid = l.head
}

// append is add with mu held.
func (l *changeLog) append(c logged) {
	if len(l.kept) < maxChanges {
		l.kept = append(l.kept, c)
	} else {
		l.kept[l.head%maxChanges] = c
	}
	l.head++
	if l.waiting != nil {
		close(l.waiting)
		l.waiting = nil
	}
}

// place returns the number of the last change.
func (l *changeLog) place() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// maxTogether is how many changes a follower gets at once.
const maxTogether = 512

// after returns changes after a place, and the place after them. behind says that the
// follower has to read the state. With neither, more is closed at the next change.
func (l *changeLog) after(place uint64) (changes []logged, next uint64, behind bool, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case place < l.valid, place > l.head, l.head-place > uint64(len(l.kept)):
		return nil, 0, true, nil
	case place == l.head:
		if l.waiting == nil {
			l.waiting = make(chan struct{})
		}
		return nil, place, false, l.waiting
	}
	next = min(l.head, place+maxTogether)
	for n := place; n < next; n++ {
		changes = append(changes, l.kept[n%maxChanges])
	}
	return changes, next, false, nil
}

// closed returns the last closing of each window, as far as they are kept. Also of those that
// were opened again since: the window that it has closed may have been open elsewhere, too.
func (l *changeLog) closed() (all []logged) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := map[windowKey]int{}
	for n := l.head - uint64(len(l.kept)); n < l.head; n++ {
		c := &l.kept[n%maxChanges]
		if c.Kind == ChangeClosed {
			last[windowKey{c.Door, c.Source}] = int(n % maxChanges)
		}
	}
	for _, at := range last {
		all = append(all, l.kept[at])
	}
	return all
}

// Follower follows the changes of a wall. It is not safe for concurrent use.
type Follower struct {
	wall   *Wall
	place  uint64
	behind bool // it does not know the state
}

// Follow returns a follower that goes on after a change with that cursor. Without a cursor,
// and with one that this daemon does not know any more, it begins with the state.
func (w *Wall) Follow(cursor string) *Follower {
	instance, number, _ := strings.Cut(cursor, ".")
	place, err := strconv.ParseUint(number, 10, 64)
	return &Follower{w, place, err != nil || instance != w.windows.changes.instance}
}

// Next waits for changes, and returns them in their order. If the follower was too slow,
// they are the state.
func (f *Follower) Next(ctx context.Context) ([]Change, error) {
	l := f.wall.windows.changes
	for {
		if f.behind {
			return f.state()
		}
		changes, next, behind, more := l.after(f.place)
		switch {
		case behind:
			f.behind = true
		case more == nil:
			all := finished(changes)
			for i := range all {
				f.place++
				all[i].Cursor = f.cursor()
			}
			f.place = next
			return all, nil
		default:
			select {
			case <-more:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

func (f *Follower) cursor() string {
	return f.wall.windows.changes.instance + "." + strconv.FormatUint(f.place, 10)
}

// state returns the state: the uses, the last closings and the open windows.
func (f *Follower) state() ([]Change, error) {
	w := f.wall
	if w.packets.current() == nil {
		return nil, errNotInstalled
	}
	var windows []logged
	func() {
		// Only with this lock held are all recorded windows in the kernel. What happens
		// without it, such as an expiry, comes again as a change.
		w.table.change.Lock()
		defer w.table.change.Unlock()
		w.windows.notify()
		f.place = w.windows.changes.place()
		now := time.Now()
		w.windows.each(func(door string, win sequence.Window, left time.Duration) {
			by := method.ParseOpener(win.Opener())
			windows = append(windows, logged{at: win.Granted(), until: now.Add(left), Change: Change{
				Kind: ChangeOpen, Door: door, Source: win.Source(), Person: by.Name, Key: by.Key, Grant: by.Grant, Origin: by.Origin}})
		})
	}()
	f.behind = false
	all := []Change{{Kind: StateBegins}}
	// After the place was taken: a use in between is in the state and comes as a change.
	for _, u := range w.packets.replays.uses() {
		all = append(all, usedOf(u))
	}
	all = slices.Concat(all, finished(w.windows.changes.closed()), finished(windows))
	return append(all, Change{Kind: StateKnown, Cursor: f.cursor()}), nil
}

// finished fills in what depends on the time.
func finished(changes []logged) []Change {
	now := time.Now()
	all := make([]Change, len(changes))
	for i := range changes {
		c := changes[i].Change
		c.AgeSeconds = seconds(now.Sub(changes[i].at))
		if c.Kind == ChangeOpen {
			c.LeftSeconds = max(0, seconds(changes[i].until.Sub(now)))
		}
		all[i] = c
	}
	return all
}
