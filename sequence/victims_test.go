package sequence_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// few is the most attempts that most of the Trackers here follow.
const few = 16

func fewTracker(doors ...sequence.Lock) *sequence.Tracker {
	return sequence.NewTracker(doors, reorder, few, time.Now())
}

// strangers send first knocks, each from a new address.
type strangers struct {
	*sequence.Tracker
	n uint32
}

func (s *strangers) next() *client {
	s.n++
	return &client{Tracker: s.Tracker, addr: netip.AddrFrom4([4]byte{10, byte(s.n >> 16), byte(s.n >> 8), byte(s.n)})}
}

// come makes n of them knock at these ports in turn.
func (s *strangers) come(n int, ports ...uint16) {
	for range n {
		s.next().knock(ports...)
	}
}

// moveToVictims makes enough of them come that all new attempts are evicted, and not so
// many that a victim is forgotten.
func moveToVictims(t *sequence.Tracker) { (&strangers{Tracker: t}).come(2*few, 7000) }

func isFollowed(t *sequence.Tracker, addr netip.Addr) bool {
	for a := range t.All(time.Now()) {
		if a.Source.Addr() == addr {
			return true
		}
	}
	return false
}

// An honest client gets through a flood of first knocks, however slowly it knocks.
func TestAnHonestClientGoesOnInAFlood(t *testing.T) {
	const most, clients = 256, 200
	for _, tt := range []struct {
		flood int // first knocks for each attempt that can be followed
		least int // clients that have to get through
	}{
		{1, clients}, {4, clients * 99 / 100}, {8, clients * 95 / 100}, {11, clients * 80 / 100}, {15, clients * 45 / 100},
	} {
		for _, steps := range []int{1, 2, 3, 5} {
			t.Run(fmt.Sprintf("%d steps, %d times as many strangers as are followed", steps, tt.flood), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := door([]uint16{7000, 8000, 9000, 10000, 11000}[:steps]...)
					tracker := sequence.NewTracker([]sequence.Lock{d}, reorder, most, time.Now())
					strangers := &strangers{Tracker: tracker}
					flood := func(n int) {
						for range n * most {
							strangers.come(1, 7000)
							time.Sleep(2 * time.Microsecond)
						}
					}
					flood(20) // until there is no place left
					honest := make([]*client, clients)
					for i := range honest {
						honest[i] = &client{Tracker: tracker, addr: netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})}
					}
					through := map[*client]bool{}
					var last []packet.Packet
					for _, step := range d.Steps {
						last = last[:0]
						for _, c := range honest {
							p := c.dial(step)
							out := c.send(p)
							through[c] = out.Progress == sequence.Completed && out.Step == steps
							last = append(last, p)
						}
						flood(tt.flood)
						time.Sleep(time.Second)
					}
					n := 0
					for i, c := range honest {
						// At a door of one knock, a retransmission must not open it
						// again.
						if through[c] && (steps > 1 || c.send(last[i]) == nothing(1)) {
							n++
						}
					}
					if n < tt.least {
						t.Errorf("%d of %d get through, want %d", n, clients, tt.least)
					}
					check(t, tracker)
				})
			})
		}
	}
}

