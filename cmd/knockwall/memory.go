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

// memory is what the daemon keeps on disk: which one-time passwords and knocks were used,
// and which commands are due. A service keeps it in its state folder ($STATE_DIRECTORY),
// which survives a reboot. Any other daemon keeps it beside its control socket.
type memory struct{ used, due *lasting }

// stateBase returns the prefix of the paths of all files that the daemon keeps.
func stateBase(controlPath string) string {
	if folder := os.Getenv("STATE_DIRECTORY"); folder != "" {
		return folder + string(filepath.Separator)
	}
	return controlPath + "."
}

// newMemory returns a memory that reports damage to its files to complain.
func newMemory(controlPath string, complain func(string)) memory {
	base := stateBase(controlPath)
	return memory{
		used: &lasting{path: base + "used", damaged: func(path, found string) {
			complain(fmt.Sprintf("%s was damaged (%s), and some used passwords and knocks may be missing from it. One-time passwords, and knocks of a step before or after the present one, open nothing until all that may have been used have expired", path, found))
		}},
		due: &lasting{path: base + "due", damaged: func(path, found string) {
			complain(fmt.Sprintf("%s was damaged (%s): the on_close command of an earlier window may be forgotten. Check whether you have to run it by hand", path, found))
		}},
	}
}

// open opens the files that exist, and makes those that a configuration needs.
func (m memory) open(c *ruleset.Config) error {
	return errors.Join(m.used.open(c.NeedsReplayMemory()), m.due.open(c.HasCommands()))
}

func (m memory) close() {
	m.used.close()
	m.due.close()
}

// lasting is a store in a file. The file is made when it is first needed.
type lasting struct {
	path    string
	damaged func(path, found string)

	mu    sync.Mutex
	store *filestore.Store // nil until it is opened
}

// open opens the store if its file exists or is needed.
func (l *lasting) open(needed bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil {
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
	l.store = opened
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
	return l.store
}

// errKnown says that an entry is not added because it already was in a store that could
// not be read when the caller asked for the entry.
var errKnown = errors.New("it was used before")

func (l *lasting) Add(entry string) error {
	known := l.get() != nil // whether Has could read the store
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
	_ = l.open(false) // the folder may have been away; Add returns the error
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
