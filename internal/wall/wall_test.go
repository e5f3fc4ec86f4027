package wall_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

var errInjected = errors.New("the kernel says no")

func TestASourceThatHasKnockedIsAdmitted(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		if got := h.left("ssh", alice); got != window {
			h.t.Fatalf("the kernel has the window open for %s, want %s", got, window)
		}
		h.expect("alice has knocked", a.dial(22), accepted)
		h.trail.expect(h.t, nil,
			"knock ssh 192.0.2.1 1/3", "knock ssh 192.0.2.1 2/3", "knock ssh 192.0.2.1 3/3", "opened ssh 192.0.2.1 3/3", "accepted ssh 192.0.2.1")
		h.expect("bob has not", h.client(bob).dial(22), waiting)
		h.expect("nobody guards port 80", h.client(bob).dial(80), accepted)
	})
}

func TestASYNThatIsFasterThanItsKnockIsAdmittedAsSoonAsTheKnockIsRead(t *testing.T) {
	for name, tt := range map[string]struct {
		door   ruleset.Door
		rounds int // through the rules
	}{
		"without a limit":      {sshDoor(), 1},
		"with max_connections": {limited(sshDoor(), 9), 2}, // the kernel must have the window first
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(tt.door), func(h *host) {
				a, b := h.client(alice), h.client(bob)
				a.knock(7000, 8000)
				theirs := b.dial(22)
				first := a.dial(22)
				h.expect("the last knock is missing", first, waiting)
				time.Sleep(hold / 2)
				knocked := time.Now()
				a.knock(9000)
				h.expect("the last knock has come", first, accepted)
				if !first.at.Equal(knocked) {
					h.t.Errorf("let in %s after the last knock", first.at.Sub(knocked))
				}
				if n := h.rounds(first); n != tt.rounds {
					h.t.Errorf("the packet went through the rules %d times, want %d", n, tt.rounds)
				}
				h.expect("bob has not knocked", theirs, waiting)
			})
		})
	}
}

// A client that has knocked does not wait while the kernel opens its window, unless the
// kernel's rules do more than accept its packet, or the kernel has just refused a window.
func TestAClientDoesNotWaitForTheKernel(t *testing.T) {
	guarded(t, config(sshDoor(), limited(door("web", 443, 7001), 9)), func(h *host) {
		var opening chan struct{}
		slow := func() {
			opening = make(chan struct{})
			h.intercepted("OpenWindows", func() { <-opening })
		}
		slow()
		a, b := h.client(alice), h.client(bob)
		before, limited := a.dial(22), b.dial(443)
		synctest.Wait()
		a.knock(7000, 8000, 9000)
		h.expect("the window is not open yet", before, accepted)
		during := a.dial(22)
		h.expect("nor now", during, accepted)
		b.knock(7001)
		h.expect("what is limited is counted by the kernel's leave", limited, waiting)
		close(opening)
		h.expect("its window is open", limited, accepted)
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Accepted}, "opened ssh 192.0.2.1 3/3", "accepted ssh 192.0.2.1", "accepted ssh 192.0.2.1",
			"opened web 192.0.2.2 1/1", "accepted web 192.0.2.2")
		if d := h.status().Doors[0]; d.Counters.Accepted != 2 || d.Counters.KernelAdmitted != 2 {
			h.t.Errorf("the door counts %+v, and %d packets in the kernel", d.Counters, d.Counters.KernelAdmitted)
		}
	})
	guarded(t, config(sshDoor()), func(h *host) {
		h.failing("OpenWindows", errInjected)
		a, b := h.client(alice), h.client(bob)
		first, second := a.dial(22), b.dial(22)
		synctest.Wait()
		a.knock(7000, 8000, 9000)
		h.expect("it has knocked", first, accepted)
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refused, audit.Accepted}, "refused ssh 192.0.2.1 3/3: the kernel says no", "accepted ssh 192.0.2.1")
		b.knock(7000, 8000, 9000)
		h.expect("the kernel has just refused a window", second, waiting)
		time.Sleep(hold + wall.SweepInterval)
		h.expect("no window has opened", second, refused)
	})
}

func TestAStrangerIsRefusedWhenTheHoldIsOverAndNotBefore(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		j := h.client(bob).dial(22)
		time.Sleep(hold - 1)
		h.expect("hold is not over", j, waiting)
		time.Sleep(time.Nanosecond)
		h.expect("hold is over", j, refused)
		h.trail.expect(h.t, nil, "refused ssh 192.0.2.2")
		d := h.status().Doors[0].Counters
		if want := (wall.DoorCounters{Held: 1, Refused: 1, KernelRefused: 1}); d != want {
			h.t.Errorf("counters: %+v, want %+v", d, want)
		}
	})
}

