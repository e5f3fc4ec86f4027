package wall

import (
	"slices"
	"sync"
	"time"
)

// MemoryStore is a [Store] in memory. Its entries last as long as the process.
type MemoryStore struct {
	mu      sync.Mutex
	entries []string
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{} }

// Add adds an entry, unless it is there already. The error is nil.
func (s *MemoryStore) Add(entry string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.entries, entry) {
		s.entries = append(s.entries, entry)
	}
	return nil
}

// Remove removes an entry. The error is nil.
func (s *MemoryStore) Remove(entry string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = slices.DeleteFunc(s.entries, func(e string) bool { return e == entry })
	return nil
}

// Replace adds an entry and removes a former one. The error is nil.
func (s *MemoryStore) Replace(former, entry string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = slices.DeleteFunc(s.entries, func(e string) bool { return e == former || e == entry })
	s.entries = append(s.entries, entry)
	return nil
}

// Has reports whether the store has an entry.
func (s *MemoryStore) Has(entry string) bool { return slices.Contains(s.All(), entry) }

// Len returns the number of entries.
func (s *MemoryStore) Len() int { return len(s.All()) }

// All returns the entries in the order in which they were added.
func (s *MemoryStore) All() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.entries)
}

// Damaged returns the zero time: memory is never damaged.
func (s *MemoryStore) Damaged() time.Time { return time.Time{} }
