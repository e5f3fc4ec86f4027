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

// reach returns the store, nil if there is no file yet or if it cannot be read. The file may
// have been away, and be back now.
func (l *lateStore) reach() *filestore.Store {
	_ = l.open(false) // Add and Replace return the error
	return l.get()
}

// errJustBack says that nothing is added to a store that could not be read when the caller
// asked what is in it.
var errJustBack = errors.New("the file that remembers what was used could be read only now: knock again")

func (l *lateStore) Add(entry string) error {
	opened, err := l.forChange()
	if err != nil {
		return err
	}
	return opened.Add(entry)
}

func (l *lateStore) Replace(former, entry string) error {
	opened, err := l.forChange()
	if err != nil {
		return err
	}
	return opened.Replace(former, entry)
}

// forChange returns the store, and makes its file if there is none.
func (l *lateStore) forChange() (*filestore.Store, error) {
	if l.get() == nil {
		_, missing := os.Lstat(l.path)
		if err := l.open(true); err != nil {
			return nil, err
		}
		if missing == nil {
			return nil, errJustBack
		}
	}
	return l.get(), nil
}

func (l *lateStore) Remove(entry string) error {
	if opened := l.reach(); opened != nil {
		return opened.Remove(entry)
	}
	return nil
}

func (l *lateStore) Has(entry string) bool {
	opened := l.reach()
	return opened != nil && opened.Has(entry)
}

func (l *lateStore) All() []string {
	if opened := l.reach(); opened != nil {
		return opened.All()
	}
	return nil
}

func (l *lateStore) Damaged() time.Time {
	opened := l.reach()
	if opened == nil {
		return time.Time{}
	}
	when, _ := opened.Damaged()
	return when
}

func (l *lateStore) Len() int {
	if opened := l.reach(); opened != nil {
		return opened.Len()
	}
	return 0
}
