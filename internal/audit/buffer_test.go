package audit_test

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
)

// gate is a sink that takes events only while it is open.
type gate struct {
	trail
	open chan struct{} // closed when the gate is open
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) Record(e audit.Event) {
	<-g.open
	g.trail.Record(e)
}

// numbered returns the n-th event.
func numbered(n int) audit.Event { return audit.Event{Kind: audit.Accepted, Door: strconv.Itoa(n)} }

// expectNumbered checks that the events are those from 0 to n-1.
func expectNumbered(t *testing.T, events []audit.Event, n int) {
	t.Helper()
	if len(events) != n {
		t.Errorf("%d events, want %d", len(events), n)
	}
	for i, e := range events {
		if e.Door != strconv.Itoa(i) {
			t.Fatalf("event %d is %v", i, e)
		}
	}
}

func TestBufferPassesEventsOnInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got trail
		b := audit.NewBuffer(&got)
		for n := range 10 {
			b.Record(numbered(n))
		}
		synctest.Wait()
		expectNumbered(t, got, 10) // although nobody has closed the buffer
		b.Close()
	})
}

func TestBufferNeverWaitsForItsSinkAndCountsWhatItDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const dropped = 100
		sink := newGate()
		b := audit.NewBuffer(sink)
		b.Record(numbered(0))
		synctest.Wait() // until the sink hangs at the first event
		start := time.Now()
		for n := range audit.BufferSize + dropped {
			b.Record(numbered(1 + n))
		}
		time.Sleep(time.Minute)
		close(sink.open)
		b.Close()
		if waited := time.Since(start) - time.Minute; waited != 0 {
			t.Errorf("waited %v", waited)
		}

		// The loss is recorded once, after the first event that the sink takes again.
		var kept []audit.Event
		for i, e := range sink.trail {
			if e.Kind != audit.Overloaded {
				kept = append(kept, e)
				continue
			}
			if i != 1 || e.Count != dropped || e.Code != audit.CodeEventsLost || e.Reason == "" || !e.Time.Equal(start.Add(time.Minute)) {
				t.Errorf("event %d tells of the loss: %+v, want event 1 to tell of %d", i, e, dropped)
			}
		}
		if len(sink.trail) != len(kept)+1 {
			t.Errorf("the loss is told of %d times", len(sink.trail)-len(kept))
		}
		expectNumbered(t, kept, 1+audit.BufferSize)
	})
}

// slow is a sink that takes a while for each event.
type slow struct{ trail }

func (s *slow) Record(e audit.Event) {
	time.Sleep(time.Millisecond)
	s.trail.Record(e)
}

func TestBufferCloseWaitsForASlowSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 100
		var sink slow
		b := audit.NewBuffer(&sink)
		start := time.Now()
		for n := range events {
			b.Record(numbered(n))
		}
		b.Close()
		expectNumbered(t, sink.trail, events)
		if took := time.Since(start); took != events*time.Millisecond {
			t.Errorf("Close took %v, want %v", took, events*time.Millisecond)
		}
	})
}

func TestBufferCloseDoesNotWaitForEverForAStuckSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newGate()
		b := audit.NewBuffer(sink)
		for n := range 3 {
			b.Record(numbered(n))
		}
		start := time.Now()
		b.Close()
		if took := time.Since(start); took != audit.ClosePatience {
			t.Errorf("Close took %v, want %v", took, audit.ClosePatience)
		}
		// When the sink continues after all, nothing is lost.
		close(sink.open)
		synctest.Wait()
		expectNumbered(t, sink.trail, 3)
	})
}

func TestBufferClosesWithNothingToPassOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got trail
		b := audit.NewBuffer(&got)
		start := time.Now()
		b.Close()
		if took := time.Since(start); took != 0 || len(got) != 0 {
			t.Errorf("Close took %v and passed on %d events", took, len(got))
		}
	})
}
