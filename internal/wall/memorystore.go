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
func (s *MemoryStore) Add(entry string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.entries, entry) {
		s.entries = append(s.entries, entry)
	}
	return nil
}

// Remove takes an entry out. The error is nil.
func (s *MemoryStore) Remove(entry string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = slices.DeleteFunc(s.entries, func(e string) bool { return e == entry })
	return nil
}

// Has reports whether an entry is there.
func (s *MemoryStore) Has(entry string) bool { return slices.Contains(s.All(), entry) }

// Len returns how many entries there are.
func (s *MemoryStore) Len() int { return len(s.All()) }

// All returns the entries in the order they were added.
func (s *MemoryStore) All() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.entries)
}

// Damaged returns the zero time.
func (s *MemoryStore) Damaged() time.Time { return time.Time{} }
