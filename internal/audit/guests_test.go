package audit_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
)

// Events of sources that know the knocks. There can be very many of them only if such a
// source forges addresses.

var guestKinds = []audit.Kind{audit.Opened, audit.Refreshed, audit.Accepted, audit.Closed, audit.Expired}

// crowded runs f in a bubble with a Summer that has reached its limit: it has passed on
// SumGuests events of a kind at the door "ssh", each of another source.
func crowded(t *testing.T, kind audit.Kind, f func(t *testing.T, s *audit.Summer, got *trail)) {
	synctest.Test(t, func(t *testing.T) {
		got := new(trail)
		s := audit.NewSummer(got)
		for n := range audit.SumGuests {
			s.Record(guest(kind, n))
		}
		if len(*got) != audit.SumGuests {
			t.Fatalf("%d of the first %d are passed on", len(*got), audit.SumGuests)
		}
		got.take()
		f(t, s, got)
	})
}

func guest(kind audit.Kind, n int) audit.Event {
	return audit.Event{Time: time.Now(), Kind: kind, Door: "ssh", Source: source(n)}
}

func TestSummerSumsUpWhatVeryManyGuestsDo(t *testing.T) {
	for _, kind := range guestKinds {
		t.Run(string(kind), func(t *testing.T) {
			crowded(t, kind, func(t *testing.T, s *audit.Summer, got *trail) {
				const more = 10 * audit.SumLeading
				for range 3 {
					for n := range more {
						s.Record(guest(kind, n))
					}
				}
				if len(*got) != audit.SumLeading {
					t.Errorf("%d more are passed on at once, want %d", len(*got), audit.SumLeading)
				}
				s.Flush()
				total := 0
				for _, e := range *got {
					total += e.Count
				}
				if total != 3*more || len(*got) != 2*audit.SumLeading+1 {
					t.Errorf("%d are counted in %d lines, of %d", total, len(*got), 3*more)
				}
				want := fmt.Sprintf("%s ssh from many other sources ×%d", kind, 3*(more-audit.SumLeading))
				if all := got.take(); !slices.Contains(all, want) {
					t.Errorf("%q is not among %q", want, all)
				}

				for n := range audit.SumGuests {
					s.Record(guest(kind, n))
				}
				if n := len(*got); n != audit.SumGuests {
					t.Errorf("in the next interval %d are passed on, want %d", n, audit.SumGuests)
				}
			})
		})
	}
}

func TestSummerKeepsAGuestsStoryInOrderAmongVeryMany(t *testing.T) {
	crowded(t, audit.Accepted, func(t *testing.T, s *audit.Summer, got *trail) {
		record := func(kind audit.Kind) {
			s.Record(guest(kind, 1))
			time.Sleep(time.Second)
		}
		record(audit.Accepted)
		got.expect(t, "the first beyond them, at once", "accepted ssh 10.0.0.1 ×1")
		record(audit.Accepted)
		record(audit.Accepted)
		got.expect(t, "before anything else happens")
		record(audit.Closed)
		got.expect(t, "in order", "accepted ssh 10.0.0.1 ×2", "closed ssh 10.0.0.1 ×1")
		record(audit.Accepted)
		record(audit.Knock)
		got.expect(t, "before what strangers cause, too", "accepted ssh 10.0.0.1 ×1", "knock ssh 10.0.0.1 ×1")
		record(audit.Accepted)
		record(audit.Knock)
		s.Settle("ssh", source(1))
		got.expect(t, "when somebody asks", "accepted ssh 10.0.0.1 ×1", "knock ssh 10.0.0.1 ×1")
	})
}

// One packet opens a window and is admitted by it, at the same time.
func TestSummerPassesOnWhatOneGuestHasCausedInItsOrder(t *testing.T) {
	crowded(t, audit.Opened, func(t *testing.T, s *audit.Summer, got *trail) {
		for n := range audit.SumGuests {
			s.Record(guest(audit.Accepted, n))
		}
		s.Record(guest(audit.Opened, 1))
		s.Record(guest(audit.Accepted, 1))
		got.take()
		s.Record(guest(audit.Knock, 1))
		got.take()
		for _, kind := range []audit.Kind{audit.Knock, audit.Opened, audit.Accepted} {
			s.Record(guest(kind, 1))
		}
		s.Flush()
		got.expect(t, "the sums", "knock ssh 10.0.0.1 ×1", "opened ssh 10.0.0.1 ×1", "accepted ssh 10.0.0.1 ×1")
	})
}

// A window that could not be closed is reported, however many were closed.
func TestSummerDoesNotLoseWhatFailedAmongVeryMany(t *testing.T) {
	crowded(t, audit.Closed, func(t *testing.T, s *audit.Summer, got *trail) {
		for n := range 10 * audit.SumLeading {
			s.Record(guest(audit.Closed, n))
		}
		got.take()
		failed := guest(audit.Closed, 7)
		failed.Failed, failed.Reason = true, "the kernel says no"
		s.Record(failed)
		s.Record(failed)
		want := "closed ssh 10.0.0.7 the kernel says no ×1"
		got.expect(t, "at once, each time", want, want)
		for range audit.SumGuests - 2 + 1 { // and the first event of a source beyond the limit
			s.Record(failed)
		}
		if n := len(got.take()); n != audit.SumGuests-1 {
			t.Errorf("%d more are passed on, want %d", n, audit.SumGuests-1)
		}
		for range 3 {
			s.Record(failed)
		}
		s.Flush()
		n := 0
		for _, e := range *got {
			if e.Failed != (e.Reason == failed.Reason) {
				t.Errorf("%+v", e)
			}
			if e.Failed {
				n += e.Count
			}
		}
		if n != 3 {
			t.Errorf("%d that failed are counted at the end, want 3: %q", n, got.take())
		}
	})
}

func TestSummerBoundsTheGuestsOfEachDoorAndKindByThemselves(t *testing.T) {
	crowded(t, audit.Opened, func(t *testing.T, s *audit.Summer, got *trail) {
		for n := range 10 * audit.SumLeading {
			s.Record(guest(audit.Opened, n))
		}
		got.take()
		other := guest(audit.Opened, 1000)
		s.Record(other)
		got.expect(t, "at the same door")
		other.Door = "vpn"
		s.Record(other)
		s.Record(other)
		got.expect(t, "at another door", "opened vpn 10.0.3.232 ×1", "opened vpn 10.0.3.232 ×1")
		s.Record(guest(audit.Accepted, 1000))
		s.Record(guest(audit.Accepted, 1000))
		got.expect(t, "another kind", "accepted ssh 10.0.3.232 ×1", "accepted ssh 10.0.3.232 ×1")
		s.Record(guest(audit.Refused, 1000))
		got.expect(t, "what strangers cause", "refused ssh 10.0.3.232 ×1")
	})
}
