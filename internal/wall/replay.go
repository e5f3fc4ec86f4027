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

// What opens a door once is remembered before it opens, so that it cannot be used
// again whatever becomes of the daemon.

// Store is a set of lines that lasts; [ledger.Store] is one.
type Store interface {
	Add(entry string) error
	Remove(entry string) error
	Has(entry string) bool
	All() []string
	Len() int
	// Damaged returns when it was last found that entries may be missing. It is zero if
	// it never was.
	Damaged() time.Time
}

// replayGuard remembers what was used. An entry begins with the Unix time, in seconds, of
// the minute or step that it belongs to.
type replayGuard struct {
	mu    sync.Mutex
	store Store
}

// The bounds of what is remembered. What is long over is kept while there is room,
// as it would be good again if the clock were put back.
const (
	keepUsed    = 4096
	maxUsed     = 65536
	useLifetime = 3 * time.Hour // more than any step or minute can be good for
)

var errTooManyUsed = errors.New("more one-time passwords and steps are in use at once than can be remembered")

// take takes note that something is used, and reports whether it was before.
func (g *replayGuard) take(door string, u method.Use, now time.Time) (replay bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	entry := strings.TrimSuffix(fmt.Sprintf("%d %s %s %s", u.Begins.Unix(), u.Kind, door, u.Detail), " ")
	if g.store.Has(entry) {
		return true, nil
	}
	// What cannot have been used before the damage is good.
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

// errMayBeUsed is why something opens nothing that was good before damage was found.
var errMayBeUsed = errors.New("it may have been used before: the file that says so was damaged. Later ones open the door again")

// forget makes room by forgetting the oldest of what is over.
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

// codeOfUse returns the code of an event that says why something could not be used up.
func codeOfUse(err error) audit.Code {
	if errors.Is(err, errMayBeUsed) {
		return audit.CodeMaybeUsed
	}
	return audit.CodeNotRemembered
}
