package wall

import (
	"slices"
	"sync"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
)

const (
	// maxOpenings is how many windows can wait to be opened. The log is not read on while
	// there are more.
	maxOpenings = 4096
	// maxBatch is how many windows are opened in one transaction. One of that size takes
	// a few milliseconds.
	maxBatch = 512
)

// openingQueue has the windows to open, in the order of the knocks. Its lock may be taken
// with the wall's mu held, and no other lock is taken under it.
type openingQueue struct {
	mu        sync.Mutex
	completed int // completed knocks that are not yet in the queue
	queue     []*opening
	removed   uint64 // how many entries were removed so far
}

// complete records that a knock is complete, and settle that it is in the queue, or opens
// nothing.
func (q *openingQueue) complete() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.completed++
}

func (q *openingQueue) settle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.completed--
}

// add adds a window. It reports whether the queue was empty, and whether it is too long.
func (q *openingQueue) add(o *opening) (first, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, o)
	return len(q.queue) == 1, len(q.queue) > maxOpenings
}

// isEmpty reports whether no window is queued.
func (q *openingQueue) isEmpty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.queue) == 0
}

// isBusy reports whether a window is queued, or about to be.
func (q *openingQueue) isBusy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.completed+len(q.queue) > 0
}

// has reports whether a window of a source is queued.
func (q *openingQueue) has(door string, source packet.Source) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.queue, func(o *opening) bool { return o.source == source && o.door == door })
}

// last returns how many entries will have been removed when all that are queued now are.
func (q *openingQueue) last() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.removed + uint64(len(q.queue))
}

// next returns the windows to open next. No two of them are for the same source and door.
func (q *openingQueue) next() []*opening {
	q.mu.Lock()
	defer q.mu.Unlock()
	known := map[windowKey]bool{}
	for n, o := range q.queue {
		if n == maxBatch || known[o.key()] {
			return slices.Clone(q.queue[:n])
		}
		known[o.key()] = true
	}
	return slices.Clone(q.queue)
}

// remove removes the first n entries, and returns how many were removed so far.
func (q *openingQueue) remove(n int) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = slices.Delete(q.queue, 0, n)
	q.removed += uint64(n)
	return q.removed
}

// progress returns what the watchdog compares.
func (q *openingQueue) progress() progress.Progress {
	q.mu.Lock()
	defer q.mu.Unlock()
	return progress.Progress{Done: q.removed, Idle: len(q.queue) == 0}
}
