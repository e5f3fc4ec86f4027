package wall_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// reversible returns a door before SSH whose reversed knocks close it.
func reversible(knocks ...uint16) ruleset.Door {
	d := door("ssh", 22, knocks...)
	d.CloseSequence = sequenceOf(d)
	slices.Reverse(d.CloseSequence)
	return d
}

// neighbours returns ports in order, and with each pair of neighbours swapped.
func neighbours(ports []uint16) [][]uint16 {
	all := [][]uint16{ports}
	for i := range len(ports) - 1 {
		swapped := slices.Clone(ports)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		all = append(all, swapped)
	}
	return all
}

// verdictOf sends knocks back to back, and returns the events of the window.
func (c *client) verdictOf(knocks []uint16) []string {
	synctest.Wait()
	c.host.trail.take()
	c.knock(knocks...)
	synctest.Wait()
	return c.host.trail.take(audit.Opened, audit.Refreshed, audit.Closed, audit.Reset, audit.Refused)
}

func TestKnocksThatOvertakeEachOtherMeanWhatTheyAreNearestTo(t *testing.T) {
	for _, opening := range [][]uint16{{7000, 8000, 9000}, {7000, 8000, 9000, 9500}} {
		closing := slices.Clone(opening)
		slices.Reverse(closing)
		for _, opens := range neighbours(opening) {
			for _, closes := range neighbours(closing) {
				t.Run(fmt.Sprint(opens, closes), func(t *testing.T) {
					guarded(t, config(reversible(opening...)), func(h *host) {
						a := h.client(alice)
						last := fmt.Sprintf("%d/%[1]d", len(opening))
						for round := range 2 {
							for _, test := range []struct {
								knocks []uint16
								want   string
							}{
								{opens, "opened ssh 192.0.2.1 " + last},
								{opens, "refreshed ssh 192.0.2.1 " + last},
								{closes, "closed ssh 192.0.2.1: it has knocked to close it"},
							} {
								if got := a.verdictOf(test.knocks); !slices.Equal(got, []string{test.want}) {
									h.t.Errorf("round %d, %v: %v, want %s", round, test.knocks, got, test.want)
								}
								time.Sleep(time.Second)
							}
							time.Sleep(6 * time.Second)
							if got := a.verdictOf(closes); got != nil { // no window is open
								h.t.Errorf("round %d, %v without a window: %v", round, closes, got)
							}
							time.Sleep(6 * time.Second)
						}
					})
				})
			}
		}
	}
}

func TestAnOrderThatIsAsNearToTheOneAsToTheOtherCloses(t *testing.T) {
	d := door("ssh", 22, 7000, 8000, 9000, 9500)
	d.CloseSequence = []packet.Port{tcp(8000), tcp(7000), tcp(9500), tcp(9000)}
	guarded(t, config(d), func(h *host) {
		a := h.client(alice)
		// One pair is swapped by either order.
		for _, want := range []string{
			"opened ssh 192.0.2.1 4/4", // as there is nothing to close
			"closed ssh 192.0.2.1: it has knocked to close it",
			"opened ssh 192.0.2.1 4/4",
		} {
			if got := a.verdictOf([]uint16{8000, 7000, 9000, 9500}); !slices.Equal(got, []string{want}) {
				h.t.Errorf("%v, want %v", got, want)
			}
			time.Sleep(time.Second)
		}
	})
}

