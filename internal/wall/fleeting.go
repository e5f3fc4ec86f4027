package wall

import (
	"slices"
	"sync"
	"time"
)

// Fleeting is a [Ledger] that is gone with the process.
type Fleeting struct {
	mu      sync.Mutex
	entries []string
}

// NewFleeting returns an empty one.
func NewFleeting() *Fleeting { return &Fleeting{} }

// Add adds an entry. The error is nil.
func (f *Fleeting) Add(entry string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.entries, entry) {
		f.entries = append(f.entries, entry)
	}
	return nil
}

// Remove takes an entry out. The error is nil.
func (f *Fleeting) Remove(entry string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = slices.DeleteFunc(f.entries, func(e string) bool { return e == entry })
	return nil
}

// Has reports whether an entry is there.
func (f *Fleeting) Has(entry string) bool { return slices.Contains(f.All(), entry) }

// Len returns how many entries there are.
func (f *Fleeting) Len() int { return len(f.All()) }

// All returns the entries in the order they were added.
func (f *Fleeting) All() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.entries)
}

// Damaged returns the zero time.
func (f *Fleeting) Damaged() time.Time { return time.Time{} }
