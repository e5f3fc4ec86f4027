package filestore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/ownership"
)

// lockSuffix makes the name of the lock file. The store's own file is not locked, because
// compaction replaces it, and the lock would stay with the old one. The lock file is
// never replaced or removed.
const lockSuffix = ".lock"

// takeLock locks a store. The lock ends with the process.
func takeLock(path string) (*os.File, error) {
	lock, err := OpenRegular(path+lockSuffix, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return lock, nil
	}
	lock.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.New("another knockwall uses the file: stop it, or give this one a file of its own")
	}
	return nil, fmt.Errorf("locking %s: %w", path+lockSuffix, err)
}

// release unlocks the store, even while a process that was just forked still has the lock
// file open.
func release(lock *os.File) error {
	return errors.Join(unix.Flock(int(lock.Fd()), unix.LOCK_UN), lock.Close())
}

// OpenRegular opens a regular file. A file that it creates is readable by this user only.
// It refuses symbolic links, devices, and files that others can change.
func OpenRegular(path string, flags int) (*os.File, error) {
	// Without O_NONBLOCK, opening a pipe of that name would block.
	file, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link, and has to be a file", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is %v, and has to be a file", path, info.Mode().Type())
	}
	// Anybody who can write the file decides what opens doors again.
	if err == nil {
		err = ownership.Check(path, ownership.File)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
