//go:build linux

package daemon

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/filestore"
)

// lateStore is a store in a file. The file is made when it is first needed.
type lateStore struct {
	path    string
	damaged func(path, found string)

	mu    sync.Mutex
	store *filestore.Store // nil until it is opened
}

// open opens the store if its file exists or is needed.
func (l *lateStore) open(needed bool) error {
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

func (l *lateStore) close() {
	if opened := l.get(); opened != nil {
		opened.Close()
	}
}

func (l *lateStore) get() *filestore.Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.store
}

// errKnown says that an entry is not added because it already was in a store that could
// not be read when the caller asked for the entry.
var errKnown = errors.New("it was used before")

func (l *lateStore) Add(entry string) error {
	known := l.get() != nil // whether Has could read the store
	if err := l.open(true); err != nil {
		return err
	}
	if !known && l.get().Has(entry) {
		return errKnown
	}
	return l.get().Add(entry)
}

func (l *lateStore) Remove(entry string) error {
	if opened := l.get(); opened != nil {
		return opened.Remove(entry)
	}
	return nil
}

func (l *lateStore) Has(entry string) bool {
	_ = l.open(false) // the folder may have been away; Add returns the error
	opened := l.get()
	return opened != nil && opened.Has(entry)
}

func (l *lateStore) All() []string {
	if opened := l.get(); opened != nil {
		return opened.All()
	}
	return nil
}

func (l *lateStore) Damaged() time.Time {
	opened := l.get()
	if opened == nil {
		return time.Time{}
	}
	when, _ := opened.Damaged()
	return when
}

func (l *lateStore) Len() int {
	if opened := l.get(); opened != nil {
		return opened.Len()
	}
	return 0
}