// Two knocks count for both sequences in any order. The exact order decides.
func TestTwoKnocksThatCloseTheOtherWayRound(t *testing.T) {
	guarded(t, config(reversible(7000, 8000)), func(h *host) {
		a := h.client(alice)
		for round, step := range []struct {
			knocks []uint16
			want   []string
		}{
			{[]uint16{8000, 7000}, nil},
			{[]uint16{7000, 8000}, []string{"opened ssh 192.0.2.1 2/2"}},
			{[]uint16{7000, 8000}, []string{"refreshed ssh 192.0.2.1 2/2"}},
			{[]uint16{8000, 7000}, []string{"closed ssh 192.0.2.1: it has knocked to close it"}},
			{[]uint16{8000, 7000}, nil},
			{[]uint16{7000, 8000}, []string{"opened ssh 192.0.2.1 2/2"}},
		} {
			if got := a.verdictOf(step.knocks); !slices.Equal(got, step.want) {
				h.t.Errorf("%d, %v: %v, want %v", round, step.knocks, got, step.want)
			}
			time.Sleep(time.Second)
		}
	})
}

// A client that has knocked a part of the sequence, and then all of it, completes the
// close sequence before the opening one.
func TestTheExactOpeningOrderWins(t *testing.T) {
	for _, pause := range []time.Duration{0, time.Millisecond, 100 * time.Millisecond, time.Second} {
		for _, stray := range [][]uint16{{4200, 4300}, {4300}, {4300, 4200}, {4300, 4100}, {4200}, {4100, 4300}, {4100}, {4200, 4100}} {
			t.Run(fmt.Sprint(stray, pause), func(t *testing.T) {
				guarded(t, config(reversible(4100, 4200, 4300)), func(h *host) {
					a := h.client(alice)
					slowly := func(ports ...uint16) {
						for _, port := range ports {
							a.knock(port)
							time.Sleep(pause)
							synctest.Wait()
						}
					}
					slowly(stray...)
					for round := range 3 {
						slowly(4100, 4200, 4300)
						if h.left("ssh", alice) == 0 {
							h.t.Errorf("round %d: it is not open; %q", round, h.trail.take())
						}
					}
				})
			})
		}
	}
}

// The same at an open door: it is closed on the way, and opened again.
func TestTheExactOpeningOrderEndsWithAnOpenDoor(t *testing.T) {
	for _, pause := range []time.Duration{0, 100 * time.Millisecond} {
		for _, stray := range [][]uint16{{4300}, {4300, 4200}, {4200, 4300}} {
			t.Run(fmt.Sprint(stray, pause), func(t *testing.T) {
				guarded(t, config(reversible(4100, 4200, 4300)), func(h *host) {
					a := h.client(alice)
					a.knock(4100, 4200, 4300)
					time.Sleep(6 * time.Second)
					for _, port := range append(stray, 4100, 4200, 4300) {
						time.Sleep(pause)
						a.knock(port)
						synctest.Wait()
					}
					if h.left("ssh", alice) != window {
						h.t.Errorf("it is open for %s; %q", h.left("ssh", alice), h.trail.take())
					}
				})
			})
		}
	}
}

// A client that closes a door twice does not want to open it.
func TestADoorThatIsClosedTwiceStaysClosed(t *testing.T) {
	for _, opened := range []bool{true, false} {
		for _, pauses := range [][2]time.Duration{{0, 0}, {100 * time.Millisecond, 100 * time.Millisecond}, {0, 100 * time.Millisecond}, {time.Second, 0}} {
			t.Run(fmt.Sprint(opened, pauses), func(t *testing.T) {
				guarded(t, config(reversible(7000, 8000, 9000)), func(h *host) {
					a := h.client(alice)
					if opened {
						a.knock(7000, 8000, 9000)
						time.Sleep(time.Second)
					}
					h.trail.take()
					for _, pause := range pauses {
						for _, port := range []uint16{9000, 8000, 7000} {
							a.knock(port)
							time.Sleep(pause)
						}
						synctest.Wait()
					}
					var want []string
					if opened {
						want = []string{"closed ssh 192.0.2.1: it has knocked to close it"}
					}
					h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed, audit.Closed}, want...)
				})
			})
		}
	}
}