func TestManyStrangersAreRefusedByFewVerdicts(t *testing.T) {
	guarded(t, config(sshDoor(), door("web", 443, 8001)), func(h *host) {
		// Fifteen packets a millisecond for one second. Just as often a window opens,
		// which wakes housekeeping.
		const strangers, span = 15_000, time.Second
		a, b := h.client(alice), h.client(bob)
		var all []*journey
		for i := range strangers {
			b.addr = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			all = append(all, b.dial(22))
			if i%15 == 14 {
				synctest.Wait()
				a.knock(8001)
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(hold + wall.SweepInterval)
		synctest.Wait()
		if i := slices.IndexFunc(all, func(j *journey) bool { return h.fate(j) != refused }); i >= 0 {
			h.t.Fatalf("stranger %d is %q", i, h.fate(all[i]))
		}
		if h.batches > int(span/wall.SweepInterval)+2 || h.singles > 0 {
			h.t.Errorf("%d batch verdicts and %d single ones", h.batches, h.singles)
		}
		if got := h.status().Doors[0].Counters.Refused; got != strangers {
			h.t.Errorf("%d are counted as refused, of %d", got, strangers)
		}
	})
}

func TestEveryoneInTheHoldIsRefusedWithinASweepOfTheirTime(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		b := h.client(bob)
		sent := map[*journey]time.Time{}
		for range 500 {
			sent[b.dial(22)] = time.Now()
			time.Sleep(700 * time.Microsecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for j, at := range sent {
			if held := j.at.Sub(at); j.fate != refused || held < hold || held > hold+wall.SweepInterval {
				h.t.Fatalf("%q after %s", j.fate, held)
			}
		}
	})
}

func TestNoPacketIsRefusedWhileKnocksAreUnread(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.log().hold()
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		theirs, j := h.client(bob).dial(22), a.dial(22)
		time.Sleep(hold + wall.MaxRefusalDelay - time.Millisecond)
		h.expect("alice's knocks are in the log", j, waiting)
		h.expect("bob's might be", theirs, waiting)
		h.log().resume()
		h.expect("alice's knocks are heard", j, accepted)
		time.Sleep(time.Second)
		h.expect("bob's were not in the log", theirs, refused)
	})
}

func TestNoPacketIsRefusedWhileItsWindowIsBeingOpened(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 9)), func(h *host) {
		h.intercepted("OpenWindows", func() { time.Sleep(time.Second) }) // as somebody else changes the rules
		a := h.client(alice)
		j := a.dial(22)
		a.knock(7000, 8000, 9000)
		time.Sleep(time.Second - 1)
		h.expect("the window is not open yet", j, waiting)
		time.Sleep(time.Nanosecond)
		h.expect("the window is open", j, accepted)
		theirs := h.client(bob).dial(22)
		time.Sleep(hold)
		h.expect("no window is being opened any more", theirs, refused)
	})
}

func TestTheLastKnockOfTheLogIsWaitedForToBeHandled(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.log().hold()
		a := h.client(alice)
		j := a.dial(22)
		a.knock(7000)
		time.Sleep(hold + time.Millisecond) // the log was seen not to be drained
		h.log().resume()
		// The log is drained now, but the handler may still be busy: nothing is refused
		// at once.
		time.Sleep(5 * time.Millisecond)
		h.expect("the log was drained only just now", j, waiting)
		time.Sleep(20 * time.Millisecond)
		h.expect("the log has been drained for a while", j, refused)
	})
}

func TestABusyDaemonTakesKnocksThatWaitedForThoseOfTheSameTime(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		h.log().hold()
		a.knock(8000, 7000, 9000) // in the order in which a second CPU has received them
		h.log().readFew(1)
		time.Sleep(100 * time.Millisecond)
		h.log().resume()
		h.expect("alice's knocks came together", a.dial(22), accepted)

		b.knock(8000)
		time.Sleep(100 * time.Millisecond)
		b.knock(7000, 9000)
		h.expect("bob's first knock came too late", b.dial(22), waiting)
	})
}

func TestWhenTheLogIsNeverDrainedStrangersAreRefusedAfterAll(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.log().hold()
		h.client(alice).knock(7000)
		j := h.client(bob).dial(22)
		time.Sleep(hold + wall.MaxRefusalDelay - 1)
		h.expect("patience is not over", j, waiting)
		time.Sleep(time.Millisecond)
		h.expect("patience is over", j, refused)
	})
}

func TestAReleasedPacketIsNotRefusedByALaterBatch(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 9)), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		before, hers, after := b.dial(22), a.dial(22), b.dial(22)
		synctest.Wait()
		// Her packet waits for its verdict in the queue "admitted" while packets around
		// it in "strangers" get theirs.
		lane, _ := h.lanes()
		lane.hold()
		a.knock(7000, 8000, 9000)
		time.Sleep(hold + wall.SweepInterval)
		h.expect("came before her", before, refused)
		h.expect("came after her", after, refused)
		h.expect("is not judged yet", hers, waiting)
		lane.resume()
		h.expect("has knocked", hers, accepted)
	})
}

