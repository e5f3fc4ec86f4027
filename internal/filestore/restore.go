package filestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// restore puts a store's file back in its place, after the file or its folder was taken
// away, or after a write failed. The new file has all entries in memory, and those of the
// file that is there now. Restore is called with writing held.
func (l *Store) restore() error {
	if err := l.lockAgain(); err != nil {
		return err
	}
	now := &Store{path: l.path, entries: map[string]uint64{}}
	if err := now.load(); err != nil {
		return errors.Join(err, now.closeFile())
	}
	_ = l.closeFile() // they have no name any more, or are the same files
	l.folder, l.file = now.folder, now.file
	for entry := range now.entries {
		l.put(entry)
	}
	return l.replace(l.All())
}

// lockAgain locks the store in a folder that has replaced the former one.
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

// isAt reports whether a name stands for an open file.
func isAt(file *os.File, name string) bool {
	is, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(name)
	return err == nil && os.SameFile(is, named)
}
