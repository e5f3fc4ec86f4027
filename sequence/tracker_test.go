package sequence_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

const (
	reorder = 20 * time.Millisecond
	timeout = 5 * time.Second
)

var (
	alice  = netip.MustParseAddr("192.0.2.1")
	bob    = netip.MustParseAddr("192.0.2.2")
	alice6 = netip.MustParseAddr("2001:db8::a")
	bob6   = netip.MustParseAddr("2001:db8::b") // of the same /64 as alice6
	carol6 = netip.MustParseAddr("2001:db8:0:1::c")
)

func tcp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }
func udp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.UDP} }

// door returns a door whose knocks are TCP ports.
func door(ports ...uint16) sequence.Lock {
	steps := make([]packet.Port, len(ports))
	for i, n := range ports {
		steps[i] = tcp(n)
	}
	return doorOf(steps...)
}

func doorOf(steps ...packet.Port) sequence.Lock {
	return sequence.Lock{Steps: steps, Timeout: timeout, Prefix: packet.SourcePrefix{IPv4: 32, IPv6: 128}}
}

func newTracker(doors ...sequence.Lock) *sequence.Tracker {
	return sequence.NewTracker(doors, reorder, 16, time.Now())
}

// client is a host that knocks. Each knock is a new connection.
type client struct {
	*sequence.Tracker
	addr        netip.Addr
	connections int
}

func (c *client) dial(port packet.Port) packet.Packet {
	c.connections++
	p := packet.Packet{Source: c.addr, SourcePort: uint16(40000 + c.connections), Port: port}
	if port.Protocol == packet.TCP {
		p.Sequence, p.Flags = uint32(1000*c.connections), packet.SYN
	}
	return p
}

// send passes a packet to the tracker as a knock at door 0.
func (c *client) send(p packet.Packet) sequence.Outcome { return c.Knock(0, p, time.Now()) }

// knock dials TCP ports, and returns the outcome of the last.
func (c *client) knock(ports ...uint16) (out sequence.Outcome) {
	for _, n := range ports {
		out = c.send(c.dial(tcp(n)))
	}
	return out
}

// expect compares an outcome with the wanted one.
func expect(t *testing.T, what string, got, want sequence.Outcome) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

var (
	nothing   = func(step int) sequence.Outcome { return sequence.Outcome{Step: step} }
	early     = func(step int) sequence.Outcome { return sequence.Outcome{Progress: sequence.Early, Step: step} }
	advanced  = func(step int) sequence.Outcome { return sequence.Outcome{Progress: sequence.Advanced, Step: step} }
	completed = func(step int) sequence.Outcome { return sequence.Outcome{Progress: sequence.Completed, Step: step} }
	// after adds to an outcome how the attempt before ended.
	after = func(reason sequence.Reason, steps int, out sequence.Outcome) sequence.Outcome {
		out.Ended, out.EndedAt = reason, steps
		return out
	}
)

// The tests named Row follow the table of what knocks mean in the design.

func TestRowNextKnockIsOneStepOn(t *testing.T) {
	for name, d := range map[string]sequence.Lock{
		"tcp":   doorOf(tcp(7000), tcp(8000), tcp(9000)),
		"udp":   doorOf(udp(7000), udp(8000), udp(9000)),
		"mixed": doorOf(tcp(7000), udp(8000), tcp(8000)),
	} {
		for _, addr := range []netip.Addr{alice, alice6} {
			t.Run(fmt.Sprint(name, " from ", addr), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &client{Tracker: newTracker(d), addr: addr}
					for i, step := range d.Steps {
						want := advanced(i + 1)
						if i == len(d.Steps)-1 {
							want = completed(i + 1)
						}
						expect(t, step.String(), c.send(c.dial(step)), want)
						time.Sleep(time.Second)
					}
				})
			})
		}
	}
}

func TestRowNextKnockWithinTimeoutOfTheFirst(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait time.Duration
		want sequence.Outcome
	}{
		{"just in time", timeout, completed(3)},
		{"just too late", timeout + 1, after(sequence.TooLate, 2, early(0))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
				c.knock(7000)
				// The time counts from the first knock, not from the second.
				time.Sleep(timeout - time.Second)
				c.knock(8000)
				time.Sleep(tt.wait - (timeout - time.Second))
				expect(t, "last knock", c.knock(9000), tt.want)
			})
		})
	}
}

func TestRowSameSYNAgainIsNothing(t *testing.T) {
	for name, d := range map[string]sequence.Lock{
		"tcp":            door(7000, 8000, 9000),
		"udp":            doorOf(udp(7000), udp(8000), udp(9000)),
		"repeated port":  door(7000, 7000, 8000),
		"palindrome":     door(7000, 8000, 7000),
		"one port alone": door(7000, 7000, 7000),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &client{Tracker: newTracker(d), addr: alice}
				var sent []packet.Packet
				for i, step := range d.Steps {
					p := c.dial(step)
					sent = append(sent, p)
					want := advanced(i + 1)
					if i == len(d.Steps)-1 {
						want = completed(i + 1)
					}
					expect(t, step.String(), c.send(p), want)
					for range 2 { // at once and a second later
						for j, p := range sent {
							expect(t, fmt.Sprintf("knock %d again after %d", j+1, i+1), c.send(p), nothing(i+1))
						}
						time.Sleep(500 * time.Millisecond)
					}
				}
			})
		})
	}
}

func TestRowSameEarlySYNAgainIsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		first, second, third := c.dial(tcp(7000)), c.dial(tcp(8000)), c.dial(tcp(9000))
		expect(t, "second knock first", c.send(second), early(0))
		expect(t, "second knock again", c.send(second), nothing(0))
		expect(t, "first knock", c.send(first), advanced(2))
		expect(t, "second knock again", c.send(second), nothing(2))
		expect(t, "first knock again", c.send(first), nothing(2))
		expect(t, "last knock", c.send(third), completed(3))
		expect(t, "second knock again", c.send(second), nothing(3))
	})
}

// Two connections are the same only if port and sequence number agree.
func TestRowSamePortOrSequenceNumberAloneIsNoRetransmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 7000, 7000)), addr: alice}
		p := c.dial(tcp(7000))
		expect(t, "first", c.send(p), advanced(1))
		p.SourcePort++
		expect(t, "from another port", c.send(p), advanced(2))
		p.Sequence++
		expect(t, "with another sequence number", c.send(p), completed(3))
	})
}

func TestRowRedialOfTheStepJustTakenIsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		for i, port := range []uint16{7000, 8000, 9000} {
			c.knock(port)
			for range 3 {
				expect(t, fmt.Sprint("redial of ", port), c.knock(port), nothing(i+1))
				time.Sleep(300 * time.Millisecond)
			}
		}
		expect(t, "new attempt", c.knock(7000), advanced(1))
		expect(t, "new attempt", c.knock(8000), advanced(2))
		expect(t, "new attempt", c.knock(9000), completed(3))
	})
}

// Browsers dial each knock twice or more, and retransmit each of these SYNs as long as
// none is answered, whatever came meanwhile.
func TestRowARedialledSYNAgainIsNothing(t *testing.T) {
	for name, d := range map[string]sequence.Lock{
		"tcp":           door(7000, 8000, 9000),
		"udp":           doorOf(udp(7000), udp(8000), udp(9000)), // of which only the port tells
		"palindrome":    door(7000, 8000, 7000),
		"repeated port": door(7000, 8000, 9000, 8000),
	} {
		for dials := 2; dials <= 4; dials++ {
			t.Run(fmt.Sprint(name, ", dialled ", dials, " times"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &client{Tracker: newTracker(d), addr: alice}
					var sent []packet.Packet
					for i, step := range d.Steps {
						for dial := range dials {
							p := c.dial(step)
							sent = append(sent, p)
							want := advanced(i + 1)
							if i == len(d.Steps)-1 {
								want = completed(i + 1)
							}
							if dial > 0 {
								want = nothing(i + 1)
								if name == "palindrome" && i == len(d.Steps)-1 {
									want = advanced(1) // of a new attempt
								}
								if want.Progress != sequence.Nothing {
									return
								}
							}
							expect(t, fmt.Sprint(step, ", dial ", dial+1), c.send(p), want)
							time.Sleep(reorder + 1)
						}
						for j, p := range sent {
							expect(t, fmt.Sprintf("packet %d again after step %d", j+1, i+1), c.send(p), nothing(i+1))
						}
						time.Sleep(time.Second)
						check(t, c.Tracker)
					}
				})
			})
		}
	}
}

// Only the latest redials are remembered, and always the first dial.
func TestOfManyRedialsTheLatestAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		var sent []packet.Packet
		for i := range 6 {
			sent = append(sent, c.dial(tcp(7000)))
			want := nothing(1)
			if i == 0 {
				want = advanced(1)
			}
			expect(t, fmt.Sprint("dial ", i+1), c.send(sent[i]), want)
		}
		expect(t, "second", c.knock(8000), advanced(2))
		for _, i := range []int{0, 3, 4, 5} {
			expect(t, fmt.Sprintf("dial %d again", i+1), c.send(sent[i]), nothing(2))
		}
		expect(t, "dial 3 again", c.send(sent[2]), after(sequence.WrongOrder, 2, advanced(1)))
	})
}

// What an attempt has heard does not matter to the next attempt in its place.
func TestRedialsAreForgottenWithTheirAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		c.knock(7000)
		again := c.dial(tcp(7000))
		c.send(again)
		c.knock(8000, 7000, 8000) // anew
		expect(t, "a redial of before", c.send(again), after(sequence.WrongOrder, 2, advanced(1)))
		c.Forget(0, single(alice))
		b := &client{Tracker: c.Tracker, addr: bob}
		b.knock(7000, 8000)
		again.Source = bob
		expect(t, "in the same place", b.send(again), after(sequence.WrongOrder, 2, advanced(1)))
	})
}

