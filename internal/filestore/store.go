// Package filestore keeps a set of lines of text in a file. The set survives kills of the
// process, loss of power, and damage to the file.
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

// MaxEntry is the longest entry, in bytes. The shortest has one byte.
const MaxEntry = 64 << 10

// maxFile is the largest file, in bytes. The file is read into memory, and a store never
// grows beyond this.
const maxFile = 64 << 20

// maxDead is by how many the dead records, which no longer count, may outnumber the live
// ones before the file is compacted. So compaction costs little for each record, and the
// file is at most a few times as long as it has to be.
const maxDead = 1000

var errClosed = errors.New("the store is closed")

// Store is a set of entries, in memory and in a file. It is safe for concurrent use.
// Reading entries never waits for the disk.
type Store struct {
	path string
	lock *os.File

	writing  sync.Mutex // held while a change is written to the file
	folder   *os.File
	file     *os.File
	size     int64  // size of the file in bytes, without its end line
	sum      uint32 // checksum of its last record
	records  int    // number of records in the file
	bearable int    // by how many dead records may outnumber live ones before compaction
	failed   error  // why the file takes no more changes
	damaged  string // when damage was found last, as written in the file; "" if never
	found    string // the damage that Open found

	mu      sync.RWMutex
	entries map[string]uint64 // each with its position in the order
	next    uint64
}

// Open reads the store in a file, or makes an empty one. The folder of the file has to
// exist. Until Close nobody else can open the store, in this process or another: Open
// locks a file beside it, with ".lock" added to its name.
//
// Damage to the file is no error. Entries of damaged lines are left out: see
// [Store.Damaged]. An error names the file. A file of more than 64 MiB is an error, and
// is left as it is.
func Open(path string) (*Store, error) {
	lock, err := takeLock(path)
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	l := &Store{path: path, lock: lock, bearable: maxDead, entries: map[string]uint64{}}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, errors.Join(err, l.closeFiles()))
	}
	return l, nil
}

// Add adds an entry at the end. An entry has 1 to MaxEntry bytes and no newline. Add does
// nothing if the entry is there. When it returns without an error, the entry is on stable
// storage. After an error the entry is not in the set.
func (l *Store) Add(entry string) error {
	if err := check(entry); err != nil {
		return fmt.Errorf("adding to the store %s: %w", l.path, err)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.usable(); err != nil {
		return fmt.Errorf("adding to the store %s: %w", l.path, err)
	}
	if l.Has(entry) {
		return nil
	}
	if err := l.write(record{added, entry}); err != nil {
		return fmt.Errorf("adding to the store %s: %w", l.path, err)
	}
	l.put(entry)
	l.compactIfDue()
	return nil
}

// Remove removes an entry. It does nothing if the entry is not there. When it returns
// without an error, the removal is on stable storage. After an error the entry is still
// in the set.
func (l *Store) Remove(entry string) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.usable(); err != nil {
		return fmt.Errorf("removing from the store %s: %w", l.path, err)
	}
	if !l.Has(entry) {
		return nil
	}
	if err := l.write(record{removed, entry}); err != nil {
		return fmt.Errorf("removing from the store %s: %w", l.path, err)
	}
	l.take(entry)
	l.compactIfDue()
	return nil
}

// Replace adds an entry and removes a former one, as Add and Remove do, and waits for the
// disk only once. The new entry is written first, so that the set never lacks both. After
// an error the set is as it was.
func (l *Store) Replace(former, entry string) error {
	if err := check(entry); err != nil {
		return fmt.Errorf("adding to the store %s: %w", l.path, err)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.usable(); err != nil {
		return fmt.Errorf("adding to the store %s: %w", l.path, err)
	}
	var changes []record
	if !l.Has(entry) {
		changes = append(changes, record{added, entry})
	}
	if former != entry && l.Has(former) {
		changes = append(changes, record{removed, former})
	}
	if len(changes) == 0 {
		return nil
	}
	if err := l.write(changes...); err != nil {
		return fmt.Errorf("adding to the store %s: %w", l.path, err)
	}
	l.put(entry)
	if former != entry {
		l.take(former)
	}
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

// All returns the entries in the order in which they were added. An entry that was
// removed and added again is where it was added last.
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

// Damaged returns when damage to the file was found last, by this process or an earlier
// one. Entries that were added before that time may be missing. The time is zero if there
// never was damage. The second result describes the damage that Open found, if any.
func (l *Store) Damaged() (when time.Time, found string) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if seconds, err := strconv.ParseInt(l.damaged, 10, 64); err == nil {
		when = time.Unix(seconds, 0)
	}
	return when, l.found
}

// Close closes the file and lets others open the store. Its entries can still be read,
// but not changed. Closing it again does nothing.
func (l *Store) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if errors.Is(l.failed, errClosed) {
		return nil
	}
	l.failed = errClosed
	if err := l.closeFiles(); err != nil {
		return fmt.Errorf("closing the store %s: %w", l.path, err)
	}
	return nil
}

// usable returns why nothing can be changed, after it has tried to restore the file.
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

// check returns what is wrong with an entry, or nil.
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
