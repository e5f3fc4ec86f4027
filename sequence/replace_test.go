package sequence_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// check checks the inside of a tracker.
func check(t *testing.T, tracker *sequence.Tracker) {
	t.Helper()
	if err := tracker.Check(); err != nil {
		t.Error(err)
	}
}

func TestAReplacedLockBeginsAnewAndTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := []sequence.Lock{door(7000, 8000, 9000), door(7000, 8001, 9001)}
		tracker := newTracker(locks...)
		a, b := &client{Tracker: tracker, addr: alice}, &client{Tracker: tracker, addr: bob}
		at := func(lock int, c *client, n uint16) sequence.Outcome {
			return tracker.Knock(lock, c.dial(tcp(n)), time.Now())
		}
		for _, c := range []*client{a, b} {
			for lock := range locks {
				expect(t, "first", at(lock, c, 7000), advanced(1))
			}
		}
		expect(t, "bob's second", at(0, b, 8000), advanced(2))

		tracker.Replace(0, []packet.Port{tcp(7000), tcp(8002)})
		check(t, tracker)
		if tracker.Len() != 2 || tracker.Evicted() != 0 {
			t.Errorf("%d attempts, %d were evicted", tracker.Len(), tracker.Evicted())
		}
		if !slices.Equal(locks[0].Steps, door(7000, 8000, 9000).Steps) {
			t.Errorf("the locks that it was made of are %v", locks[0].Steps)
		}
		expect(t, "what was due", at(0, b, 9000), nothing(0))
		expect(t, "the new last, without a first", at(0, a, 8002), early(0))
		expect(t, "the new first", at(0, a, 7000), completed(2))
		expect(t, "at the other lock", at(1, a, 8001), advanced(2))
		expect(t, "at the other lock", at(1, a, 9001), completed(3))

		// A forgotten attempt does not end, too late or otherwise.
		tracker.Replace(0, []packet.Port{tcp(1)})
		tracker.Replace(1, []packet.Port{tcp(2)})
		time.Sleep(2 * timeout)
		tracker.Expire(time.Now(), func(a sequence.Attempt) { t.Errorf("ended: %+v", a) })
		if tracker.Len() != 0 {
			t.Errorf("%d attempts are left", tracker.Len())
		}
		check(t, tracker)
	})
}

// A list of one-time sequences may go on with a line of the most knocks, and end.
func TestALockHasRoomForLongerSequences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lock := door(7000, 8000)
		lock.Room = sequence.MaxSteps
		tracker := newTracker(lock)
		a, b := &client{Tracker: tracker, addr: alice}, &client{Tracker: tracker, addr: bob}
		expect(t, "first", a.knock(7000), advanced(1))

		var longest []packet.Port
		for i := range sequence.MaxSteps {
			longest = append(longest, tcp(uint16(10000-i)))
		}
		tracker.Replace(0, longest)
		// Each remembers its own knocks, and none of the other's.
		sent := map[*client][]packet.Packet{}
		for i, step := range longest {
			for _, c := range []*client{a, b} {
				p := c.dial(step)
				want := advanced(i + 1)
				if i+1 == len(longest) {
					want = completed(i + 1)
				}
				expect(t, step.String(), c.send(p), want)
				sent[c] = append(sent[c], p)
			}
			for c, packets := range sent {
				for _, p := range packets {
					expect(t, fmt.Sprint(p.Port, " again, of ", c.addr), c.send(p), nothing(i+1))
				}
			}
		}
		check(t, tracker)

		tracker.Replace(0, nil)
		expect(t, "a knock where there is none", a.knock(10000), nothing(0))
		if tracker.Len() != 0 {
			t.Errorf("%d attempts", tracker.Len())
		}
		tracker.Replace(0, lock.Steps)
		expect(t, "as before", a.knock(7000, 8000), completed(2))
		check(t, tracker)
	})
}

func TestReplacedStepsAreInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		former := newTracker(door(7000, 8000, 9000))
		former.Replace(0, []packet.Port{tcp(1), tcp(2), tcp(3)})
		c := &client{Tracker: former, addr: alice}
		expect(t, "of the new steps", c.knock(1, 2), advanced(2))
		tracker := newTracker(door(1, 2, 3))
		tracker.Inherit(former, func(lock int) int { return lock })
		c.Tracker = tracker
		expect(t, "the last", c.knock(3), completed(3))
	})
}

func TestAForgottenAttemptIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := newTracker(door(7000, 8000, 9000), door(7000, 8000, 9000))
		a, b := &client{Tracker: tracker, addr: alice}, &client{Tracker: tracker, addr: bob}
		if got, ok := tracker.Forget(0, single(alice)); ok {
			t.Errorf("before any knock: %+v", got)
		}
		begun := time.Now()
		first := a.dial(tcp(7000))
		a.send(first)
		tracker.Knock(1, first, begun)
		b.knock(7000)
		a.knock(8000)
		want := sequence.Attempt{Source: single(alice), Step: 2, Started: begun}
		got, ok := tracker.Forget(0, single(alice))
		if diff := cmp.Diff(want, got, compareSources); !ok || diff != "" {
			t.Errorf("forgotten: %t (-want +got):\n%s", ok, diff)
		}
		if _, again := tracker.Forget(0, single(alice)); again || tracker.Len() != 2 {
			t.Errorf("forgotten twice: %t; %d attempts", again, tracker.Len())
		}
		check(t, tracker)
		expect(t, "the last", a.knock(9000), early(0))
		tracker.Forget(0, single(alice))
		expect(t, "the first, sent again", a.send(first), advanced(1))
		expect(t, "bob's second", b.knock(8000), advanced(2))
		if a, ok := tracker.Of(1, single(alice)); !ok || a.Step != 1 {
			t.Errorf("at another lock: %+v, %t", a, ok)
		}

		// Complete and late attempts are returned, too.
		b.knock(9000)
		if a, ok := tracker.Forget(0, single(bob)); !ok || a.Step != 3 {
			t.Errorf("complete: %+v, %t", a, ok)
		}
		time.Sleep(timeout + 1)
		if a, ok := tracker.Forget(0, single(alice)); !ok || a.Step != 1 {
			t.Errorf("too late: %+v, %t", a, ok)
		}
		check(t, tracker)
	})
}

