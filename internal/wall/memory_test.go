package wall_test

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/ruleset"
)

// notebook is a store whose changes can fail, and which finds entries fast in any number
// of them.
type notebook struct {
	mu      sync.Mutex
	entries []string
	known   map[string]bool
	failure error
	damaged time.Time // set before it is used
	away    bool      // nothing of it can be read or changed
	reading func()    // called when all is read
}

func (n *notebook) Damaged() time.Time { return n.damaged }

// setAway makes the store unreadable, or readable again.
func (n *notebook) setAway(away bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = away
}

// fail makes changes fail from now on, or succeed again.
func (n *notebook) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failure = err
}

func (n *notebook) Add(entry string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.away {
		return errors.New("it is away")
	}
	if n.failure != nil || n.known[entry] {
		return n.failure
	}
	if n.known == nil {
		n.known = map[string]bool{}
	}
	n.known[entry] = true
	n.entries = append(n.entries, entry)
	return nil
}

func (n *notebook) Remove(entry string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure != nil || !n.known[entry] {
		return n.failure
	}
	delete(n.known, entry)
	n.entries = slices.DeleteFunc(n.entries, func(e string) bool { return e == entry })
	return nil
}

func (n *notebook) Replace(former, entry string) error {
	if err := n.Add(entry); err != nil {
		return err
	}
	return n.Remove(former)
}

func (n *notebook) Has(entry string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[entry]
}

func (n *notebook) All() []string {
	if n.reading != nil {
		n.reading()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.away {
		return nil
	}
	return slices.Clone(n.entries)
}

func (n *notebook) Len() int { return len(n.All()) }

// begin creates a daemon with the present stores of the host, and runs it.
func (h *host) begin(c *ruleset.Config) {
	h.t.Helper()
	next := h.newHost()
	h.wall, h.trail, h.ended = next.wall, next.trail, next.ended
	if err := h.raise(c); err != nil {
		h.t.Fatal(err)
	}
	h.run()
	h.trail.take()
	h.changes()
}