// A client that dials the first knock again may have begun again, and has the full time.
func TestTheFirstKnockAgainBeginsTheTimeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		first := c.dial(tcp(7000))
		c.send(first)
		time.Sleep(timeout)
		expect(t, "first again", c.knock(7000), nothing(1))
		time.Sleep(timeout)
		expect(t, "first retransmitted", c.send(first), nothing(1))
		expect(t, "second", c.knock(8000), advanced(2))
		expect(t, "second again", c.knock(8000), nothing(2))
		time.Sleep(time.Nanosecond)
		expect(t, "last, too late", c.knock(9000), after(sequence.TooLate, 2, early(0)))
	})
}

// But a knock that has overtaken another waits no longer for it.
func TestTheFirstKnockAgainGivesNoMoreTimeToOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		expect(t, "last, early", c.knock(7000, 9000), early(1))
		time.Sleep(reorder)
		expect(t, "first again", c.knock(7000), nothing(1))
		time.Sleep(time.Nanosecond)
		expect(t, "second", c.knock(8000), after(sequence.WrongOrder, 1, early(0)))
	})
}

// A redial of a port that comes once more later in the sequence may be that later knock,
// but only within the reorder time.
func TestRowRedialIsForgottenWhereThePortComesOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 7000, 9000)), addr: alice}
		expect(t, "first", c.knock(7000), advanced(1))
		expect(t, "redial", c.knock(7000), nothing(1))
		time.Sleep(reorder + 1)
		expect(t, "second", c.knock(8000), advanced(2))
		expect(t, "third", c.knock(7000), advanced(3))
		expect(t, "last", c.knock(9000), completed(4))
	})
}

// permutations calls f with each order of the numbers from 0 to n-1.
func permutations(n int, f func(order []int)) {
	var place func(order []int)
	place = func(order []int) {
		if len(order) == n {
			f(order)
			return
		}
		for i := range n {
			if !slices.Contains(order, i) {
				place(append(slices.Clone(order), i))
			}
		}
	}
	place(nil)
}

// heardOrders are the orders in which the knocks of a sequence count, by their number:
// each knock is in one of two streams, which are merged in any way.
var heardOrders = func() map[int][]string {
	all := map[int][]string{}
	var merge func(n int, heard, one, other string)
	merge = func(n int, heard, one, other string) {
		if len(heard) == n && !slices.Contains(all[n], heard) {
			all[n] = append(all[n], heard)
		}
		if one != "" {
			merge(n, heard+one[:1], one[1:], other)
		}
		if other != "" {
			merge(n, heard+other[:1], one, other[1:])
		}
	}
	for n := 1; n <= 5; n++ {
		for which := range 1 << n {
			var streams [2]string
			for i := range n {
				streams[which>>i&1] += fmt.Sprint(i + 1)
			}
			merge(n, "", streams[0], streams[1])
		}
	}
	return all
}()

// word returns a sequence's steps in an order.
func word(steps []packet.Port, order []int) string {
	var b strings.Builder
	for _, which := range order {
		fmt.Fprint(&b, steps[which], " ")
	}
	return b.String()
}

// areNeighbours reports whether only neighbours are swapped.
func areNeighbours(order []int) bool {
	for i, step := range order {
		if step < i-1 || step > i+1 {
			return false
		}
	}
	return true
}

func TestOrdersAreThoseThatAreHeard(t *testing.T) {
	three := slices.Sorted(slices.Values(heardOrders[3]))
	if want := []string{"123", "132", "213", "231", "312"}; !slices.Equal(three, want) {
		t.Errorf("three knocks are heard in the orders %v, want %v", three, want)
	}
	for n, orders := range heardOrders {
		if got := sequence.Orders(n); got != int64(len(orders)) {
			t.Errorf("of %d knocks there are %d orders, want %d", n, got, len(orders))
		}
	}
}

// Knocks are accepted in the order of two merged streams, and in no other.
func TestRowTheOrderOfTwoStreamsCounts(t *testing.T) {
	for _, d := range []sequence.Lock{
		door(7000),
		door(7000, 8000),
		door(7000, 8000, 9000),
		door(7000, 8000, 9000, 10000),
		door(7000, 8000, 9000, 10000, 11000),
		door(7000, 8000, 7000),
		door(7000, 7000, 8000),
		door(8000, 7000, 7000),
		door(7000, 8000, 8000, 7000),
		door(7000, 8000, 7000, 8000),
		door(7000, 8000, 9000, 7000),
		door(7000, 8000, 7000, 9000, 7000),
		doorOf(udp(7000), udp(8000), udp(9000)),
		doorOf(udp(7000), tcp(7000), udp(7000), tcp(8000)),
	} {
		// If a port comes twice, other orders look like an accepted one. A knock that has
		// overtaken more than its neighbour may look like a redial.
		opens, may := map[string]bool{}, map[string]bool{}
		ports := map[packet.Port]bool{}
		for _, step := range d.Steps {
			ports[step] = true
		}
		permutations(len(d.Steps), func(order []int) {
			name := ""
			for _, which := range order {
				name += fmt.Sprint(which + 1)
			}
			if slices.Contains(heardOrders[len(order)], name) {
				may[word(d.Steps, order)] = true
				if len(ports) == len(order) || areNeighbours(order) {
					opens[word(d.Steps, order)] = true
				}
			}
		})
		permutations(len(d.Steps), func(order []int) {
			t.Run(fmt.Sprint(d.Steps, order), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &client{Tracker: newTracker(d), addr: alice}
					var out sequence.Outcome
					ended := false
					for i, which := range order {
						if i == len(order)-1 {
							time.Sleep(reorder) // missing knocks are late by then
						}
						out = c.send(c.dial(d.Steps[which]))
						ended = ended || out.Ended != sequence.NotEnded
						if i < len(order)-1 && out.Progress == sequence.Completed {
							t.Errorf("%d knocks of %d were enough", i+1, len(order))
						}
					}
					completes := out.Progress == sequence.Completed
					w := word(d.Steps, order)
					if want := opens[w]; completes && !may[w] || want && (!completes || ended) {
						t.Errorf("complete: %t, an attempt was over: %t, want %t", completes, ended, want)
					}
					check(t, c.Tracker)
				})
			})
		})
	}
}