func TestAWindowIsOverOnceAndStrangersAreHeldAgain(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		time.Sleep(1500 * time.Millisecond) // so that no other task is due when it ends
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.trail.take()
		time.Sleep(window - 1)
		h.expect("the window is open yet", a.dial(22), accepted)
		h.trail.expect(h.t, nil, "accepted ssh 192.0.2.1")
		time.Sleep(time.Nanosecond)
		late := a.dial(22)
		h.expect("the window is over", late, waiting)
		time.Sleep(hold)
		h.expect("the window is over", late, refused)
		time.Sleep(time.Hour)
		synctest.Wait()
		h.trail.expect(h.t, nil, "expired ssh 192.0.2.1", "refused ssh 192.0.2.1")
		if w := h.status().Windows; len(w) != 0 {
			h.t.Errorf("windows: %v", w)
		}
	})
}

func TestAShortWindowIsOverInTime(t *testing.T) {
	d := door("web", 443, 8001, 8002)
	d.Window = 300 * time.Millisecond
	guarded(t, config(d), func(h *host) {
		a := h.client(alice)
		a.knock(8001)
		time.Sleep(time.Millisecond)
		a.knock(8002)
		time.Sleep(d.Window)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Expired}, "expired web 192.0.2.1")
	})
}

func TestAKnockAtAnOpenDoorRefreshesItsWindow(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		time.Sleep(window - time.Second)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		if got := h.left("ssh", alice); got != window {
			h.t.Errorf("the kernel has the window open for %s, want %s", got, window)
		}
		time.Sleep(window - 1)
		h.expect("the window was refreshed", a.dial(22), accepted)
		time.Sleep(time.Minute)
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed, audit.Expired},
			"opened ssh 192.0.2.1 3/3", "refreshed ssh 192.0.2.1 3/3", "expired ssh 192.0.2.1")
	})
}

func TestARefreshThatFailsLeavesTheWindowAsItIs(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 2)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.expect("the window is open", a.dial(22), accepted)
		time.Sleep(window / 2)
		h.failing("OpenWindows", errInjected)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		want := []wall.WindowStatus{{Door: "ssh", Source: single(alice), LeftSeconds: 15, Connections: 1}}
		if diff := cmp.Diff(want, h.status().Windows, compareSources); diff != "" {
			h.t.Errorf("windows (-want +got):\n%s", diff)
		}
		h.expect("one more may come in", a.dial(22), accepted)
		third := a.dial(22)
		time.Sleep(time.Second)
		h.expect("no third one", third, refused)
		if got := h.left("ssh", alice); got != 0 {
			h.t.Errorf("the spent window is open for %s", got)
		}
	})
}

func TestARefreshThatFailsDoesNotPutOffTheEnd(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		time.Sleep(1500 * time.Millisecond) // so that no other task is due when it ends
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		time.Sleep(window - 500*time.Millisecond)
		h.answering("OpenWindows", func() error {
			time.Sleep(time.Millisecond) // housekeeping sees it as idle meanwhile
			return errInjected
		})
		a.knock(7000, 8000, 9000)
		time.Sleep(500*time.Millisecond - 1)
		h.expect("the window is open yet", a.dial(22), accepted)
		h.trail.take()
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		h.trail.expect(h.t, nil, "expired ssh 192.0.2.1")
	})
}

func TestAWindowAdmitsNoMoreThanItsConnections(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 2)), func(h *host) {
		h.losing = true
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		first, second := a.dial(22), a.dial(22)
		h.expect("first", first, accepted)
		h.expect("second", second, accepted)
		time.Sleep(retransmitted)
		third := a.dial(22)
		h.expect("third", third, waiting)
		h.expect("the second's SYN again", h.send(second.packet), accepted)
		h.expect("the first's SYN again", h.send(first.packet), accepted)
		time.Sleep(hold)
		h.expect("third", third, refused)
		if n := h.rounds(third); n != 2 { // to the queue, and back refused
			h.t.Errorf("the third went through the rules %d times", n)
		}
		if w := h.status().Windows; len(w) != 0 {
			h.t.Errorf("a spent window is shown: %v", w)
		}
		if got := h.left("ssh", alice); got != 0 {
			h.t.Errorf("the kernel has the spent window open for %s", got)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Accepted, audit.Closed, audit.Refused},
			"opened ssh 192.0.2.1 3/3", "accepted ssh 192.0.2.1", "accepted ssh 192.0.2.1",
			"closed ssh 192.0.2.1: max_connections is reached", "refused ssh 192.0.2.1")

		a.knock(7000, 8000, 9000)
		h.expect("knocked again", a.dial(22), accepted)
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed, audit.Accepted},
			"opened ssh 192.0.2.1 3/3", "accepted ssh 192.0.2.1")
		time.Sleep(2 * window)
		h.trail.expect(h.t, []audit.Kind{audit.Expired}, "expired ssh 192.0.2.1")
	})
}

