package wall

import "time"

// The times and numbers that the tests are about.
const (
	SweepInterval    = sweepInterval
	Patience         = patience
	StrangersWaiting = strangersWaiting
	KeptUsed         = keptUsed
	MostUsed         = mostUsed
	Worthless        = worthless
	LookAtClock      = lookAtClock
	MaxOpenings      = maxOpenings
	MaxTogether      = maxTogether
	MaxEnded         = maxEnded
)

// TurnTo puts the sequences in force that are good at a time, as if a clock said so.
func (w *Wall) TurnTo(now time.Time) { w.turnTo(now) }

// Locked reports whether somebody holds the lock on the wall's notes.
func (w *Wall) Locked() bool {
	if !w.mu.TryLock() {
		return true
	}
	w.mu.Unlock()
	return false
}