// An evicted attempt goes on as if it had not been evicted.
func TestADisplacedAttemptGoesOn(t *testing.T) {
	type knock struct {
		port uint16 // 0: a retransmission of the first knock
		wait time.Duration
		want sequence.Outcome
	}
	for _, tt := range []struct {
		name   string
		knocks []knock
	}{
		{"in order", []knock{{8000, 0, advanced(2)}, {9000, 0, completed(3)}}},
		{"as late as may be", []knock{{8000, timeout, advanced(2)}, {9000, 0, completed(3)}}},
		{"too late", []knock{{8000, timeout + time.Microsecond, early(0)}, {7000, 0, advanced(2)}}},
		{"too late, later", []knock{{8000, timeout, advanced(2)}, {9000, 1, after(sequence.TooLate, 2, early(0))}}},
		{"the first again", []knock{{0, 0, nothing(1)}, {8000, 0, advanced(2)}}},
		{"the first again, too late", []knock{{0, timeout + time.Microsecond, advanced(1)}, {8000, timeout, advanced(2)}}},
		{"the first redialled", []knock{{7000, 0, nothing(1)}, {8000, 0, advanced(2)}, {0, 0, nothing(2)}}},
		{"the first redialled begins the time anew", []knock{{7000, timeout, nothing(1)}, {8000, timeout, advanced(2)}, {0, 0, nothing(2)}}},
		{"the first redialled, too late", []knock{{7000, timeout, nothing(1)}, {8000, timeout + 1, after(sequence.TooLate, 1, early(0))}}},
		{"overtaking", []knock{{9000, 0, early(1)}, {8000, reorder, completed(3)}}},
		{"in the wrong order", []knock{{9000, 0, early(1)}, {8000, reorder + 1, after(sequence.WrongOrder, 1, early(0))}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tracker := fewTracker(door(7000, 8000, 9000))
				c := &client{Tracker: tracker, addr: alice}
				first := c.dial(tcp(7000))
				expect(t, "first", c.send(first), advanced(1))
				moveToVictims(tracker)
				if isFollowed(tracker, alice) || tracker.Len() != few || tracker.Evicted() != few+1 {
					t.Errorf("%d attempts, %d were evicted", tracker.Len(), tracker.Evicted())
				}
				for i, k := range tt.knocks {
					time.Sleep(k.wait)
					p := first
					if k.port != 0 {
						p = c.dial(tcp(k.port))
					}
					expect(t, fmt.Sprintf("knock %d", i+1), c.send(p), k.want)
				}
				check(t, tracker)
			})
		})
	}
}

func TestADisplacedAttemptMayGiveWayAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := fewTracker(door(7000, 8000, 9000))
		c := &client{Tracker: tracker, addr: alice}
		first := c.dial(tcp(7000))
		c.send(first)
		for range 5 {
			moveToVictims(tracker)
			time.Sleep(timeout / 5)
			expect(t, "the first again", c.send(first), nothing(1))
		}
		expect(t, "second", c.knock(8000), advanced(2))
		time.Sleep(time.Nanosecond)
		expect(t, "last, too late", c.knock(9000), after(sequence.TooLate, 2, early(0)))
	})
}

// Of a victim the first dial is recognized, and the latest.
func TestARedialOfADisplacedAttemptIsKnown(t *testing.T) {
	for _, port := range []packet.Port{tcp(7000), udp(7000)} {
		for dials := 1; dials <= 3; dials++ {
			synctest.Test(t, func(t *testing.T) {
				tracker := fewTracker(doorOf(port, tcp(8000), tcp(9000)))
				c := &client{Tracker: tracker, addr: alice}
				var sent []packet.Packet
				for range dials {
					sent = append(sent, c.dial(port))
					c.send(sent[len(sent)-1])
				}
				strangers := &strangers{Tracker: tracker}
				for range 2 * few {
					s := strangers.next()
					s.send(s.dial(port))
				}
				if isFollowed(tracker, alice) {
					t.Error("alice's is not evicted")
				}
				expect(t, "second", c.knock(8000), advanced(2))
				expect(t, "first dial again", c.send(sent[0]), nothing(2))
				expect(t, "latest dial again", c.send(sent[dials-1]), nothing(2))
				check(t, tracker)
				if dials == 3 {
					expect(t, "the dial between", c.send(sent[1]), after(sequence.WrongOrder, 2, advanced(1)))
				}
			})
		}
	}
}

// All bits of a victim are in their places.
func TestWhatIsRememberedOfTheDisplaced(t *testing.T) {
	for range 1000 {
		was := time.Duration(rand.Int64N(8*365*24*int64(time.Hour))) / time.Microsecond * time.Microsecond
		first := packet.Packet{SourcePort: uint16(rand.Uint32()), Sequence: rand.Uint32()}
		again := packet.Packet{SourcePort: uint16(rand.Uint32()), Sequence: rand.Uint32()}
		if err := sequence.RoundTrip(was, first, again); err != nil {
			t.Fatal(err)
		}
	}
}

