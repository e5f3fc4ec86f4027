//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/filestore"
	"github.com/knockwall/knockwall/ruleset"
)

// memory is what outlasts the daemon: what opens doors once and was used, and which
// commands are due. A service has it in its state folder ($STATE_DIRECTORY), which
// outlasts the machine's rest, too; another daemon beside its control socket.
type memory struct{ used, due *lasting }

// stateBase is how the paths of all that outlasts a daemon begin.
func stateBase(controlPath string) string {
	if folder := os.Getenv("STATE_DIRECTORY"); folder != "" {
		return folder + string(filepath.Separator)
	}
	return controlPath + "."
}

// newMemory makes one whose damage is told to complain.
func newMemory(controlPath string, complain func(string)) memory {
	base := stateBase(controlPath)
	return memory{
		used: &lasting{path: base + "used", damaged: func(path, found string) {
			complain(fmt.Sprintf("%s was damaged (%s), so that some of what was used is not known: one-time passwords, and knocks of a step before or after the present one, open nothing until all are over that may have been used", path, found))
		}},
		due: &lasting{path: base + "due", damaged: func(path, found string) {
			complain(fmt.Sprintf("%s was damaged (%s): an on_close of a window of before may be forgotten. Look whether its command has to be run by hand", path, found))
		}},
	}
}

// open opens what there is, and what a configuration will need.
func (m memory) open(c *ruleset.Config) error {
	return errors.Join(m.used.open(c.NeedsReplayMemory()), m.due.open(c.HasCommands()))
}

func (m memory) close() {
	m.used.close()
	m.due.close()
}

// lasting is a ledger in a file that is made when it is first needed.
type lasting struct {
	path    string
	damaged func(path, found string)

	mu     sync.Mutex
	ledger *filestore.Store // nil: there is none yet
}

// open opens the ledger, if there is one or it is needed.
func (l *lasting) open(needed bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ledger != nil {
		return nil
	}
	if _, err := os.Lstat(l.path); errors.Is(err, fs.ErrNotExist) && !needed {
		return nil
	}
	opened, err := filestore.Open(l.path)
	if err != nil {
		if needed {
			return err
		}
		return nil
	}
	l.ledger = opened
	if _, found := opened.Damaged(); found != "" {
		l.damaged(l.path, found)
	}
	return nil
}

func (l *lasting) close() {
	if opened := l.get(); opened != nil {
		opened.Close()
	}
}

func (l *lasting) get() *filestore.Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ledger
}

// errKnown is why an entry is not added that was there when it was asked for in vain, as
// the ledger could not be read yet.
var errKnown = errors.New("it was used before")

func (l *lasting) Add(entry string) error {
	known := l.get() != nil // when it was asked whether the entry is there
	if err := l.open(true); err != nil {
		return err
	}
	if !known && l.get().Has(entry) {
		return errKnown
	}
	return l.get().Add(entry)
}

func (l *lasting) Remove(entry string) error {
	if opened := l.get(); opened != nil {
		return opened.Remove(entry)
	}
	return nil
}

func (l *lasting) Has(entry string) bool {
	_ = l.open(false) // as its folder may have been away; Add says why it cannot be
	opened := l.get()
	return opened != nil && opened.Has(entry)
}

func (l *lasting) All() []string {
	if opened := l.get(); opened != nil {
		return opened.All()
	}
	return nil
}

func (l *lasting) Damaged() time.Time {
	opened := l.get()
	if opened == nil {
		return time.Time{}
	}
	when, _ := opened.Damaged()
	return when
}

func (l *lasting) Len() int {
	if opened := l.get(); opened != nil {
		return opened.Len()
	}
	return 0
}