// A close sequence at a closed door does not hide what a client does to open it.
func TestAttemptsToOpenHaveEventsAmongThoseToClose(t *testing.T) {
	telling(t, config(reversible(4100, 4200, 4300, 4400)), func(h *teller) {
		a := h.client(alice)
		h.trail.take()
		for _, port := range []uint16{4400, 4300, 4100, 4200} { // and so the close is complete
			a.knock(port)
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		began := time.Now().Add(-2 * time.Millisecond)
		h.because(alice, wall.Knocking, began, "it has knocked 2 of 4 so far, and has 5s left for the rest")
		// Whatever is summed up, the last event is of the opening.
		told := h.trail.take(audit.Knock, audit.Closed, audit.Reset)
		if last := told[len(told)-1]; !strings.HasPrefix(last, "knock ssh 192.0.2.1 2/4") || strings.Contains(last, "close") {
			h.t.Errorf("told: %q", told)
		}
		time.Sleep(2 * audit.SumInterval)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Knock, audit.Closed, audit.Reset}, "reset ssh 192.0.2.1 2/4: too late")
	})
}

// This holds for any number of close knocks.
func TestAFirstKnockHasAnEventAmongThoseToClose(t *testing.T) {
	guarded(t, config(reversible(4100, 4200, 4300, 4400)), func(h *host) {
		h.client(alice).knock(4400, 4300, 4100)
		time.Sleep(audit.SumInterval)
		synctest.Wait()
		told := h.trail.take(audit.Knock)
		if last := told[len(told)-1]; !strings.HasPrefix(last, "knock ssh 192.0.2.1 1/4") || strings.Contains(last, "close") {
			h.t.Errorf("told: %q", told)
		}
	})
}

// Explain says that the client has closed the door, though its last knock may have been
// the first of an opening.
func TestExplainSaysThatASourceHasClosedADoorSlowly(t *testing.T) {
	telling(t, config(reversible(7000, 8000, 9000)), func(h *teller) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		for _, port := range []uint16{9000, 8000, 7000} {
			time.Sleep(time.Second)
			a.knock(port)
		}
		synctest.Wait()
		closed := time.Now()
		h.because(alice, wall.WindowClosed, closed, "its window was closed at "+at(closed, "0s")+": it has knocked to close it")
		if got := h.status().Attempts; len(got) != 0 {
			h.t.Errorf("under way: %+v", got)
		}
		time.Sleep(5500 * time.Millisecond)
		h.because(alice, wall.WindowClosed, closed, "its window was closed at "+at(closed, "5.5s")+": it has knocked to close it")
	})
}

// A knock that is wrong for opening is reported as wrong, though it may belong to the
// close sequence.
func TestAWrongKnockThatMayBeOneToCloseHasAnEventAsWrong(t *testing.T) {
	telling(t, config(reversible(7000, 8000, 9000)), func(h *teller) {
		a := h.client(alice)
		for _, port := range []uint16{7000, 9000, 8000} {
			time.Sleep(time.Second)
			a.knock(port)
		}
		synctest.Wait()
		wrong := time.Now()
		time.Sleep(10 * time.Second)
		h.because(alice, wall.WrongOrder, wrong, "it knocked in the wrong order at "+at(wrong, "10s")+", after 1 of 3 right knocks")
	})
}

// Explain reports knocks that are only the close sequence of a closed door.
func TestExplainSaysThatASourceKnocksToCloseADoorThatIsNotOpen(t *testing.T) {
	d := sshDoor()
	d.CloseSequence = []packet.Port{tcp(4000), tcp(5000), tcp(6000)}
	telling(t, config(d), func(h *teller) {
		a := h.client(alice)
		h.trail.take()
		h.changes()
		a.knock(4000, 5000)
		synctest.Wait()
		last := time.Now()
		a.knock(6000) // it makes no event
		synctest.Wait()
		h.because(alice, wall.WrongOrder, last, "its knocks until "+at(last, "0s")+
			", 2 of 3, belong to the sequence that closes the door, not to one that opens it")
		h.trail.expect(h.t, []audit.Kind{audit.Closed, audit.Reset})
		if changes := h.changes(); changes != nil {
			h.t.Errorf("changes in the kernel: %q", changes)
		}
	})
}