// Only a first knock is remembered, and no early one.
func TestEarlyKnocksOfDisplacedAttemptsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := fewTracker(door(7000, 8000, 9000))
		a, b := &client{Tracker: tracker, addr: alice}, &client{Tracker: tracker, addr: bob}
		expect(t, "alice's last, overtaking", a.knock(7000, 9000), early(1))
		expect(t, "bob's second, overtaking", b.knock(8000), early(0))
		moveToVictims(tracker)
		if got, ok := tracker.Of(0, single(bob)); ok {
			t.Errorf("bob's is remembered: %+v", got)
		}
		expect(t, "alice's second", a.knock(8000), advanced(2))
		expect(t, "bob's first", b.knock(7000), advanced(1))
		expect(t, "bob's second", b.knock(8000), advanced(2))
	})
}

func TestAnAttemptUnderWayStaysWhileOthersYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := fewTracker(door(7000, 8000, 9000, 10000))
		strangers := &strangers{Tracker: tracker}
		a := &client{Tracker: tracker, addr: alice}
		expect(t, "alice's third", a.knock(7000, 8000, 9000), advanced(3))
		strangers.come(few-1, 7000)
		for i := range few - 1 { // these evict the former
			strangers.come(1, 7000, 8000)
			if !isFollowed(tracker, alice) {
				t.Fatalf("alice's is evicted by number %d, though others have come less far", i+1)
			}
			time.Sleep(time.Millisecond)
		}
		check(t, tracker)
		begun := 0
		for a := range tracker.All(time.Now()) {
			if a.Step == 1 {
				begun++
			}
		}
		if begun != 0 || tracker.Evicted() != few-1 {
			t.Errorf("%d have taken one step, %d were evicted", begun, tracker.Evicted())
		}
		// No attempt has come less far: the oldest is evicted.
		strangers.come(1, 7000)
		if isFollowed(tracker, alice) {
			t.Error("alice's is not evicted")
		}
		if got, ok := tracker.Of(0, single(alice)); ok {
			t.Errorf("of three steps is remembered: %+v", got)
		}
		// The next attempt evicts the one that has just begun.
		was := tracker.Len()
		strangers.come(2*few, 7000)
		under := 0
		for a := range tracker.All(time.Now()) {
			if a.Step == 2 {
				under++
			}
		}
		if under != few-1 || tracker.Len() != was {
			t.Errorf("%d of %d have taken two steps", under, tracker.Len())
		}
	})
}

// A complete attempt is evicted like one that has just begun.
func TestACompleteAttemptYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := fewTracker(door(7000, 8000, 9000))
		strangers := &strangers{Tracker: tracker}
		a, b := &client{Tracker: tracker, addr: alice}, &client{Tracker: tracker, addr: bob}
		expect(t, "bob's second", b.knock(7000, 8000), advanced(2))
		expect(t, "alice's second", a.knock(7000, 8000), advanced(2))
		strangers.come(few-2, 7000)
		last := a.dial(tcp(9000))
		expect(t, "alice's last", a.send(last), completed(3))
		strangers.come(few-2, 7000) // which evict those before
		expect(t, "alice's last, again", a.send(last), nothing(3))
		strangers.come(1, 7000)
		expect(t, "alice's last, again", a.send(last), early(0))
		strangers.come(few, 7000)
		expect(t, "bob's last", b.knock(9000), completed(3))
		check(t, tracker)
	})
}

// An attempt that begins again is the newest, and yields.
func TestAnAttemptThatBeginsAgainYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := fewTracker(door(7000, 8000, 9000, 7000))
		a := &client{Tracker: tracker, addr: alice}
		expect(t, "the first port again", a.knock(7000, 8000, 7000), early(2))
		time.Sleep(reorder + 1)
		expect(t, "the same again", a.knock(8000), after(sequence.WrongOrder, 2, advanced(2)))
		a.knock(7000)
		time.Sleep(reorder + 1)
		expect(t, "and again", a.knock(7000), after(sequence.WrongOrder, 2, nothing(1)))
		check(t, tracker)
		moveToVictims(tracker)
		if isFollowed(tracker, alice) {
			t.Error("alice's is not evicted")
		}
		expect(t, "second", a.knock(8000), advanced(2))
		check(t, tracker)
	})
}

func TestReplaceForgetsWhatWasDisplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := door(7000, 8000)
		tracker := fewTracker(d, d)
		c := &client{Tracker: tracker, addr: alice}
		for lock := range 2 {
			tracker.Knock(lock, c.dial(tcp(7000)), time.Now())
		}
		moveToVictims(tracker)
		tracker.Replace(0, d.Steps)
		if got, ok := tracker.Of(0, single(alice)); ok {
			t.Errorf("remembered: %+v", got)
		}
		expect(t, "second", c.knock(8000), early(0))
		expect(t, "second at the other", tracker.Knock(1, c.dial(tcp(8000)), time.Now()), completed(2))
	})
}

func TestADisplacedAttemptIsFoundAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := fewTracker(door(7000, 8000))
		a := &client{Tracker: tracker, addr: alice}
		want := sequence.Attempt{Source: single(alice), Step: 1, Started: time.Now()}
		a.knock(7000)
		moveToVictims(tracker)
		// Victims may be late or not, as attempts that are followed.
		for range 2 {
			if got, ok := tracker.Of(0, single(alice)); !ok || got != want {
				t.Errorf("%+v, %t, want %+v", got, ok, want)
			}
			time.Sleep(timeout + 1)
		}
		if got, ok := tracker.Forget(0, single(alice)); !ok || got != want {
			t.Errorf("%+v, %t, want %+v", got, ok, want)
		}
		if got, ok := tracker.Of(0, single(alice)); ok {
			t.Errorf("forgotten: %+v", got)
		}
		if got, ok := tracker.Forget(0, single(alice)); ok {
			t.Errorf("forgotten twice: %+v", got)
		}
		tracker.Expire(time.Now(), func(a sequence.Attempt) {
			if a.Source == single(alice) {
				t.Errorf("ended: %+v", a)
			}
		})
	})
}

func TestWhatWasDisplacedIsInherited(t *testing.T) {
	d, other := door(7000, 8000, 9000), door(1, 2)
	same := func(lock int) int { return lock }
	for _, tt := range []struct {
		name   string
		locks  []sequence.Lock
		most   int
		lockOf func(int) int
		kept   bool
	}{
		{"all the same", []sequence.Lock{d, other}, few, same, true},
		{"a lock more", []sequence.Lock{d, other, other}, few, same, true},
		{"a lock less", []sequence.Lock{d}, few, func(lock int) int { return -lock }, false},
		{"another order", []sequence.Lock{other, d}, few, func(lock int) int { return 1 - lock }, false},
		{"more attempts", []sequence.Lock{d, other}, few + 1, same, false},
		{"fewer attempts", []sequence.Lock{d, other}, few - 1, same, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				former := fewTracker(d, other)
				former.Replace(0, d.Steps) // which is inherited, too
				c := &client{Tracker: former, addr: alice}
				c.knock(7000)
				moveToVictims(former)
				time.Sleep(time.Second)
				tracker := sequence.NewTracker(tt.locks, reorder, tt.most, time.Now())
				tracker.Inherit(former, tt.lockOf)
				check(t, tracker)
				if _, ok := former.Of(0, single(alice)); ok == tt.kept {
					t.Errorf("the former remembers it: %t", ok)
				}
				lock := max(tt.lockOf(0), 0)
				time.Sleep(timeout - time.Second)
				want := early(0)
				if tt.kept {
					want = advanced(2)
				}
				expect(t, "second", tracker.Knock(lock, c.dial(tcp(8000)), time.Now()), want)
			})
		})
	}
}

// The attempts that have come furthest are inherited first. Of the others the first knock
// is remembered.
func TestAttemptsThatAreInheritedGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := door(7000, 8000, 9000)
		former := newTracker(d)
		a, b, e := &client{Tracker: former, addr: alice}, &client{Tracker: former, addr: bob}, &client{Tracker: former, addr: carol6}
		e.knock(7000)
		a.knock(7000, 8000)
		b.knock(7000)
		tracker := sequence.NewTracker([]sequence.Lock{door(1), d}, reorder, 1, time.Now())
		tracker.Inherit(former, func(int) int { return 1 })
		check(t, tracker)
		if !isFollowed(tracker, alice) || tracker.Len() != 1 || tracker.Evicted() != 2 {
			t.Errorf("%d attempts are inherited, %d were evicted", tracker.Len(), tracker.Evicted())
		}
		expect(t, "alice's last", tracker.Knock(1, a.dial(tcp(9000)), time.Now()), completed(3))
		for _, c := range []*client{b, e} {
			expect(t, "second", tracker.Knock(1, c.dial(tcp(8000)), time.Now()), advanced(2))
		}
	})
}

