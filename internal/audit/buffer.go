package audit

import (
	"sync/atomic"
	"time"
)

// bufferSize is how many events wait for a slow sink, at about 200 bytes each.
const bufferSize = 4096

// closePatience is how long Close waits for a sink that hangs.
const closePatience = 2 * time.Second

// Buffer passes events on to a sink from its own goroutine, so that no packet waits for a
// slow terminal or log. When the buffer is full, it drops events and counts them.
type Buffer struct {
	events  chan Event
	dropped atomic.Int64
	closing chan struct{}
	done    chan struct{}
}

// NewBuffer returns a Buffer before a sink.
func NewBuffer(sink Sink) *Buffer {
	b := &Buffer{
		events:  make(chan Event, bufferSize),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go b.drain(sink)
	return b
}

// Record takes an event. It never waits.
func (b *Buffer) Record(e Event) {
	select {
	case b.events <- e:
	default:
		b.dropped.Add(1)
	}
}

// Close passes on the waiting events, unless the sink hangs.
func (b *Buffer) Close() {
	close(b.closing)
	select {
	case <-b.done:
	case <-time.After(closePatience):
	}
}

func (b *Buffer) drain(sink Sink) {
	defer close(b.done)
	for {
		select {
		case e := <-b.events:
			b.pass(sink, e)
			continue
		default:
		}
		select {
		case e := <-b.events:
			b.pass(sink, e)
		case <-b.closing:
			if len(b.events) == 0 {
				return
			}
		}
	}
}

func (b *Buffer) pass(sink Sink, e Event) {
	sink.Record(e)
	if n := b.dropped.Swap(0); n > 0 {
		sink.Record(Event{Time: time.Now(), Kind: Overloaded, Code: CodeEventsLost, Count: int(n), Reason: "events came faster than they could be written"})
	}
}