// Another knock is wrong at once, and not only when the missing one does not come.
func TestRowAnyOtherKnockIsWrongAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ports []uint16 // steps from 1 to 5; the last is wrong
		want  sequence.Outcome
		next  []uint16 // the knocks after that
		then  sequence.Outcome
	}{
		{"after an early one, one before it", []uint16{1, 4, 3}, after(sequence.WrongOrder, 1, early(0)), []uint16{1, 2}, advanced(3)},
		{"first of all, and one before it", []uint16{5, 2}, after(sequence.WrongOrder, 0, early(0)), []uint16{1}, advanced(2)},
		{"after two early ones, one between them", []uint16{1, 3, 5, 4}, after(sequence.WrongOrder, 1, early(0)), []uint16{1, 2, 3}, advanced(4)},
		{"after an early one, the first", []uint16{1, 2, 4, 1}, after(sequence.WrongOrder, 2, advanced(1)), []uint16{3, 2, 4, 5}, completed(5)},
		{"after an early one, the second", []uint16{1, 2, 4, 2}, nothing(2), []uint16{3, 5}, completed(5)},
		{"after an early one, that one again", []uint16{1, 3, 3}, after(sequence.WrongOrder, 1, early(0)), []uint16{1, 2}, advanced(3)},
		{"what was swapped, again", []uint16{2, 1, 1}, after(sequence.WrongOrder, 2, advanced(1)), []uint16{2}, advanced(2)},
		{"the second begins anew, too", []uint16{1, 2, 3, 2}, after(sequence.WrongOrder, 3, early(0)), []uint16{1, 3, 4, 5}, completed(5)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &client{Tracker: newTracker(door(1, 2, 3, 4, 5)), addr: alice}
				expect(t, "the wrong one", c.knock(tt.ports...), tt.want)
				expect(t, "what follows", c.knock(tt.next...), tt.then)
				check(t, c.Tracker)
			})
		})
	}
}

func TestRowMissingKnockWithinReorder(t *testing.T) {
	for _, tt := range []struct {
		name         string
		wait         time.Duration
		second, last sequence.Outcome
	}{
		{"just in time", reorder, completed(3), nothing(3)},
		{"just too late", reorder + 1, after(sequence.WrongOrder, 1, early(0)), early(0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
				expect(t, "first", c.knock(7000), advanced(1))
				expect(t, "last, too early", c.knock(9000), early(1))
				time.Sleep(tt.wait)
				expect(t, "second", c.knock(8000), tt.second)
				expect(t, "last, again", c.knock(9000), tt.last)
			})
		})
	}
}

// However a sequence is swapped, it does not open if its knocks come further apart than
// the reorder time.
func TestRowSlowKnocksInAnotherOrderDoNotOpen(t *testing.T) {
	permutations(4, func(order []int) {
		if slices.IsSorted(order) {
			return
		}
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ports := []uint16{7000, 8000, 9000, 10000}
				c := &client{Tracker: newTracker(door(ports...)), addr: alice}
				for _, which := range order {
					if out := c.knock(ports[which]); out.Progress == sequence.Completed {
						t.Errorf("knock %d opens", which+1)
					}
					time.Sleep(reorder + 1)
				}
			})
		})
	})
}

func TestRowAnotherKnockEndsTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000, 10000)), addr: alice}
		c.knock(7000, 8000, 9000)
		expect(t, "a knock of a step before", c.knock(8000), after(sequence.WrongOrder, 3, early(0)))
		expect(t, "what would have been the last", c.knock(10000), early(0))
	})
}

func TestRowFirstKnockBeginsANewAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		c.knock(7000, 8000)
		time.Sleep(timeout - time.Second)
		expect(t, "first again", c.knock(7000), after(sequence.WrongOrder, 2, advanced(1)))
		// The new attempt has its own time.
		time.Sleep(timeout - time.Second)
		expect(t, "second", c.knock(8000), advanced(2))
		expect(t, "last", c.knock(9000), completed(3))
	})
}