// A delivered packet is not sent again, except to imitate its connection.
func TestAConnectionThatLooksLikeAnAdmittedOneIsRefusedAndNotCounted(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 2)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		first := a.dial(22)
		h.expect("first", first, accepted)
		h.expect("its like", h.send(first.packet), refused)
		if w := h.status().Windows; len(w) != 1 || w[0].Connections != 1 {
			h.t.Errorf("windows: %+v", w)
		}
		h.expect("second", a.dial(22), accepted)
		like := h.send(first.packet)
		h.expect("its like, when the window is spent", like, waiting)
		time.Sleep(hold)
		h.expect("its like, when the window is spent", like, refused)
		h.trail.expect(h.t, []audit.Kind{audit.Accepted, audit.Refused},
			"accepted ssh 192.0.2.1", "refused ssh 192.0.2.1: the same connection was admitted before",
			"accepted ssh 192.0.2.1", "refused ssh 192.0.2.1") // that one has another reason
		if got := h.status().Doors[0].Counters; got.Accepted != 2 || got.Exhausted != 1 || got.Refused != 1 {
			h.t.Errorf("counters: %+v", got)
		}
		a.knock(7000, 8000, 9000)
		h.expect("its like, when she has knocked again", h.send(first.packet), accepted)
	})
}

// Conntrack may forget a connection that has ended for one that looks like it, maybe
// before the daemon has checked whether the first packet was delivered. That is no loss.
func TestAConnectionThatIsFollowedAtOnceByItsLikeWasNotLost(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 2)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.losing = true
		first := packet.Packet{Source: alice, Destination: server, SourcePort: 50000, Port: tcp(22), Sequence: 7, Flags: packet.SYN}
		var like *journey
		h.once("Tracked", func() { like = h.send(first) })
		h.expect("first", h.send(first), accepted)
		h.expect("its like", like, refused)
		time.Sleep(retransmitted)
		h.expect("its like, a second later", h.send(first), refused)
	})
}

// If the check for delivery fails, the packet counts as delivered.
func TestAConnectionThatLooksLikeOneThatMayHaveArrivedIsRefused(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 2)), func(h *host) {
		h.failing("Tracked", errInjected)
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		first := a.dial(22)
		h.expect("first", first, accepted)
		time.Sleep(retransmitted)
		h.expect("its like", h.send(first.packet), refused)
	})
}

// Datagrams of one flow look the same, and without a limit there is nothing to evade.
// Then delivery is not checked.
func TestWhetherAPacketHasArrivedIsAskedOnlyWhereItMatters(t *testing.T) {
	dns := limited(door("dns", 53, 7001), 2)
	dns.Ports = []packet.PortRange{{First: 53, Last: 53, Protocol: packet.UDP}}
	guarded(t, config(sshDoor(), dns), func(h *host) {
		h.failing("Tracked", errInjected)
		h.intercept = func(call string) error {
			if strings.HasPrefix(call, "Tracked") {
				h.t.Error("it is asked")
			}
			return nil
		}
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		first := a.dial(22)
		h.expect("first", first, accepted)
		h.expect("its like, without a limit", h.send(first.packet), accepted)
		a.knock(7001)
		datagram := a.datagram(packet.Port{Number: 53, Protocol: packet.UDP}, nil)
		h.expect("a datagram", datagram, accepted)
		h.expect("the next one of its flow", h.send(datagram.packet), accepted)
		h.expect("another flow", a.datagram(packet.Port{Number: 53, Protocol: packet.UDP}, nil), accepted)
		h.expect("and a third", a.datagram(packet.Port{Number: 53, Protocol: packet.UDP}, nil), waiting)
		h.expect("the first flow goes on", h.send(datagram.packet), accepted)
	})
}

func TestASpentWindowIsNotSaidToExpire(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 1)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.expect("first", a.dial(22), accepted)
		time.Sleep(2 * window)
		h.trail.expect(h.t, []audit.Kind{audit.Closed, audit.Expired}, "closed ssh 192.0.2.1: max_connections is reached")
	})
}

func TestConnectionsThatCameBeforeTheWindowWasClosedAreRefused(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 1)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		lane, _ := h.lanes()
		lane.hold()
		first, second := a.dial(22), a.dial(22) // both of them in the admitted lane
		lane.resume()
		h.expect("first", first, accepted)
		h.expect("second", second, refused)
		h.trail.expect(h.t, []audit.Kind{audit.Refused}, "refused ssh 192.0.2.1: max_connections is reached")
		if got := h.status().Doors[0].Counters; got.Accepted != 1 || got.Exhausted != 1 || got.Refused != 0 {
			h.t.Errorf("counters: %+v", got)
		}
	})
}