// Knocks at one door never end an attempt at another, though the doors share ports.
func TestDoorsThatShareKnocksInOtherOrders(t *testing.T) {
	one, other := reversible(4100, 4200, 4300), door("web", 443, 4300, 4100, 4200)
	other.CloseSequence = []packet.Port{tcp(4200), tcp(4300), tcp(4100)}
	for _, pause := range []time.Duration{0, 100 * time.Millisecond} {
		guarded(t, config(one, other), func(h *host) {
			a := h.client(alice)
			for range 3 {
				h.trail.take()
				for _, port := range []uint16{4100, 4200, 4300, 4100, 4200} {
					a.knock(port)
					time.Sleep(pause)
					synctest.Wait()
				}
				if h.left("ssh", alice) == 0 || h.left("web", alice) == 0 {
					h.t.Errorf("with pauses of %s: ssh is open for %s, web for %s; %q", pause, h.left("ssh", alice), h.left("web", alice), h.trail.take())
				}
			}
		})
	}
}

// A knock that is wrong at all of several locks is reported, too.
func TestAKnockThatIsWrongAtEachLockHasAnEvent(t *testing.T) {
	d := sshDoor()
	d.CloseSequence = []packet.Port{tcp(4000), tcp(5000)}
	guarded(t, config(d), func(h *host) {
		a := h.client(alice)
		a.knock(9000)
		synctest.Wait()
		h.trail.expect(h.t, nil, "reset ssh 192.0.2.1 0/3: wrong order")
	})
}

// But not a knock that one of the locks has already.
func TestAKnownKnockThatIsWrongAtAnotherLockHasNoEvent(t *testing.T) {
	d := knockedBy(sshDoor(), ports(7000, 8000, 9000), ports(8001, 9001, 7000))
	guarded(t, config(d), func(h *host) {
		a := h.client(alice)
		a.knock(7000)
		time.Sleep(time.Second)
		a.knock(7000) // dialled again, and early at the other lock
		synctest.Wait()
		h.trail.expect(h.t, nil, "knock ssh 192.0.2.1 1/3", "knock ssh 192.0.2.1 0/3: before its turn")
	})
}

func TestADoorIsOpenedAndClosedInOneBreath(t *testing.T) {
	guarded(t, config(reversible(7000, 8000, 9000)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000, 9000, 8000, 7000)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed, audit.Closed, audit.Reset},
			"opened ssh 192.0.2.1 3/3", "closed ssh 192.0.2.1: it has knocked to close it")
		h.expect("alice has closed it", a.dial(22), waiting)
	})
}

func TestClosingADoorClosesItForOneSource(t *testing.T) {
	guarded(t, config(reversible(7000, 8000, 9000)), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.trail.take()
		b.knock(9000, 8000, 7000)
		time.Sleep(audit.SumInterval)
		synctest.Wait()
		h.trail.expect(h.t, nil, "knock ssh 192.0.2.2 1/3: to close", "knock ssh 192.0.2.2 2/3: to close")
		h.expect("alice's window is open", a.dial(22), accepted)
		if h.left("ssh", alice) == 0 {
			h.t.Error("alice's window is closed")
		}
		if d := h.status().Doors[0].Counters; d.Closed != 0 {
			h.t.Errorf("windows are counted as closed: %+v", d)
		}
	})
}