// If the first port comes again later, the knock may have overtaken another one. If it
// has not, it was wrong, and began a new attempt when it came.
func TestRowFirstPortThatIsNoLaterKnockBeginsANewAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := door(7000, 8000, 9000, 7000)
		c := &client{Tracker: newTracker(d), addr: alice}
		c.knock(7000, 8000)
		time.Sleep(time.Second)
		again := c.dial(tcp(7000))
		expect(t, "first port again", c.send(again), early(2))
		time.Sleep(time.Second)
		expect(t, "second", c.knock(8000), after(sequence.WrongOrder, 2, advanced(2)))
		expect(t, "first port, retransmitted", c.send(again), nothing(2))
		expect(t, "third", c.knock(9000), advanced(3))
		time.Sleep(timeout - time.Second)
		expect(t, "last, as late as may be", c.knock(7000), completed(4))
	})
}

// The kernel passes no such packet on. If it did, no attempt would begin.
func TestRowPortThatNoDoorNamesBeginsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		expect(t, "another port", c.knock(7001), nothing(0))
		expect(t, "another protocol", c.send(c.dial(udp(7000))), nothing(0))
		if c.Len() != 0 {
			t.Errorf("%d attempts are remembered", c.Len())
		}
	})
}

func TestRowLastKnockOpensAndRefreshes(t *testing.T) {
	const window = 30 * time.Second
	synctest.Test(t, func(t *testing.T) {
		d := door(7000, 8000, 9000)
		c := &client{Tracker: newTracker(d), addr: alice}
		windows := sequence.NewWindows()
		for i := range 3 {
			expect(t, "last knock", c.knock(7000, 8000, 9000), completed(3))
			now := time.Now()
			if refreshed := windows.Open(0, d.Prefix.Of(alice), now, now.Add(window), 0); refreshed != (i > 0) {
				t.Errorf("round %d: refreshed is %t", i, refreshed)
			}
			if until, _ := windows.Next(); windows.Len() != 1 || !until.Equal(now.Add(window)) {
				t.Errorf("round %d: %d windows, the first of them open for %v", i, windows.Len(), until.Sub(now))
			}
			time.Sleep(window / 10)
		}
	})
}

func TestDoorOfOneKnock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000)), addr: alice}
		p := c.dial(tcp(7000))
		expect(t, "knock", c.send(p), completed(1))
		expect(t, "retransmission", c.send(p), nothing(1))
		time.Sleep(time.Second)
		expect(t, "another knock", c.knock(7000), completed(1))
	})
}

func TestDoorOfTheMostSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ports := make([]uint16, sequence.MaxSteps)
		for i := range ports {
			ports[i] = uint16(7000 + i)
		}
		c := &client{Tracker: newTracker(door(ports...)), addr: alice}
		expect(t, "in order", c.knock(ports...), completed(len(ports)))
		for i := 0; i < len(ports); i += 2 {
			ports[i], ports[i+1] = ports[i+1], ports[i]
		}
		expect(t, "neighbours swapped", c.knock(ports...), completed(len(ports)))
		if got := c.Swapped(0, single(alice)); got != len(ports)/2 {
			t.Errorf("%d pairs are swapped, want %d", got, len(ports)/2)
		}
		slices.Sort(ports)
		half := len(ports) / 2
		ports = append(slices.Clone(ports[half:]), ports[:half]...)
		c.Forget(0, single(alice))
		expect(t, "as overtaken as can be", c.knock(ports...), completed(len(ports)))
		if got := c.Swapped(0, single(alice)); got != half*half {
			t.Errorf("%d pairs are swapped, want %d", got, half*half)
		}
	})
}

// A knock after a complete attempt begins a new one, and ends none.
func TestKnockAfterTheLastBeginsAnew(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ports []uint16
		next  []uint16
		want  sequence.Outcome
	}{
		{"from the first", []uint16{7000, 8000, 9000}, []uint16{7000}, advanced(1)},
		{"the second first", []uint16{7000, 8000, 9000}, []uint16{8000, 7000, 9000}, completed(3)},
		{"the last again, and then the first", []uint16{7000, 8000, 9000}, []uint16{9000, 7000, 8000}, advanced(2)},
		{"the last again, and then the second", []uint16{7000, 8000, 9000}, []uint16{9000, 8000, 7000, 9000}, completed(3)},
		{"the third", []uint16{7000, 8000, 9000, 10000}, []uint16{9000}, early(0)},
		{"backwards, of two", []uint16{7000, 8000}, []uint16{8000, 7000}, completed(2)},
		{"the last, which is the second, first", []uint16{7000, 8000, 9000, 8000}, []uint16{8000, 7000, 9000, 8000}, completed(4)},
		{"the same, several times", []uint16{7000, 8000, 9000, 8000}, []uint16{8000, 8000, 8000, 7000, 9000, 8000}, completed(4)},
		{"the same, and then the third", []uint16{7000, 8000, 9000, 8000}, []uint16{8000, 9000}, early(0)},
		{"palindrome", []uint16{7000, 8000, 7000}, []uint16{7000, 8000, 7000}, completed(3)},
		{"another order", []uint16{7000, 8000, 9000}, []uint16{8000}, early(0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &client{Tracker: newTracker(door(tt.ports...)), addr: alice}
				c.knock(tt.ports...)
				expect(t, "next", c.knock(tt.next...), tt.want)
			})
		})
	}
}