func TestAWindowThatTheKernelRefusesIsNotOpen(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 9)), func(h *host) {
		h.failing("OpenWindows", errInjected)
		a := h.client(alice)
		j := a.dial(22)
		a.knock(7000, 8000, 9000)
		h.expect("no window has opened", j, waiting)
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refused}, "refused ssh 192.0.2.1 3/3: the kernel says no")
		if s := h.status(); len(s.Windows) != 0 || s.Doors[0].Counters.Opened != 0 {
			h.t.Errorf("status: %+v", s)
		}
		time.Sleep(hold)
		h.expect("no window has opened", j, refused)

		h.failing("nothing", nil)
		a.knock(7000, 8000, 9000)
		h.expect("the kernel works again", a.dial(22), accepted)
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed}, "opened ssh 192.0.2.1 3/3")
	})
}

func TestNoPacketLoopsAtAWindowThatTheKernelHasLost(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		if _, err := h.CloseWindow("knockwall", "ssh", single(alice)); err != nil {
			h.t.Fatal(err)
		}
		j := a.dial(22)
		h.expect("the kernel has no window", j, waiting)
		if n := h.rounds(j); n < 2 || n > 100 {
			h.t.Errorf("the packet went through the rules %d times", n)
		}
		time.Sleep(hold)
		h.expect("the kernel has no window", j, refused)
	})
}

func TestTwoDoorsBeforeOnePortChargeTheOneWithTheWindow(t *testing.T) {
	first, second := limited(door("first", 22, 7000, 7001), 1), limited(door("second", 22, 8000, 8001), 1)
	guarded(t, config(first, second), func(h *host) {
		a := h.client(alice)
		a.knock(8000, 8001)
		h.expect("the second is open", a.dial(22), accepted)
		a.knock(7000, 7001)
		h.expect("the first is open", a.dial(22), accepted)
		late := a.dial(22)
		time.Sleep(hold)
		h.expect("both are spent", late, refused)
		h.trail.expect(h.t, []audit.Kind{audit.Accepted, audit.Closed, audit.Refused},
			"accepted second 192.0.2.1", "closed second 192.0.2.1: max_connections is reached",
			"accepted first 192.0.2.1", "closed first 192.0.2.1: max_connections is reached",
			"refused first 192.0.2.1")
	})
}

func TestOfTwoDoorsBeforeOnePortTheOneThatIsNotSpentIsCharged(t *testing.T) {
	first, second := limited(door("first", 22, 7000), 1), limited(door("second", 22, 8000), 1)
	guarded(t, config(first, second), func(h *host) {
		h.losing = true
		a := h.client(alice)
		a.knock(7000)
		byFirst := a.dial(22)
		h.expect("the first is open", byFirst, accepted)
		a.knock(8000)
		synctest.Wait()
		time.Sleep(retransmitted)
		h.expect("the first's SYN again", h.send(byFirst.packet), accepted)
		bySecond := a.dial(22)
		h.expect("the second is open", bySecond, accepted)
		time.Sleep(retransmitted)
		h.expect("the first's SYN again", h.send(byFirst.packet), accepted)
		time.Sleep(retransmitted)
		h.expect("the second's SYN again", h.send(bySecond.packet), accepted)
		h.trail.expect(h.t, []audit.Kind{audit.Accepted, audit.Refused},
			"accepted first 192.0.2.1", "accepted second 192.0.2.1")
		if got := h.left("second", alice); got != 0 {
			h.t.Errorf("the spent window is open for %s", got)
		}
	})
}

func TestDoorsAtDifferentAddressesAreChargedByAddress(t *testing.T) {
	here, there := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	first, second := limited(door("here", 22, 7000), 1), limited(door("there", 22, 7000), 1)
	first.To, second.To = []netip.Prefix{single(here).Prefix}, []netip.Prefix{single(there).Prefix}
	second = knockedBy(second, ports(8000))
	guarded(t, config(first, second), func(h *host) {
		a := h.client(alice)
		a.dialTo(here, 7000)
		h.expect("here is open", a.dialTo(here, 22), accepted)
		a.dialTo(here, 7000)
		a.dialTo(there, 8000)
		h.expect("there is open", a.dialTo(there, 22), accepted)
		h.expect("here is open", a.dialTo(here, 22), accepted)
		h.trail.expect(h.t, []audit.Kind{audit.Accepted},
			"accepted here 192.0.2.1", "accepted there 192.0.2.1", "accepted here 192.0.2.1")

		j := a.dialTo(there, 22)
		h.expect("there is spent", j, waiting)
		a.dialTo(here, 7000)
		h.expect("there is spent", j, waiting)
		if n := h.rounds(j); n != 1 {
			h.t.Errorf("the packet went through the rules %d times, as the other address's door has opened", n)
		}
		j = a.dialTo(there, 22)
		h.expect("there is spent", j, waiting)
		if n := h.rounds(j); n != 1 {
			h.t.Errorf("the packet went through the rules %d times, as the other address's door is open", n)
		}
		time.Sleep(hold)
		h.expect("there is spent", j, refused)
		h.trail.expect(h.t, []audit.Kind{audit.Refused}, "refused there 192.0.2.1")
	})
}