// A daemon runs for years.
func TestDisplacedLongAfterTheEpoch(t *testing.T) {
	for _, since := range []time.Duration{0, 50 * 24 * time.Hour, 8 * 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			tracker := sequence.NewTracker([]sequence.Lock{door(7000, 8000, 9000)}, reorder, few, time.Now().Add(-since))
			a, b := &client{Tracker: tracker, addr: alice}, &client{Tracker: tracker, addr: bob}
			begun := time.Now()
			a.knock(7000)
			b.knock(7000)
			moveToVictims(tracker)
			if got, ok := tracker.Of(0, single(alice)); !ok || !got.Started.Equal(begun) {
				t.Errorf("after %s: %+v, %t", since, got, ok)
			}
			time.Sleep(timeout)
			expect(t, "second", a.knock(8000), advanced(2))
			time.Sleep(time.Microsecond)
			expect(t, "second, too late", b.knock(8000), early(0))
		})
	}
}

// The memory that the documentation of a Tracker states.
func TestSizes(t *testing.T) {
	for _, tt := range []struct {
		what      string
		got, want uintptr
	}{
		{"an attempt, with two heads of chains of 4 bytes", sequence.SizeOfAttempt + 2*4, 80},
		{"a step of an attempt", sequence.SizeOfHearing + sequence.SizeOfAgain, 20},
		{"of that, what is touched only as it is dialled again", sequence.SizeOfAgain, 12},
		{"a victim", sequence.SizeOfFirstKnock, 16},
		{"a bucket of victims", sequence.SizeOfShelf, 64},
	} {
		if tt.got > tt.want { // slightly less on 32-bit machines
			t.Errorf("%s takes %d bytes, want %d", tt.what, tt.got, tt.want)
		}
	}
	for most, want := range map[int]int{1: 16, 2: 32, 3: 64, 16: 256, 17: 512, defaultAttempts: 1_048_576} {
		tracker := sequence.NewTracker([]sequence.Lock{door(7000, 8000)}, reorder, most, time.Now())
		strangers := &strangers{Tracker: tracker}
		strangers.come(most, 7000)
		if places, _ := tracker.Displaced(); places != 0 {
			t.Errorf("of %d attempts: %d places before any is evicted", most, places)
		}
		strangers.come(1, 7000)
		if places, taken := tracker.Displaced(); places != want || taken != 1 {
			t.Errorf("of %d attempts: %d of %d places are taken, want 1 of %d", most, taken, places, want)
		}
	}
}

// Evicting and restoring attempts does not allocate, after the first eviction.
func TestDisplacedAttemptsDoNotAllocate(t *testing.T) {
	now := time.Now()
	tracker := fewTracker(door(7000, 8000, 9000))
	strangers := &strangers{Tracker: tracker}
	strangers.come(few+1, 7000)
	a := &client{Tracker: tracker, addr: alice}
	other := packet.Packet{Port: tcp(7000)}
	reached := map[sequence.Outcome]int{advanced(1): 0, advanced(2): 0, completed(3): 0, nothing(1): 0}
	round := func() {
		for _, port := range []uint16{7000, 7000, 8000, 9000} {
			now = now.Add(reorder)
			reached[a.Knock(0, a.dial(tcp(port)), now)]++
			for range 2 * few {
				strangers.n++
				other.Source = netip.AddrFrom4([4]byte{10, byte(strangers.n >> 16), byte(strangers.n >> 8), byte(strangers.n)})
				tracker.Knock(0, other, now)
			}
		}
	}
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for out, n := range reached {
		if n < 50 {
			t.Errorf("%+v %d times", out, n)
		}
	}
	if n := len(reached); n != 4 {
		t.Errorf("%d outcomes: %v", n, reached)
	}
}

func TestWhatIsRememberedOfTheDisplacedIsBounded(t *testing.T) {
	for attempts, victimBuckets := range map[int]int{1: 4, 3: 16, 65536: 1 << 18, 65537: 1 << 18, 1 << 22: 1 << 18} {
		if got := sequence.ShelvesFor(attempts); got != victimBuckets {
			t.Errorf("for %d attempts there are %d buckets, want %d", attempts, got, victimBuckets)
		}
	}
}