// A redial of the last knock, if its port is also the second, may have overtaken the
// first knock of a new attempt, but only within the reorder time.
func TestLastKnockAgainDoesNotCountForALaterAttempt(t *testing.T) {
	for _, ports := range [][]uint16{{7000, 8000}, {7000, 8000, 9000, 8000}} {
		for _, tt := range []struct {
			name  string
			wait  time.Duration
			taken int
		}{
			{"just in time", reorder, 2},
			{"just too late", reorder + 1, 1},
		} {
			t.Run(fmt.Sprint(ports, " ", tt.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &client{Tracker: newTracker(door(ports...)), addr: alice}
					c.knock(ports...)
					time.Sleep(time.Second)
					last := c.dial(tcp(8000))
					expect(t, "last again", c.send(last), nothing(len(ports)))
					expect(t, "last, retransmitted", c.send(last), nothing(len(ports)))
					time.Sleep(tt.wait)
					want := advanced(tt.taken)
					if tt.taken == len(ports) {
						want = completed(tt.taken)
					}
					expect(t, "first", c.knock(7000), want)
					check(t, c.Tracker)
					if tt.taken == 2 {
						expect(t, "second, retransmitted", c.send(last), nothing(2))
					}
				})
			})
		}
	}
}

// A client that knocked in the wrong order did not fail by being slow, even if nothing
// after it showed that before the time was up.
func TestAnAttemptThatHasStrayedEndsByItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		c.knock(7000, 9000)
		time.Sleep(timeout + 1)
		expect(t, "the next knock", c.knock(7000), after(sequence.WrongOrder, 1, advanced(1)))
		expect(t, "a redialled one is nothing else", c.knock(7000), nothing(1))
		time.Sleep(timeout + 1)
		expect(t, "the next knock", c.knock(8000), after(sequence.TooLate, 1, early(0)))
		time.Sleep(timeout + 1)
		var reasons []sequence.Reason
		c.Expire(time.Now(), func(a sequence.Attempt) { reasons = append(reasons, a.Reason()) })
		if !slices.Equal(reasons, []sequence.Reason{sequence.WrongOrder}) {
			t.Errorf("ended: %v", reasons)
		}
	})
}

// A complete attempt is remembered only to recognize retransmissions: it never ends too
// late.
func TestCompleteAttemptNeverEndsTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		c.knock(7000, 8000, 9000)
		for range c.All(time.Now()) {
			t.Error("a complete attempt is under way")
		}
		time.Sleep(timeout + 1)
		expect(t, "next", c.knock(7000), advanced(1))
		c.knock(8000, 9000)
		time.Sleep(timeout + 1)
		c.Expire(time.Now(), func(a sequence.Attempt) { t.Errorf("ended: %+v", a) })
		if c.Len() != 0 {
			t.Errorf("%d attempts are remembered", c.Len())
		}
	})
}

// The known mistakes of knockd.

func TestKnockdDuplicatedSYNDoesNotKillTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000)), addr: alice}
		first, second, third := c.dial(tcp(7000)), c.dial(tcp(8000)), c.dial(tcp(9000))
		expect(t, "first", c.send(first), advanced(1))
		expect(t, "first, duplicated", c.send(first), nothing(1))
		time.Sleep(time.Second)
		expect(t, "second", c.send(second), advanced(2))
		expect(t, "first, retransmitted", c.send(first), nothing(2))
		time.Sleep(time.Second)
		expect(t, "second, retransmitted", c.send(second), nothing(2))
		expect(t, "third", c.send(third), completed(3))
	})
}

func TestKnockdEndOfOneHostsAttemptLeavesTheOthers(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(c *client)
	}{
		{"in the wrong order", func(c *client) { c.knock(7000) }},
		{"too late", func(c *client) {
			time.Sleep(2 * time.Second)
			c.Expire(time.Now(), func(sequence.Attempt) {})
		}},
		{"complete", func(c *client) { c.knock(9000) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tracker := newTracker(door(7000, 8000, 9000))
				a := &client{Tracker: tracker, addr: alice}
				a.knock(7000, 8000)
				time.Sleep(timeout - time.Second)
				// bob's connections have the ports and sequence numbers of alice's.
				b := &client{Tracker: tracker, addr: bob}
				expect(t, "bob's second", b.knock(7000, 8000), advanced(2))
				tt.end(a)
				expect(t, "bob's last", b.knock(9000), completed(3))
			})
		})
	}
}

func TestKnockdLongerDoorOfACommonPrefixOpensToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000), door(7000, 8000, 9000)), addr: alice}
		// The kernel logs a knock once for each door that names it.
		for i, want := range [][]sequence.Outcome{
			{advanced(1), advanced(1)},
			{completed(2), advanced(2)},
			{{}, completed(3)},
		} {
			p := c.dial(tcp([]uint16{7000, 8000, 9000}[i]))
			if i < 2 {
				expect(t, "shorter", c.Knock(0, p, time.Now()), want[0])
			}
			expect(t, "longer", c.Knock(1, p, time.Now()), want[1])
		}
	})
}

func TestDoorsThatShareTheirPortsAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{Tracker: newTracker(door(7000, 8000, 9000), door(9000, 8000, 7000)), addr: alice}
		for i, port := range []uint16{7000, 8000, 9000} {
			time.Sleep(reorder + 1)
			p := c.dial(tcp(port))
			want := advanced(i + 1)
			if i == 2 {
				want = completed(3)
			}
			expect(t, "ascending", c.Knock(0, p, time.Now()), want)
			if out := c.Knock(1, p, time.Now()); out.Progress == sequence.Completed {
				t.Error("the descending door opens")
			}
		}
	})
}

func TestSourcesDifferByPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := door(7000, 8000, 9000)
		d.Prefix = packet.SourcePrefix{IPv4: 24, IPv6: 64}
		tracker := newTracker(d)
		from := func(addr netip.Addr, port uint16) sequence.Outcome {
			return (&client{Tracker: tracker, addr: addr}).knock(port)
		}
		expect(t, "first, of an IPv6 network", from(alice6, 7000), advanced(1))
		expect(t, "second, of the same", from(bob6, 8000), advanced(2))
		expect(t, "second, of another", from(carol6, 8000), early(0))
		expect(t, "last, of the same", from(alice6, 9000), completed(3))
		expect(t, "first, of an IPv4 network", from(alice, 7000), advanced(1))
		expect(t, "second, of the same", from(bob, 8000), advanced(2))

		var got []string
		for a := range tracker.All(time.Now()) {
			got = append(got, fmt.Sprint(a.Source, " ", a.Step))
		}
		if diff := cmp.Diff([]string{"192.0.2.0/24 2", "2001:db8:0:1::/64 0"}, got); diff != "" {
			t.Errorf("under way (-want +got):\n%s", diff)
		}
	})
}

// An IPv6 address is not the IPv4 address in its last or first bytes.
func TestAddressFamiliesAreDifferentSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := newTracker(door(7000, 8000))
		for _, addr := range []string{"192.0.2.1", "::192.0.2.1", "c000:201::"} {
			c := &client{Tracker: tracker, addr: netip.MustParseAddr(addr)}
			expect(t, addr, c.knock(7000), advanced(1))
		}
	})
}

func TestOldestAttemptGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 4
		tracker := sequence.NewTracker([]sequence.Lock{door(7000, 8000)}, reorder, most, time.Now())
		clients := make([]*client, 2*most)
		for i := range clients {
			clients[i] = &client{Tracker: tracker, addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
			expect(t, "first", clients[i].knock(7000), advanced(1))
			if want := min(i+1, most); tracker.Len() != want {
				t.Errorf("%d attempts after %d, want %d", tracker.Len(), i+1, want)
			}
			if want := uint64(max(0, i+1-most)); tracker.Evicted() != want {
				t.Errorf("%d were evicted after %d, want %d", tracker.Evicted(), i+1, want)
			}
			time.Sleep(time.Millisecond)
		}
		// The newest attempts are still followed. Of the others the first knock is
		// remembered.
		under := 0
		for a := range tracker.All(time.Now()) {
			if a.Source.Addr() != clients[len(clients)-1-under].addr {
				t.Errorf("the newest but %d is that of %s", under, a.Source)
			}
			under++
		}
		if under != most {
			t.Errorf("%d attempts are under way", under)
		}
		for _, c := range clients {
			expect(t, fmt.Sprint("second of ", c.addr), c.knock(8000), completed(2))
		}
		if err := tracker.Check(); err != nil {
			t.Error(err)
		}
	})
}

func TestAttemptsUnderWayNewestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := newTracker(door(7000, 8000), door(7000, 8000, 9000))
		start := time.Now()
		at := func(door int, c *client, port uint16) { tracker.Knock(door, c.dial(tcp(port)), time.Now()) }
		a, b := &client{addr: alice}, &client{addr: bob6}
		at(0, a, 7000)
		at(1, a, 7000)
		time.Sleep(time.Second)
		at(1, b, 7000)
		at(1, a, 8000)
		at(0, a, 8000) // complete

		source := door().Prefix.Of
		want := []sequence.Attempt{
			{Lock: 1, Source: source(bob6), Step: 1, Started: start.Add(time.Second)},
			{Lock: 1, Source: source(alice), Step: 2, Started: start},
		}
		if diff := cmp.Diff(want, slices.Collect(tracker.All(time.Now())), compareSources); diff != "" {
			t.Errorf("under way (-want +got):\n%s", diff)
		}
		for range tracker.All(time.Now()) {
			break // must not go on
		}

		time.Sleep(timeout - time.Second + 1) // alice is too late, bob is not
		if diff := cmp.Diff(want[:1], slices.Collect(tracker.All(time.Now())), compareSources); diff != "" {
			t.Errorf("under way (-want +got):\n%s", diff)
		}
		var ended []sequence.Attempt
		tracker.Expire(time.Now(), func(a sequence.Attempt) { ended = append(ended, a) })
		if diff := cmp.Diff(want[1:], ended, compareSources); diff != "" {
			t.Errorf("ended (-want +got):\n%s", diff)
		}
		if tracker.Len() != 1 {
			t.Errorf("%d attempts are left, want 1", tracker.Len())
		}
	})
}