// A packet does not tell whether it is for this host, nor by which interface it came. So
// several doors may guard its port, and it may be held at another one than the one that opens.
func TestOpeningADoorLetsNobodyThroughAnother(t *testing.T) {
	own, inner := door("own", 22, 7001), door("inner", 22, 7002)
	inner.To = []netip.Prefix{single(behind).Prefix}
	guarded(t, config(own, inner), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		before, hers := a.dialTo(behind, 22), a.dial(22)
		h.expect("no door is open", before, waiting)
		goOn := make(chan struct{})
		h.once("OpenWindows", func() { <-goOn })
		a.knock(7001)
		during := a.dialTo(behind, 22)
		h.expect("the door of this host is being opened", hers, accepted)
		h.expect("and no other", before, waiting)
		h.expect("nor for later packets", during, waiting)
		close(goOn)
		h.expect("it is open, and no other", before, waiting)
		time.Sleep(hold + wall.SweepInterval)
		h.expect("she has not knocked there", before, refused)
		h.expect("she has not knocked there", during, refused)

		theirs := b.dialTo(behind, 22)
		b.dialTo(behind, 7002)
		time.Sleep(hold / 2)
		h.expect("bob has", theirs, accepted)
	})
}

// A packet that comes while the knock before it is handled is read by the goroutine that opens
// the window.
func TestAPacketThatCameAfterTheKnockIsReadAtOnce(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		_, strangers := h.lanes()
		goOn := make(chan struct{})
		strangers.starve()
		h.once("OpenWindows", func() { <-goOn })
		h.log().hold()
		a.knock(7000, 8000, 9000)
		hers, theirs := a.dial(22), b.dial(22)
		h.expect("nothing is read", hers, waiting)
		h.log().resume()
		h.expect("she has knocked", hers, accepted)
		h.expect("bob has not", theirs, waiting)
		close(goOn)
		time.Sleep(hold + wall.SweepInterval)
		h.expect("bob has not", theirs, refused)
	})
}

func TestUnreadablePacketsAreRefused(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		for _, number := range []uint16{7100, 7101} {
			h.kernel.mu.Lock()
			j := &journey{packet: packet.Packet{Source: bob}, done: make(chan struct{})}
			// It came to port 22, but the packet is unreadable.
			q := h.queues[number]
			h.lastID++
			id := h.lastID
			q.pending = append(q.pending, queued{id, j})
			q.post(func() { q.handler.Unreadable(id) })
			h.kernel.mu.Unlock()
			synctest.Wait()
			if !j.marked {
				h.t.Errorf("queue %d: not refused", number)
			}
		}
		h.trail.expect(h.t, nil)
	})
}

func TestLossesAreReportedWhenTheyBeginAndWhenTheyAreOver(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		log := h.log()
		lane, strangers := h.lanes()
		interval := func() {
			time.Sleep(audit.SumInterval)
			synctest.Wait()
		}
		for range 2 { // for what is over can begin anew
			time.Sleep(time.Second)
			before := h.status().Counters.Lost
			log.do(func() { log.handler.Lost(7) })
			lane.lose(4)
			strangers.lose(2)
			synctest.Wait()
			if got := h.status().Counters.Lost - before; got != 13 {
				h.t.Errorf("%d lost, want 13", got)
			}
			h.trail.expect(h.t, nil)
			time.Sleep(audit.SumInterval - time.Second)
			synctest.Wait()
			h.trail.expect(h.t, nil, "overloaded ×13: packets come faster than they can be read")
			var last time.Time
			for i := range 8 {
				if i%2 == 0 { // so that it is never over
					strangers.lose(3)
				}
				interval()
				if i%2 == 0 {
					last = time.Now()
				}
			}
			for time.Since(last) < time.Minute-audit.SumInterval {
				interval()
			}
			h.trail.expect(h.t, nil)
			interval()
			h.trail.expect(h.t, nil,
				"overloaded ×12: packets came faster than they could be read, until "+last.Format(time.TimeOnly))
			for range 10 {
				interval()
			}
			h.trail.expect(h.t, nil)
		}
	})
}

func TestReportedLossesAreNotReportedAgainWhenTheyAreOver(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		lane, _ := h.lanes()
		lane.lose(1)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		h.trail.expect(h.t, nil, "overloaded: packets come faster than they can be read")
	})
}

