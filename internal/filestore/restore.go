package filestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// restore puts a ledger back in its place whose file, or the folder of it, was taken
// away, or on which a write failed: with all that is known here, and what the file has
// that is there now. It is called with writing held.
func (l *Store) restore() error {
	if err := l.lockAgain(); err != nil {
		return err
	}
	now := &Store{path: l.path, entries: map[string]uint64{}}
	if err := now.load(); err != nil {
		return errors.Join(err, now.closeFile())
	}
	_ = l.closeFile() // they have no name any more, or the same
	l.folder, l.file = now.folder, now.file
	for entry := range now.entries {
		l.put(entry)
	}
	return l.replace(l.All())
}

// lockAgain locks the ledger in a folder that took the place of the former one.
func (l *Store) lockAgain() error {
	if isAt(l.lock, l.path+lockSuffix) {
		return nil
	}
	if _, err := os.Stat(filepath.Dir(l.path)); err != nil {
		return fmt.Errorf("its folder is away: %w", err)
	}
	lock, err := takeLock(l.path)
	if err != nil {
		return err
	}
	_ = release(l.lock)
	l.lock = lock
	return nil
}

// isAt reports whether a file is what a name stands for.
func isAt(file *os.File, name string) bool {
	is, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(name)
	return err == nil && os.SameFile(is, named)
}
