// Package ledger keeps a set of lines of text in a file, so that it survives
// whatever becomes of the process and of the machine.
package filestore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MaxEntry is how many bytes an entry may have. It has one at least.
const MaxEntry = 64 << 10

// maxFile is how many bytes the file may have: it is read into memory, and none of
// ours grows beyond that.
const maxFile = 64 << 20

// maxDead is how many records that no longer count there may be beyond those that
// do, before the file is written anew. So that costs little for each, and a file is
// at most a few times as long as it need be.
const maxDead = 1000

var errClosed = errors.New("the ledger is closed")

// Store is a set of entries, in memory and in a file. It is safe for concurrent
// use; who asks for an entry never waits for the disk.
type Store struct {
	path string
	lock *os.File

	writing  sync.Mutex // while a change is on its way to the file
	folder   *os.File
	file     *os.File
	size     int64  // of the file, without its end line
	sum      uint32 // of its last record
	records  int    // in it
	bearable int    // by how many the records that no longer count may outnumber the others
	failed   error  // why the file takes no more changes
	damaged  string // when damage was found last, as the file has it
	found    string // what damage Open found

	mu      sync.RWMutex
	entries map[string]uint64 // each with its place in the order
	next    uint64
}

// Open reads the ledger of a file, or begins one; its folder has to be there. Until
// Close nobody else can open it, in this process or another: a file beside it, with
// ".lock" added to its name, is locked.
//
// Damage to the file is no error, and no entry of a damaged line is in the set: see
// [Ledger.Damaged]. An error names the file. A file with more than 64 MiB is left as it
// is.
func Open(path string) (*Store, error) {
	lock, err := takeLock(path)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: %w", path, err)
	}
	l := &Store{path: path, lock: lock, bearable: maxDead, entries: map[string]uint64{}}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("opening the ledger %s: %w", path, errors.Join(err, l.closeFiles()))
	}
	return l, nil
}

// Add adds an entry, of 1 to MaxEntry bytes, none of them a newline, at the end. It
// does nothing if the entry is there. When it returns, the entry is on stable
// storage, or, with an error, not in the set.
func (l *Store) Add(entry string) error {
	if err := check(entry); err != nil {
		return fmt.Errorf("adding to the ledger %s: %w", l.path, err)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.usable(); err != nil {
		return fmt.Errorf("adding to the ledger %s: %w", l.path, err)
	}
	if l.Has(entry) {
		return nil
	}
	if err := l.write(added, entry); err != nil {
		return fmt.Errorf("adding to the ledger %s: %w", l.path, err)
	}
	l.put(entry)
	l.compactIfDue()
	return nil
}

// Remove removes an entry. It does nothing if the entry is not there. When it
// returns, that is on stable storage, or, with an error, the entry still in the set.
func (l *Store) Remove(entry string) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.usable(); err != nil {
		return fmt.Errorf("removing from the ledger %s: %w", l.path, err)
	}
	if !l.Has(entry) {
		return nil
	}
	if err := l.write(removed, entry); err != nil {
		return fmt.Errorf("removing from the ledger %s: %w", l.path, err)
	}
	l.take(entry)
	l.compactIfDue()
	return nil
}

// Has reports whether an entry is in the set.
func (l *Store) Has(entry string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.entries[entry]
	return ok
}

// All returns the entries in the order they were added. One that was removed and
// added again is where it was added last.
func (l *Store) All() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(l.entries), func(a, b string) int {
		return cmp.Compare(l.entries[a], l.entries[b])
	})
}

// Len returns the number of entries.
func (l *Store) Len() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.entries)
}

// Damaged returns when damage to the file was found last, by this process or one
// before it: entries that were added before may be missing. It is zero if there never was
// any. What it was is returned for damage that Open found.
func (l *Store) Damaged() (when time.Time, found string) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if seconds, err := strconv.ParseInt(l.damaged, 10, 64); err == nil {
		when = time.Unix(seconds, 0)
	}
	return when, l.found
}

// Close lets others open the ledger. What is in it can still be asked for, and no
// longer be changed. Closing it again does nothing.
func (l *Store) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if errors.Is(l.failed, errClosed) {
		return nil
	}
	l.failed = errClosed
	if err := l.closeFiles(); err != nil {
		return fmt.Errorf("closing the ledger %s: %w", l.path, err)
	}
	return nil
}

// usable returns why nothing can be changed, if so and it cannot be mended.
func (l *Store) usable() error {
	if errors.Is(l.failed, errClosed) || l.failed == nil && isAt(l.file, l.path) {
		return l.failed
	}
	if err := l.restore(); err != nil {
		return fmt.Errorf("what the disk has of it is not known, until it can be written anew: %w", err)
	}
	return nil
}

// put adds an entry in memory.
func (l *Store) put(entry string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.entries[entry]; !ok {
		l.entries[entry] = l.next
		l.next++
	}
}

// take removes an entry in memory.
func (l *Store) take(entry string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, entry)
}

// check returns what is wrong with an entry.
func check(entry string) error {
	switch {
	case entry == "":
		return errors.New("an entry is empty")
	case len(entry) > MaxEntry:
		return fmt.Errorf("an entry has %d bytes, more than %d", len(entry), MaxEntry)
	case strings.Contains(entry, "\n"):
		return fmt.Errorf("an entry has a newline in it: %.100q", entry)
	}
	return nil
}
