package wall

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
)

// What opens a door only once is stored before it opens the door. So it cannot be used
// again, even if the daemon is killed.

// Store is a persistent set of lines. [filestore.Store] implements it.
type Store interface {
	Add(entry string) error
	Remove(entry string) error
	// Replace adds an entry and removes a former one, in that order. After an error the set
	// is as it was.
	Replace(former, entry string) error
	Has(entry string) bool
	All() []string
	Len() int
	// Damaged returns when entries were last found to be possibly missing. It is zero if
	// they never were.
	Damaged() time.Time
}

// replayGuard stores what was used. An entry begins with the Unix time, in seconds, of
// the minute or step that it belongs to. One of an ordered use goes on with its
// milliseconds, and ends with who has used it.
type replayGuard struct {
	mu    sync.Mutex
	store Store
	last  map[string]ordered // the last of the ordered uses, by kind and detail; nil: to be read
}

// ordered is an ordered use.
type ordered struct {
	begins time.Time
	by     method.Person
	entry  string // in the store
}

// anyDoor stands for the door in entries of ordered uses, which count at all doors. It is
// no name of a door.
const anyDoor = "*"

// The limits of the store. Expired entries are kept while there is room, because they
// would be valid again if the clock were set back.
const (
	keepUsed = 4096
	maxUsed  = 65536
	// maxLearned is how many entries there may be when another host's use adds one, so that
	// no host can fill the store and keep out who knocks here.
	maxLearned = maxUsed / 2
)

var errTooManyUsed = errors.New("more one-time passwords and steps are in use at once than can be remembered")

// take stores that something is used, and reports whether it was used before.
func (g *replayGuard) take(door string, u method.Use, now time.Time) (replay bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if u.Ordered {
		return g.takeInOrder(u, now)
	}
	entry := strings.TrimSuffix(fmt.Sprintf("%d %s %s %s", u.Begins.Unix(), u.Kind, door, u.Detail), " ")
	if g.store.Has(entry) {
		return true, nil
	}
	if err := g.makeRoom(u, now); err != nil {
		return false, err
	}
	return false, g.store.Add(entry)
}

// takeInOrder is take for an ordered use. It waits for the disk once: the door is to open
// soon after it.
//
// The window is not opened meanwhile, although that would hide the time of the transaction.
// First packets of sources with a window would then have to wait for the disk, too, and the
// kernel accepts them without the daemon if that is killed or its queue is full. After a loss
// of power a copy of the datagram would open the door a second time. The gain would be at most
// the transaction, about 0.1 ms, of which a disk that takes longer leaves little.
func (g *replayGuard) takeInOrder(u method.Use, now time.Time) (replay bool, err error) {
	key := u.Kind + " " + u.Detail
	former, known := g.ordered()[key]
	if known && u.Begins.UnixMilli() <= former.begins.UnixMilli() {
		return true, nil
	}
	if err := g.makeRoom(u, now); err != nil {
		return false, err
	}
	return false, g.advance(key, u)
}

// advance stores the last of the ordered uses with a key.
func (g *replayGuard) advance(key string, u method.Use) error {
	former, known := g.ordered()[key]
	who := u.By
	who.Key = "" // it is the detail
	entry := strings.TrimSuffix(fmt.Sprintf("%d %s %s %s %d %s", u.Begins.Unix(), u.Kind, anyDoor, u.Detail, u.Begins.UnixMilli(), who.Text()), " ")
	write := func() error { return g.store.Add(entry) }
	if known {
		write = func() error { return g.store.Replace(former.entry, entry) }
	}
	if err := write(); err != nil {
		g.last = nil // the store may have been away
		return err
	}
	g.ordered()[key] = ordered{u.Begins, u.By, entry}
	return nil
}

// ordered returns the last of the ordered uses. It reads them from the store if need be.
func (g *replayGuard) ordered() map[string]ordered {
	if g.last != nil {
		return g.last
	}
	g.last = map[string]ordered{}
	for _, entry := range g.store.All() {
		f := strings.SplitN(entry, " ", 6)
		if len(f) < 5 || f[2] != anyDoor {
			continue
		}
		ms, err := strconv.ParseInt(f[4], 10, 64)
		if err != nil {
			continue
		}
		key, begins := f[1]+" "+f[3], time.UnixMilli(ms)
		if former, known := g.last[key]; !known || begins.After(former.begins) {
			who := method.Person{}
			if len(f) > 5 {
				who = method.ParsePerson(f[5])
				who.Key = f[3]
			}
			g.last[key] = ordered{begins, who, entry}
		}
	}
	return g.last
}

// learn stores an ordered use at another host, so that the same knock opens nothing here. It
// need not be later than the last one here. What is too old to be used again is left out.
func (g *replayGuard) learn(u method.Use, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := u.Kind + " " + u.Detail
	former, known := g.ordered()[key]
	if now.Sub(u.Begins) > method.UseLifetime || known && u.Begins.UnixMilli() <= former.begins.UnixMilli() {
		return nil
	}
	if !known && g.store.Len() >= keepUsed {
		if err := g.forget(now, maxLearned); err != nil {
			return err
		}
	}
	return g.advance(key, u)
}

// uses returns the ordered uses.
func (g *replayGuard) uses() (all []method.Use) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, last := range g.ordered() {
		kind, detail, _ := strings.Cut(key, " ")
		all = append(all, method.Use{Begins: last.begins, Kind: kind, Detail: detail, Ordered: true, By: last.by})
	}
	return all
}

// makeRoom prepares the store for a use. It returns an error if the use may have been
// stored before, and lost.
func (g *replayGuard) makeRoom(u method.Use, now time.Time) error {
	// What became valid after the damage cannot have been used before it.
	if damaged := g.store.Damaged(); !damaged.IsZero() && !u.Begins.Add(-u.Early).After(damaged) {
		return errMayBeUsed
	}
	if g.store.Len() < keepUsed {
		return nil
	}
	return g.forget(now, maxUsed)
}

// errMayBeUsed is returned for what was valid before damage to the store was found.
var errMayBeUsed = errors.New("it may have been used before: the file of used passwords and sequences was damaged. Later ones open the door again")

// forget makes room by removing the oldest expired entries. It returns an error if there are
// still too many.
func (g *replayGuard) forget(now time.Time, tooMany int) error {
	excess := g.store.Len() - keepUsed + 1
	for _, entry := range g.store.All() {
		if excess <= 0 {
			return nil
		}
		began, _, _ := strings.Cut(entry, " ")
		seconds, err := strconv.ParseInt(began, 10, 64)
		if err == nil && now.Sub(time.Unix(seconds, 0)) < method.UseLifetime {
			continue
		}
		if err := g.store.Remove(entry); err != nil {
			return err
		}
		g.last = nil // read again: the entry may be among them
		excess--
	}
	if g.store.Len() >= tooMany {
		return errTooManyUsed
	}
	return nil
}

// codeOfUse returns the audit code for an error of take.
func codeOfUse(err error) audit.Code {
	if errors.Is(err, errMayBeUsed) {
		return audit.CodeMaybeUsed
	}
	return audit.CodeNotRemembered
}