// At a door that reversed knocks close, each knock of a slow client is wrong for the
// other order.
func TestASlowClientIsNotSaidToFail(t *testing.T) {
	guarded(t, config(reversible(7000, 8000, 9000)), func(h *host) {
		a := h.client(alice)
		slowly := func(ports ...uint16) {
			for _, port := range ports {
				a.dial(port)
				time.Sleep(time.Second)
			}
			synctest.Wait()
		}
		slowly(7000, 8000)
		want := []wall.AttemptStatus{{Door: "ssh", Source: single(alice), Step: 2, Steps: 3, AgeSeconds: 2, LeftSeconds: 3}}
		if got := h.status().Attempts; len(got) != 1 || got[0] != want[0] {
			h.t.Errorf("attempts under way: %+v, want %+v", got, want)
		}
		slowly(9000)
		h.trail.expect(h.t, nil, "knock ssh 192.0.2.1 1/3", "knock ssh 192.0.2.1 2/3", "knock ssh 192.0.2.1 3/3", "opened ssh 192.0.2.1 3/3")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		h.trail.expect(h.t, nil)
		slowly(9000, 8000, 7000)
		h.trail.expect(h.t, []audit.Kind{audit.Closed, audit.Reset, audit.Opened, audit.Refreshed},
			"closed ssh 192.0.2.1: it has knocked to close it")
		time.Sleep(window)
		h.trail.expect(h.t, []audit.Kind{audit.Expired, audit.Reset})
		if d := h.status().Doors[0].Counters; d.Resets != 0 || d.Opened != 1 || d.Closed != 1 || d.Expired != 0 || d.Knocks != 6 {
			h.t.Errorf("counters: %+v", d)
		}
	})
}

func TestAnAttemptThatFailsHasAnEventAtADoorThatCanBeClosed(t *testing.T) {
	guarded(t, config(reversible(7000, 8000, 9000)), func(h *host) {
		a := h.client(alice)
		a.dial(7000)
		time.Sleep(time.Second)
		a.dial(8000)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Reset}, "reset ssh 192.0.2.1 2/3: too late")
	})
}

func TestAWindowThatTheKernelDoesNotCloseForAKnockHasAnEvent(t *testing.T) {
	guarded(t, config(reversible(7000, 8000, 9000)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.failing("CloseWindow", errInjected)
		time.Sleep(time.Second)
		h.trail.watch(func(e audit.Event) {
			if e.Kind == audit.Closed && !e.Failed {
				h.t.Errorf("%s: it did not fail", e)
			}
		})
		h.trail.take()
		a.knock(9000, 8000, 7000)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Closed}, "closed ssh 192.0.2.1 3/3: the kernel says no")
		h.expect("the window is open", a.dial(22), accepted)
	})
}

// A door may have a close sequence of other knocks, and attempts at it survive a reload,
// as those to open the door do.
func TestAnAttemptToCloseADoorGoesOnAcrossAReload(t *testing.T) {
	d := sshDoor()
	d.CloseSequence = []packet.Port{tcp(4000), tcp(5000)}
	guarded(t, config(d), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000, 4000)
		synctest.Wait()
		later := d
		later.Window = time.Minute
		if err := h.raise(config(later)); err != nil {
			h.t.Fatal(err)
		}
		h.trail.take()
		a.knock(5000)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Closed, audit.Reset}, "closed ssh 192.0.2.1: it has knocked to close it")
	})
}

// The last opening knock is the first of the close sequence. It is no attempt to close:
// otherwise half its time would be over when the client does close.
func TestClosingSoonAfterOpeningHasTheWholeTimeout(t *testing.T) {
	guarded(t, config(reversible(7000, 8000, 9000)), func(h *host) {
		c := h.client(alice)
		for _, direction := range [][]uint16{{7000, 8000, 9000}, {9000, 8000, 7000}, {7000, 8000, 9000}} {
			h.trail.take()
			for _, port := range direction {
				c.knock(port)
				time.Sleep(400 * time.Millisecond)
			}
			want := []string{"opened ssh 192.0.2.1 3/3"}
			if direction[0] == 9000 {
				want = []string{"closed ssh 192.0.2.1: it has knocked to close it"}
			}
			synctest.Wait()
			if got := h.trail.take(fates...); !slices.Equal(got, want) {
				h.t.Errorf("%d: %q, want %q", direction, got, want)
			}
			time.Sleep(4 * time.Second)
		}
	})
}
