package wall

import (
	"fmt"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// Constants for the tests.
const (
	SweepInterval    = sweepInterval
	MaxRefusalDelay  = maxRefusalDelay
	StrangersWaiting = strangersQueueLen
	KeptUsed         = keepUsed
	MostUsed         = maxUsed
	MaxChanges       = maxChanges
	Worthless        = method.UseLifetime
	MostLearned      = maxLearned
	LookAtClock      = clockInterval
	MaxOpenings      = maxOpenings
	MaxTogether      = maxBatch
	MaxEnded         = maxEnded
)

// ApplyAt installs the configuration that is effective at now, as if the clock said so.
func (w *Wall) ApplyAt(now time.Time) { w.rules.applyEffective(now) }

// Locked reports whether a lock is held that packets may wait for.
func (w *Wall) Locked() bool {
	for _, mu := range []*sync.Mutex{&w.packets.mu, &w.windows.mu} {
		if !mu.TryLock() {
			return true
		}
		mu.Unlock()
	}
	return false
}

// EndCommands ends all commands, as a daemon does that stops.
func (w *Wall) EndCommands() { w.commands.close() }

// EndedAtTheEnd records the result of an on_open that the stopping daemon interrupts.
func EndedAtTheEnd(store Store, record func(audit.Event), e audit.Event) {
	newCommands(store, nil, record).ended(command.Result{Job: command.Job{For: task{name: "on_open", event: e}}, Err: command.ErrClosed})
}

// Queue queues a window to be opened, as the last knock of a source does, and leaves it to
// others to open it.
func (w *Wall) Queue(door string, source packet.Source, length time.Duration) {
	w.windows.queue.add(&opening{door: door, source: source, length: length,
		why: audit.Event{Time: time.Now(), Door: door, Source: source, Code: audit.CodeSequence}})
}

// UseUpDoors gives names to doors, until so many have been in force that left more can be.
func (w *Wall) UseUpDoors(left int) {
	for i := w.packets.doors.len(); i < maxDoorIDs-left; i++ {
		w.packets.doors.id(fmt.Sprintf("former-%d", i))
	}
}
