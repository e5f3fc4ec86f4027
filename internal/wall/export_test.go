package wall

// The times and numbers that the tests are about.
const (
	SweepInterval    = sweepInterval
	Patience         = patience
	StrangersWaiting = strangersWaiting
)

// Locked reports whether somebody holds the lock on the wall's notes.
func (w *Wall) Locked() bool {
	if !w.mu.TryLock() {
		return true
	}
	w.mu.Unlock()
	return false
}
