// Package durable makes what was written outlast the loss of power.
package durable

import (
	"errors"
	"os"
)

// observer is told of each file that was synced, in tests.
var observer func(f *os.File)

// Observe has f called after each sync, until it is called with nil. It is for tests that
// show what is synced, and when; see durabletest.
func Observe(f func(f *os.File)) { observer = f }

// Sync returns when all that was written to a file, or changed in a folder, is on stable
// storage (fsync(2)).
func Sync(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if observer != nil {
		observer(f)
	}
	return nil
}

// SyncFolder syncs the folder at a path: the names of files in it.
func SyncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(Sync(f), f.Close())
}