func TestSwappedCountsThePairsThatOvertook(t *testing.T) {
	d := door(7000, 8000, 9000, 10000)
	for _, order := range heardOrders[4] {
		// pairs returns the pairs of which the later was heard first, if so many were
		// heard and the others come in order.
		pairs := func(heard int) (n int) {
			all := []byte(order)
			slices.Sort(all[heard:])
			for i := range all {
				for _, after := range all[i:] {
					if after < all[i] {
						n++
					}
				}
			}
			return n
		}
		want := pairs(len(order))
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tracker := newTracker(d)
				c := &client{Tracker: tracker, addr: alice}
				var out sequence.Outcome
				for i, which := range order {
					p := c.dial(d.Steps[which-'1'])
					out = c.send(p)
					c.send(p) // a retransmission, which is no other knock
					so := pairs(i + 1)
					if got := tracker.Swapped(0, single(alice)); got != so {
						t.Errorf("after %d knocks %d pairs are swapped, want %d", i+1, got, so)
					}
				}
				if out.Progress != sequence.Completed {
					t.Fatalf("%+v", out)
				}
				if got := tracker.Swapped(0, single(alice)); got != want {
					t.Errorf("%d pairs are swapped, want %d", got, want)
				}
				if got := tracker.Swapped(0, single(bob)); got != 0 {
					t.Errorf("of a source that has not knocked, %d", got)
				}
				heir := newTracker(door(1), d)
				heir.Inherit(tracker, func(int) int { return 1 })
				if got := heir.Swapped(1, single(alice)); got != want {
					t.Errorf("inherited: %d pairs are swapped, want %d", got, want)
				}
				expect(t, "a new attempt", c.knock(7000, 8000, 9000, 10000), completed(4))
				if got := tracker.Swapped(0, single(alice)); got != 0 {
					t.Errorf("of a new attempt %d pairs are swapped", got)
				}
			})
		})
	}
}

// A doubted attempt goes on like any other, and ends silently.
func TestADoubtedAttempt(t *testing.T) {
	first := func(t *testing.T) *client {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		c.Doubt(0, single(alice)) // without an attempt
		expect(t, "first", c.knock(7000), advanced(1))
		c.Doubt(0, single(alice))
		if a, ok := c.Of(0, single(alice)); !ok || !a.Doubted {
			t.Errorf("%+v, %t", a, ok)
		}
		for a := range c.All(time.Now()) {
			t.Errorf("under way: %+v", a)
		}
		return c
	}
	expired := func(c *client) (n int) {
		c.Expire(time.Now(), func(sequence.Attempt) { n++ })
		return n
	}
	for _, tt := range []struct {
		name  string
		then  func(t *testing.T, c *client)
		ended int // after a time
	}{
		{"ends too late", func(t *testing.T, c *client) {}, 0},
		{"ends too late by a knock", func(t *testing.T, c *client) {
			time.Sleep(timeout + 1)
			expect(t, "second", c.knock(8000), early(0))
			c.Forget(0, single(alice))
		}, 0},
		{"ends by a wrong knock", func(t *testing.T, c *client) {
			c.knock(8000)
			c.Doubt(0, single(alice))
			expect(t, "first", c.knock(7000), advanced(1))
			c.Forget(0, single(alice))
		}, 0},
		{"ends by an early knock", func(t *testing.T, c *client) {
			c.Forget(0, single(alice))
			c.knock(7000, 9000)
			c.Doubt(0, single(alice))
			time.Sleep(reorder + 1)
			expect(t, "second", c.knock(8000), early(0))
			c.Forget(0, single(alice))
		}, 0},
		{"hears nothing early", func(t *testing.T, c *client) {
			expect(t, "last", c.knock(9000), early(0))
			expect(t, "second", c.knock(8000), after(sequence.WrongOrder, 0, early(0)))
			c.Forget(0, single(alice))
		}, 0},
		{"is inherited", func(t *testing.T, c *client) {
			heir := newTracker(door(7000, 8000, 9000))
			heir.Inherit(c.Tracker, func(lock int) int { return lock })
			c.Tracker = heir
		}, 0},
		{"goes on", func(t *testing.T, c *client) { expect(t, "second", c.knock(8000), advanced(2)) }, 1},
		{"begins anew", func(t *testing.T, c *client) {
			time.Sleep(timeout)
			expect(t, "first", c.knock(7000), nothing(1))
			time.Sleep(timeout)
			expect(t, "second", c.knock(8000), advanced(2))
		}, 1},
		{"is meant, after all", func(t *testing.T, c *client) { expect(t, "first", c.knock(7000), nothing(1)) }, 1},
		{"is complete", func(t *testing.T, c *client) { expect(t, "last", c.knock(8000, 9000), completed(3)) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := first(t)
				tt.then(t, c)
				check(t, c.Tracker)
				time.Sleep(timeout + 1)
				if n := expired(c); n != tt.ended {
					t.Errorf("%d ended, want %d", n, tt.ended)
				}
			})
		})
	}
}