func TestAFloodOfStrangersWritesFewEvents(t *testing.T) {
	guarded(t, config(sshDoor(), door("web", 443, 7001, 8001, 9001)), func(h *host) {
		const packets = 30_000
		b := h.client(bob)
		var all []*journey
		for i := range packets {
			b.addr = netip.AddrFrom4([4]byte{10, 0, byte(i % 4999 >> 8), byte(i % 4999)})
			all = append(all, b.dial([]uint16{22, 443, 7000, 9000}[i%4]))
			if i%15 == 14 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(audit.SumInterval)
		synctest.Wait()
		counted := 0
		h.trail.mu.Lock()
		for _, e := range h.trail.events {
			if e.Kind == audit.Refused {
				counted += e.Count
			}
		}
		events := len(h.trail.events)
		h.trail.mu.Unlock()
		// Two doors, three kinds, and for each 32 leading sources; as many again when
		// they are summed up by part, and that in two intervals.
		if events > 2*3*32*4*2 {
			h.t.Errorf("%d packets wrote %d events", packets, events)
		}
		// While the log is not drained, the queue may run full. The daemon does not count
		// what the kernel drops then.
		turnedAway := 0
		for _, j := range all {
			if h.fate(j) == refused {
				turnedAway++
			}
		}
		if counted != turnedAway || turnedAway == 0 {
			h.t.Errorf("the events count %d refused packets, of %d", counted, turnedAway)
		}
	})
}

func TestWhatTheKernelHasAnsweredItselfIsCounted(t *testing.T) {
	d := sshDoor()
	d.Closed = ruleset.Reject
	guarded(t, config(d), func(h *host) {
		h.expect("the door rejects", h.client(bob).dial(22), refused)
		h.trail.expect(h.t, nil, "refused ssh 192.0.2.2")
		if got := h.status().Doors[0].Counters; got.Refused != 1 || got.Held != 0 {
			h.t.Errorf("counters: %+v", got)
		}
		log := h.log()
		log.do(func() { log.handler.Logged([]byte("somebody else's prefix"), packet.Packet{Source: bob}, nil) })
		synctest.Wait()
		h.trail.expect(h.t, nil)
	})
}

func TestAnAttemptThatIsTooLateIsForgotten(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000)
		time.Sleep(5*time.Second + 2*time.Second)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Reset}, "reset ssh 192.0.2.1 2/3: too late")
		if s := h.status(); s.Counters.Attempts != 0 || s.Doors[0].Counters.Resets != 1 {
			h.t.Errorf("status: %+v", s)
		}
		a.knock(9000)
		h.expect("the sequence was not complete", a.dial(22), waiting)
	})
}

func TestAWrongKnockResetsTheAttempt(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 9000)
		time.Sleep(time.Second)
		a.knock(8000, 9000)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Reset, audit.Opened}, "reset ssh 192.0.2.1 1/3: wrong order")
		h.expect("the order was wrong", a.dial(22), waiting)
	})
}

func TestTheTrailIsWrittenWhileTheNotesAreFree(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 1)), func(h *host) {
		h.trail.watch(func(e audit.Event) {
			// Another goroutine may have the lock for a moment, but not for long.
			for range 10_000 {
				if !h.wall.Locked() {
					return
				}
				runtime.Gosched()
			}
			h.t.Errorf("%s: a sink that is slow makes packets wait", e.Kind)
		})
		a := h.client(alice)
		for _, port := range []uint16{7000, 8000, 9000, 22, 22, 7000} {
			a.dial(port)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		b := h.client(bob)
		b.dial(22)
		time.Sleep(time.Second)
		b.knock(7000)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		h.trail.mu.Lock()
		defer h.trail.mu.Unlock()
		for _, kind := range []audit.Kind{audit.Knock, audit.Opened, audit.Accepted, audit.Closed, audit.Refused, audit.Reset} {
			if !slices.ContainsFunc(h.trail.events, func(e audit.Event) bool { return e.Kind == kind }) {
				h.t.Errorf("there was no event %s", kind)
			}
		}
	})
}

// compareSources lets cmp compare sources, which have unexported fields.
var compareSources = cmp.Comparer(func(a, b packet.Source) bool { return a == b })

