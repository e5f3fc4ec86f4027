package wall

import (
	"slices"
	"sync"
	"time"
)

// MemoryStore is a [Store] that is gone with the process.
type MemoryStore struct {
	mu      sync.Mutex
	entries []string
}

// NewMemoryStore returns an empty one.
func NewMemoryStore() *MemoryStore { return &MemoryStore{} }

// Add adds an entry. The error is nil.
func (f *MemoryStore) Add(entry string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.entries, entry) {
		f.entries = append(f.entries, entry)
	}
	return nil
}

// Remove takes an entry out. The error is nil.
func (f *MemoryStore) Remove(entry string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = slices.DeleteFunc(f.entries, func(e string) bool { return e == entry })
	return nil
}

// Has reports whether an entry is there.
func (f *MemoryStore) Has(entry string) bool { return slices.Contains(f.All(), entry) }

// Len returns how many entries there are.
func (f *MemoryStore) Len() int { return len(f.All()) }

// All returns the entries in the order they were added.
func (f *MemoryStore) All() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.entries)
}

// Damaged returns the zero time.
func (f *MemoryStore) Damaged() time.Time { return time.Time{} }
