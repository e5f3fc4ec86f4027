package wall

import (
	"sync"
	"testing"

	"github.com/knockwall/knockwall/internal/audit"
)

// Windows change on several goroutines at once. The observers get all events, in the order
// of the changes, and each goroutine can rely on it that its own events were delivered.
func TestObserversLoseNothingAndGetTheEventsInOrder(t *testing.T) {
	const goroutines, each = 8, 200
	ws := &windows{}
	var first, second []int // the counts of the events that each observer got
	changed := 0
	ws.observers = []observer{
		func(e windowEvent) { first = append(first, e.Count) },
		func(e windowEvent) {
			second = append(second, e.Count)
			if len(first) != len(second) {
				t.Errorf("the second observer has %d events when the first has %d", len(second), len(first))
			}
		},
	}
	var wait sync.WaitGroup
	for range goroutines {
		wait.Go(func() {
			for range each {
				ws.mu.Lock()
				changed++
				own := changed
				ws.undelivered = append(ws.undelivered, windowEvent{Event: audit.Event{Count: own}})
				ws.mu.Unlock()
				ws.notify()
				ws.observing.Lock()
				if len(first) < own {
					t.Errorf("event %d is not delivered: there were %d", own, len(first))
				}
				ws.observing.Unlock()
			}
		})
	}
	wait.Wait()
	for _, got := range [][]int{first, second} {
		if len(got) != goroutines*each {
			t.Errorf("%d events, want %d", len(got), goroutines*each)
		}
		for i, n := range got {
			if n != i+1 {
				t.Fatalf("event %d comes as number %d", n, i+1)
			}
		}
	}
}