func TestStatusHasEverythingButSecrets(t *testing.T) {
	ssh := limited(door("ssh", 22, 17001, 18002, 19003), 3)
	web := door("web", 443, 17001, 18005)
	web.Closed = ruleset.Reject
	guarded(t, config(ssh, web), func(h *host) {
		began := time.Now()
		for i, addr := range []netip.Addr{carol, alice, bob} { // not in the order of their addresses
			c := h.client(addr)
			c.knock(17001, 18002, 19003)
			if i == 0 {
				c.knock(17001, 18005)
			}
		}
		synctest.Wait()
		a, b := h.client(alice), h.client(bob)
		a.dial(22)
		a.dial(22)
		b.dial(22)
		time.Sleep(10 * time.Second)
		b.knock(17001, 18002)
		time.Sleep(time.Second)
		a.knock(17001)
		time.Sleep(1500 * time.Microsecond)
		h.client(netip.MustParseAddr("192.0.2.9")).dial(22)
		synctest.Wait()

		got := h.status()
		want := wall.Status{
			Table: "knockwall",
			Since: began,
			Doors: []wall.DoorStatus{
				{
					Name: "ssh", Ports: ssh.Ports, Knocks: 3, OpensBy: []string{"sequence"}, WindowSeconds: 30, MaxConnections: 3, OpenWindows: 3, Closed: ruleset.Drop,
					Counters: wall.DoorCounters{Knocks: 13, Opened: 3, Accepted: 3, Held: 1, KernelAdmitted: 3, Resets: 1},
				},
				{
					Name: "web", Ports: web.Ports, Knocks: 2, OpensBy: []string{"sequence"}, WindowSeconds: 30, OpenWindows: 1, Closed: ruleset.Reject,
					Counters: wall.DoorCounters{Knocks: 6, Opened: 1, Resets: 2},
				},
			},
			Windows: []wall.WindowStatus{
				{Door: "ssh", Source: single(alice), LeftSeconds: 18.999, Connections: 2},
				{Door: "ssh", Source: single(bob), LeftSeconds: 18.999, Connections: 1},
				{Door: "ssh", Source: single(carol), LeftSeconds: 18.999},
				{Door: "web", Source: single(carol), LeftSeconds: 18.999},
			},
			// The newest first. An attempt that the clients began with their first knocks
			// at the other door has ended.
			Attempts: []wall.AttemptStatus{
				{Door: "web", Source: single(alice), Step: 1, Steps: 2, AgeSeconds: 0.002, LeftSeconds: 4.999},
				{Door: "ssh", Source: single(alice), Step: 1, Steps: 3, AgeSeconds: 0.002, LeftSeconds: 4.999},
				{Door: "web", Source: single(bob), Step: 1, Steps: 2, AgeSeconds: 1.002, LeftSeconds: 3.999},
				{Door: "ssh", Source: single(bob), Step: 2, Steps: 3, AgeSeconds: 1.002, LeftSeconds: 3.999},
			},
			Counters: wall.Counters{Attempts: 4, Waiting: 1},
			Findings: []doctor.Finding{},
		}
		if diff := cmp.Diff(want, got, compareSources); diff != "" {
			h.t.Errorf("status (-want +got):\n%s", diff)
		}
		text, err := json.Marshal(got)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, secret := range []string{"17001", "18002", "19003", "18005"} {
			if strings.Contains(string(text), secret) {
				h.t.Errorf("the knock %s is in the status: %s", secret, text)
			}
		}
		var back wall.Status
		if err := json.Unmarshal(text, &back); err != nil {
			h.t.Fatal(err)
		}
		if diff := cmp.Diff(got, back, compareSources); diff != "" {
			h.t.Errorf("status read back from JSON (-want +got):\n%s", diff)
		}
	})
}

func TestAStatusListsSoManyAttemptsAndCountsAll(t *testing.T) {
	c := config(sshDoor())
	c.Wall.MaxSources = 1500
	guarded(t, c, func(h *host) {
		for i := range 2000 {
			h.client(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})).knock(7000)
		}
		synctest.Wait()
		s := h.status()
		if len(s.Attempts) != 1000 || s.Counters.Attempts != 1500 || s.Counters.Evicted != 500 {
			h.t.Errorf("%d attempts are listed, %+v", len(s.Attempts), s.Counters)
		}
		if newest := single(netip.AddrFrom4([4]byte{10, 0, 1999 >> 8, 1999 & 0xff})); s.Attempts[0].Source != newest {
			h.t.Errorf("the first is %s, want the newest, %s", s.Attempts[0].Source, newest)
		}
	})
}

func TestAStatusThatTheKernelDoesNotGiveIsAnError(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.failing("Counts", errInjected)
		if _, err := h.wall.Status(wall.WindowQuery{}); !errors.Is(err, errInjected) {
			h.t.Errorf("Status: %v", err)
		}
	})
}

func TestThereIsRoomForAFullQueueInTheHold(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		hers := a.dial(22)
		b := h.client(bob)
		var all []*journey
		for range wall.StrangersWaiting - 1 {
			all = append(all, b.dial(22))
		}
		h.expect("the queue is full", b.dial(22), dropped)
		a.knock(7000, 8000, 9000)
		h.expect("the queue is full, and alice has knocked", hers, accepted)
		// The queue has room for one packet, the hold for none.
		h.expect("the hold is full", b.dial(22), refused)
		if n := h.status().Doors[0].Counters.Refused; n != 1 {
			h.t.Errorf("%d are counted as refused, want 1", n)
		}
		time.Sleep(hold)
		synctest.Wait()
		if i := slices.IndexFunc(all, func(j *journey) bool { return j.fate != refused }); i >= 0 {
			h.t.Errorf("packet %d is %q", i, all[i].fate)
		}
		h.expect("there is room again", b.dial(22), waiting)
	})
}

func ExampleInUseError() {
	fmt.Println(&wall.InUseError{What: "queue 7100", Key: "queue"})
	// Output:
	// queue 7100 is in use by another process. `knockwall status` shows whether another knockwall runs. If another program uses it, set queue in the rule files to another number
}
