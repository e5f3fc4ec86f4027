// Package durable makes written data survive a power failure.
package durable

import (
	"errors"
	"os"
)

// observer is called with each file that was synced, in tests.
var observer func(f *os.File)

// Observe makes Sync call f after each sync. With nil, it stops that. It is for tests of
// what is synced, and when; see durabletest.
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

// SyncFolder syncs a folder, so that the names of its files survive.
func SyncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(Sync(f), f.Close())
}
