package sequence_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

const (
	knownSources = 100_000
	mostAttempts = 131_072
)

// crowd is many sources that knock at one door, each at its own time. One in six of them
// is unknown at first.
type crowd struct {
	tracker *sequence.Tracker
	steps   []packet.Port
	next    [knownSources * 6 / 5]uint8 // the step that each source takes next
	random  uint32
	now     time.Time
	knocks  uint32
}

func newCrowd(most int) *crowd {
	now := time.Now()
	d := door(7000, 8000, 9000)
	c := &crowd{tracker: sequence.NewTracker([]sequence.Lock{d}, reorder, most, now), steps: d.Steps, random: 1, now: now}
	for source := range knownSources {
		c.knock(uint32(source))
	}
	return c
}

// knock makes a source knock its next step.
func (c *crowd) knock(source uint32) sequence.Outcome {
	step := c.next[source]
	c.next[source] = (step + 1) % uint8(len(c.steps))
	c.knocks++
	c.now = c.now.Add(time.Microsecond)
	return c.tracker.Knock(0, packet.Packet{
		Source:     netip.AddrFrom4([4]byte{10, byte(source >> 16), byte(source >> 8), byte(source)}),
		SourcePort: uint16(c.knocks),
		Port:       c.steps[step],
		Sequence:   c.knocks,
		Flags:      packet.SYN,
	}, c.now)
}

// any makes any of the sources knock. Choosing it must cost next to nothing.
func (c *crowd) any() sequence.Outcome {
	c.random = c.random*1664525 + 1013904223
	return c.knock(uint32(uint64(c.random) * uint64(len(c.next)) >> 32))
}

func BenchmarkKnock(b *testing.B) {
	c := newCrowd(mostAttempts)
	if n := c.tracker.Len(); n != knownSources {
		b.Fatalf("%d sources are known", n)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.any()
	}
}

// Nearly every knock evicts the oldest attempt.
func BenchmarkKnockWhenFull(b *testing.B) {
	c := newCrowd(1024)
	b.ReportAllocs()
	for b.Loop() {
		c.any()
	}
}

func TestKnockDoesNotAllocate(t *testing.T) {
	for name, most := range map[string]int{"with room": mostAttempts, "when full": 1024} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(most)
			reached := map[sequence.Progress]int{sequence.Advanced: 0, sequence.Completed: 0, sequence.Early: 0}
			if n := testing.AllocsPerRun(50_000, func() { reached[c.any().Progress]++ }); n != 0 {
				t.Errorf("%v allocations", n)
			}
			if reached[sequence.Advanced] == 0 {
				t.Errorf("what was reached: %v", reached)
			}
			if full := c.tracker.Evicted() > 0; full != (most < knownSources) {
				t.Errorf("%d attempts were evicted", c.tracker.Evicted())
			}
		})
	}
}

// Lapses, restarts and retransmissions do not allocate.
func TestOddKnocksDoNotAllocate(t *testing.T) {
	now := time.Now()
	c := &client{Tracker: newTracker(door(7000, 8000, 9000, 7000)), addr: alice}
	ended := map[sequence.Reason]int{sequence.NotEnded: 0, sequence.WrongOrder: 0, sequence.TooLate: 0}
	odd := func() {
		for i, port := range []uint16{7000, 8000, 7000, 9000, 8000, 7000, 8000, 7000} {
			p := c.dial(tcp(port))
			now = now.Add(reorder + time.Duration(i)*time.Second/2)
			ended[c.Knock(0, p, now).Ended]++
			c.Knock(0, p, now)
		}
		c.Expire(now, func(sequence.Attempt) {})
	}
	if n := testing.AllocsPerRun(100, odd); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if ended[sequence.WrongOrder] == 0 || ended[sequence.TooLate] == 0 {
		t.Errorf("attempts ended: %v", ended)
	}
}

// flood is first knocks from many sources in turn, at a tracker of the default size.
type flood struct {
	*sequence.Tracker
	now    time.Time
	sent   uint32
	source uint32
}

const (
	floodSources    = 1_000_000
	defaultAttempts = 65_536
)

func newFlood() *flood {
	now := time.Now()
	f := &flood{Tracker: sequence.NewTracker([]sequence.Lock{door(7000, 8000, 9000)}, reorder, defaultAttempts, now), now: now}
	for range floodSources * 2 {
		f.first()
	}
	return f
}

// first is the first knock of the next source. There are 400,000 a second.
func (f *flood) first() sequence.Outcome {
	f.sent++
	if f.source++; f.source == floodSources {
		f.source = 0
	}
	f.now = f.now.Add(2500 * time.Nanosecond)
	return f.Knock(0, packet.Packet{
		Source:     netip.AddrFrom4([4]byte{10, byte(f.source >> 16), byte(f.source >> 8), byte(f.source)}),
		SourcePort: uint16(f.sent),
		Port:       tcp(7000),
		Sequence:   f.sent,
		Flags:      packet.SYN,
	}, f.now)
}

func BenchmarkKnockInAFlood(b *testing.B) {
	f := newFlood()
	b.ReportAllocs()
	for b.Loop() {
		f.first()
	}
}
