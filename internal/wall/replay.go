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
	Has(entry string) bool
	All() []string
	Len() int
	// Damaged returns when entries were last found to be possibly missing. It is zero if
	// they never were.
	Damaged() time.Time
}

// replayGuard stores what was used. An entry begins with the Unix time, in seconds, of
// the minute or step that it belongs to.
type replayGuard struct {
	mu    sync.Mutex
	store Store
}

// The limits of the store. Expired entries are kept while there is room, because they
// would be valid again if the clock were set back.
const (
	keepUsed    = 4096
	maxUsed     = 65536
	useLifetime = 3 * time.Hour // longer than any step or minute can be valid
)

var errTooManyUsed = errors.New("more one-time passwords and steps are in use at once than can be remembered")

// take stores that something is used, and reports whether it was used before.
func (g *replayGuard) take(door string, u method.Use, now time.Time) (replay bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	entry := strings.TrimSuffix(fmt.Sprintf("%d %s %s %s", u.Begins.Unix(), u.Kind, door, u.Detail), " ")
	if g.store.Has(entry) {
		return true, nil
	}
	// What became valid after the damage cannot have been used before it.
	if damaged := g.store.Damaged(); !damaged.IsZero() && !u.Begins.Add(-u.Early).After(damaged) {
		return false, errMayBeUsed
	}
	if g.store.Len() >= keepUsed {
		if err := g.forget(now); err != nil {
			return false, err
		}
	}
	return false, g.store.Add(entry)
}

// errMayBeUsed is returned for what was valid before damage to the store was found.
var errMayBeUsed = errors.New("it may have been used before: the file of used passwords and sequences was damaged. Later ones open the door again")

// forget makes room by removing the oldest expired entries.
func (g *replayGuard) forget(now time.Time) error {
	excess := g.store.Len() - keepUsed + 1
	for _, entry := range g.store.All() {
		if excess <= 0 {
			return nil
		}
		began, _, _ := strings.Cut(entry, " ")
		seconds, err := strconv.ParseInt(began, 10, 64)
		if err == nil && now.Sub(time.Unix(seconds, 0)) < useLifetime {
			continue
		}
		if err := g.store.Remove(entry); err != nil {
			return err
		}
		excess--
	}
	if g.store.Len() >= maxUsed {
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