var compareSources = cmp.Comparer(func(a, b packet.Source) bool { return a == b })

func TestReasonString(t *testing.T) {
	for reason, want := range map[sequence.Reason]string{
		sequence.NotEnded: "", sequence.WrongOrder: "wrong order", sequence.TooLate: "too late",
	} {
		if reason.String() != want {
			t.Errorf("String of %d = %q, want %q", uint8(reason), reason, want)
		}
	}
}

func TestATrackerThatInheritsGoesOnAtTheDoorsThatAreTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ssh, web := door(7000, 8000, 9000), door(7001, 8001)
		former := newTracker(ssh, web)
		a, b := &client{Tracker: former, addr: alice}, &client{Tracker: former, addr: bob}
		begun := time.Now()
		first := a.dial(tcp(7000))
		expect(t, "alice begins", a.send(first), advanced(1))
		expect(t, "bob begins", b.knock(7000, 8000), advanced(2))
		former.Knock(1, a.dial(tcp(7001)), time.Now())
		time.Sleep(time.Second)
		expect(t, "alice goes on", a.knock(9000), early(1))

		mail := door(1, 2, 3, 4, 5)
		tracker := sequence.NewTracker([]sequence.Lock{mail, ssh}, reorder, 16, time.Now())
		tracker.Inherit(former, func(door int) int { return []int{1, -1}[door] })
		if err := tracker.Check(); err != nil {
			t.Fatal(err)
		}
		want := []sequence.Attempt{
			{Lock: 1, Source: single(bob), Step: 2, Started: begun},
			{Lock: 1, Source: single(alice), Step: 1, Started: begun, Strayed: true},
		}
		if diff := cmp.Diff(want, slices.Collect(tracker.All(time.Now())), compareSources); diff != "" {
			t.Errorf("under way (-want +got):\n%s", diff)
		}
		at := func(p packet.Packet) sequence.Outcome { return tracker.Knock(1, p, time.Now()) }
		expect(t, "a knock that the former one has heard", at(first), nothing(1))
		expect(t, "what was early counts", at(a.dial(tcp(8000))), completed(3))
		time.Sleep(4 * time.Second)
		expect(t, "bob's time has run on", at(b.dial(tcp(9000))), completed(3))
		time.Sleep(time.Nanosecond)
		ended := 0
		tracker.Expire(time.Now(), func(sequence.Attempt) { ended++ })
		if ended != 0 || tracker.Len() != 0 {
			t.Errorf("%d attempts ended, %d are left", ended, tracker.Len())
		}
	})
}

func TestATrackerWithFewerPlacesInheritsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := door(7000, 8000)
		former := newTracker(d)
		for _, addr := range []netip.Addr{alice, bob, alice6} {
			(&client{Tracker: former, addr: addr}).knock(7000)
			time.Sleep(time.Millisecond)
		}
		tracker := sequence.NewTracker([]sequence.Lock{d}, reorder, 2, time.Now())
		tracker.Inherit(former, func(door int) int { return door })
		if tracker.Len() != 2 || tracker.Evicted() != 1 {
			t.Errorf("%d attempts, %d were evicted", tracker.Len(), tracker.Evicted())
		}
		for addr, want := range map[netip.Addr]sequence.Outcome{alice6: completed(2), bob: completed(2)} {
			expect(t, addr.String(), (&client{Tracker: tracker, addr: addr, connections: 9}).knock(8000), want)
		}
	})
}

func TestAnAttemptIsRememberedUntilItIsExpired(t *testing.T) {
	now := time.Now()
	tracker := sequence.NewTracker([]sequence.Lock{door(1, 2)}, 0, 2, now)
	prefix := packet.SourcePrefix{IPv4: 32, IPv6: 128}
	p := packet.Packet{Source: netip.MustParseAddr("192.0.2.1"), SourcePort: 40000, Port: tcp(1)}
	if a, ok := tracker.Of(0, prefix.Of(p.Source)); ok {
		t.Errorf("before any knock: %+v", a)
	}
	tracker.Knock(0, p, now)
	for _, other := range []packet.Source{prefix.Of(netip.MustParseAddr("192.0.2.2")), packet.SourcePrefix{IPv4: 24}.Of(p.Source)} {
		if a, ok := tracker.Of(0, other); ok {
			t.Errorf("of %s: %+v", other, a)
		}
	}
	late := now.Add(time.Hour)
	for range tracker.All(late) {
		t.Error("an attempt that is too late is under way")
	}
	want := sequence.Attempt{Lock: 0, Source: prefix.Of(p.Source), Step: 1, Started: now}
	if a, ok := tracker.Of(0, want.Source); !ok || !a.Started.Equal(now) || a.Step != 1 || a.Source != want.Source {
		t.Errorf("too late: %+v, %t; want %+v", a, ok, want)
	}
	tracker.Expire(late, func(sequence.Attempt) {})
	if a, ok := tracker.Of(0, want.Source); ok {
		t.Errorf("expired: %+v", a)
	}
}
