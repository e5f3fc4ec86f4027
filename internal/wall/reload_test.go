package wall_test

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/ruleset"
)

// reload applies new rules.
func (h *host) reload(c *ruleset.Config) {
	h.t.Helper()
	if err := h.raise(c); err != nil {
		h.t.Fatal(err)
	}
}

func TestAttemptsUnderWayGoOnAcrossAReloadIfTheirDoorIsTheSame(t *testing.T) {
	web, mail := door("web", 443, 7001, 8001), door("mail", 25, 7002, 8002, 9002, 7002)
	longer, wider, later, other := withKnock(sshDoor(), tcp(9999)), sshDoor(), sshDoor(), sshDoor()
	wider.SourcePrefix.IPv4 = 24
	later.SequenceTimeout = time.Minute
	other.Name = "shell"
	for _, tt := range []struct {
		name         string
		before, then *ruleset.Config
		goesOn       bool
	}{
		{"nothing is changed", config(sshDoor()), config(sshDoor()), true},
		{"doors are reordered", config(sshDoor(), web), config(web, sshDoor()), true},
		{"a door is added before", config(sshDoor()), config(mail, sshDoor()), true},
		{"a door is removed before", config(mail, sshDoor()), config(sshDoor()), true},
		{"something else of the door is changed", config(sshDoor()), config(limited(sshDoor(), 3)), true},
		{"the time for it is longer", config(sshDoor()), config(later), true},
		{"the numbers are changed", config(sshDoor()), moved(config(sshDoor())), true},
		{"the table is renamed", config(sshDoor()), renamed(config(sshDoor())), true},
		{"the sequence is longer", config(sshDoor()), config(longer), false},
		{"sources are told apart otherwise", config(sshDoor()), config(wider), false},
		{"the door has another name", config(sshDoor()), config(other), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			guarded(t, tt.before, func(h *host) {
				a := h.client(alice)
				a.knock(7000, 8000)
				synctest.Wait()
				time.Sleep(time.Second)
				h.reload(tt.then)
				time.Sleep(time.Second)
				if got, want := len(h.status().Attempts), map[bool]int{true: 1}[tt.goesOn]; got != want {
					h.t.Errorf("%d attempts, want %d", got, want)
				}
				a.knock(9000)
				synctest.Wait()
				h.expect("alice connects", a.dial(22), map[bool]string{true: accepted, false: waiting}[tt.goesOn])
			})
		})
	}
}

func TestAReloadDoesNotPutOffTheEndOfAnAttempt(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000)
		time.Sleep(3 * time.Second)
		h.reload(config(sshDoor()))
		time.Sleep(2*time.Second + 1)
		a.knock(9000)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Reset, audit.Opened}, "reset ssh 192.0.2.1 2/3: too late")
	})
}

func TestAReloadWithFewerPlacesKeepsTheNewestAttempts(t *testing.T) {
	c := config(sshDoor())
	c.Wall.MaxSources = 1
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000)
		b.knock(7000)
		synctest.Wait()
		h.reload(c)
		if got := h.status().Counters; got.Attempts != 1 || got.Evicted != 1 {
			h.t.Errorf("counters: %+v", got)
		}
		b.knock(8000, 9000)
		h.expect("bob has knocked last", b.dial(22), accepted)
		h.reload(config(sshDoor()))
		if got := h.status().Counters; got.Evicted != 1 {
			h.t.Errorf("counters: %+v", got)
		}
	})
}

func TestWhatWaitsAtAReloadIsJudgedByTheNewRules(t *testing.T) {
	for name, c := range map[string]func(...ruleset.Door) *ruleset.Config{
		"the same numbers": config,
		"other numbers":    func(d ...ruleset.Door) *ruleset.Config { return moved(config(d...)) },
		"another table, whose packets go with the former one": func(d ...ruleset.Door) *ruleset.Config { return renamed(config(d...)) },
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor(), door("web", 443, 7001)), func(h *host) {
				a, b := h.client(alice), h.client(bob)
				held, atWeb, theirs := a.dial(22), a.dial(443), b.dial(22)
				a.knock(7000, 8000)
				synctest.Wait()
				h.reload(c(sshDoor())) // web is guarded no more
				hook := len(h.stands()) == 1 && h.stands()[0] == "knockwall"
				if !hook {
					h.expect("went with its hook", held, dropped)
					held, theirs = h.send(held.packet), h.send(theirs.packet)
				}
				h.expect("waits", held, waiting)
				time.Sleep(hold / 2)
				a.knock(9000)
				h.expect("a knock after the reload", held, accepted)
				time.Sleep(hold)
				h.expect("bob has not knocked", theirs, refused)
				if hook { // when it was over it has met the new rules, which have no such door
					h.expect("web has no door", atWeb, accepted)
				}
			})
		})
	}
}

func TestPacketsUnreadAtAReloadAreJudgedByTheNewRules(t *testing.T) {
	for name, next := range map[string]*ruleset.Config{
		"the same numbers": config(door("web", 443, 7001), limited(sshDoor(), 1)),
		"other numbers":    moved(config(door("web", 443, 7001), limited(sshDoor(), 1))),
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor(), door("old", 80, 7003)), func(h *host) {
				a, b, c := h.client(alice), h.client(bob), h.client(carol)
				c.knock(7000, 8000, 9000)
				synctest.Wait()
				lane, strangers := h.lanes()
				sockets := []*socket{h.log().socket, lane.socket, strangers.socket}
				for _, s := range sockets {
					s.hold()
				}
				a.knock(7000, 8000, 9000)
				a.knock(7003) // at a door that goes
				hers, theirs, in, another := a.dial(22), b.dial(22), c.dial(22), c.dial(22)
				h.reload(next)
				for _, s := range sockets {
					s.resume()
				}
				h.expect("alice's knocks were unread", hers, accepted)
				h.expect("carol has a window", in, accepted)
				h.expect("carol has a window of before", another, accepted) // without the new limit
				h.expect("bob has not knocked", theirs, waiting)
				second := a.dial(22)
				time.Sleep(time.Second)
				h.expect("alice's window has the new limit", second, refused)
				h.expect("bob has not knocked", theirs, refused)
				if got := h.status().Windows; len(got) != 1 || got[0].Source != single(carol) {
					h.t.Errorf("windows: %+v", got)
				}
				h.expectBound(map[bool][]string{true: turn0, false: turn2}[next.Wall.Queue == 7100])
			})
		})
	}
}

func TestAReloadMayChangeHowLongStrangersWait(t *testing.T) {
	for _, wait := range []time.Duration{hold / 4, hold * 4} {
		guarded(t, config(sshDoor()), func(h *host) {
			b := h.client(bob)
			before := b.dial(22)
			time.Sleep(hold / 8)
			c := config(sshDoor())
			c.Wall.Hold = wait
			h.reload(c)
			time.Sleep(wait - hold/8 - 1)
			h.expect("came before the reload, and its time is not over", before, waiting)
			time.Sleep(time.Nanosecond)
			h.expect("came before the reload, and its time is over", before, refused)
			time.Sleep(time.Second)
			after := b.dial(22)
			time.Sleep(wait - 1)
			h.expect("came after the reload", after, waiting)
			time.Sleep(time.Nanosecond)
			h.expect("came after the reload", after, refused)
		})
	}
}

func TestAReloadThatShortensHoldRefusesPacketsThatAreDueByThen(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		j := h.client(bob).dial(22)
		time.Sleep(hold / 2)
		c := config(sshDoor())
		c.Wall.Hold = hold / 4
		h.reload(c)
		h.expect("is overdue", j, refused)
	})
}

func TestAReloadWithOtherNumbersClosesTheFormerSocketsOnceTheyAreEmpty(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		lane, strangers := h.lanes()
		held := b.dial(22)
		synctest.Wait()
		lane.hold()
		in := a.dial(22)
		h.changes()
		h.reload(moved(config(sshDoor())))
		if got := h.changes(); !slices.Equal(got, []string{"Install knockwall"}) {
			h.t.Errorf("changed: %v", got)
		}
		h.expect("bob's packet goes through the new rules", held, waiting)
		if n := h.rounds(held); n != 2 || len(strangers.pending) != 0 {
			h.t.Errorf("bob's packet has gone through the rules %d times, %d wait in the former queue", n, len(strangers.pending))
		}
		if got := h.status().Counters.Waiting; got != 1 {
			h.t.Errorf("%d wait, want 1", got)
		}
		time.Sleep(hold - 1)
		h.expect("bob's packet has waited, once more, for less than hold", held, waiting)
		if n := len(h.bound()); n != 8 { // as alice's packet is in a former one
			h.t.Errorf("bound: %v", h.bound())
		}
		time.Sleep(time.Nanosecond)
		h.expect("bob's packet has waited for hold", held, refused)
		lane.resume()
		h.expect("alice's was in the former queue", in, accepted)
		time.Sleep(time.Second)
		h.expectBound(turn2)
		h.expect("alice's window is open", a.dial(22), accepted)
	})
}

func TestFormerSocketsThatAreNeverEmptyAreClosedAfterAll(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.log().hold()
		h.client(alice).knock(7000)
		h.reload(moved(config(sshDoor())))
		time.Sleep(3 * time.Second)
		h.expectBound(turn2)
		h.expect("the new ones work", h.client(bob).dial(22), waiting)
	})
}

func TestWhatTheFormerQueuesHaveLostIsCounted(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		lane, strangers := h.lanes()
		lane.lose(3)
		h.status()
		h.reload(moved(config(sshDoor())))
		strangers.lose(2)
		time.Sleep(time.Second)
		lane, _ = h.lanes()
		lane.lose(1)
		if got := h.status().Counters.Lost; got != 6 {
			h.t.Errorf("%d lost, want 6", got)
		}
	})
}

func TestAWallThatIsStoppedWhileFormerSocketsAreDrainedWaitsForThem(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.log().hold()
		log := h.log()
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.reload(moved(config(sshDoor())))
		h.stop()
		time.Sleep(time.Second)
		log.resume()
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		h.expectBound(nil)
		h.expect("alice's knocks were in the former log", a.dial(22), accepted)
	})
}

// Nobody is refused while a knock waits in the log of rules that were replaced.
func TestKnocksInTheLogOfFormerRulesAreWaitedFor(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		former := h.log()
		former.hold()
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.reload(moved(config(sshDoor())))
		hers := a.dial(22)
		time.Sleep(hold + 100*time.Millisecond)
		h.expect("alice's knocks are in the former log", hers, waiting)
		former.resume()
		h.expect("and now they are heard", hers, accepted)
	})
}

// Nor while the last message of the log is being handled, which the log has no more.
func TestNoPacketIsRefusedWhileAMessageIsHandled(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		handled := make(chan struct{})
		h.log().do(func() { <-handled })
		theirs := h.client(bob).dial(22)
		time.Sleep(hold + 100*time.Millisecond)
		h.expect("it may be a knock of bob's", theirs, waiting)
		close(handled)
		time.Sleep(100 * time.Millisecond)
		h.expect("it was none", theirs, refused)
	})
}

func TestAReloadToTheNumbersOfTheFormerSocketsWorks(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		h.reload(moved(config(sshDoor())))
		h.reload(config(sshDoor())) // at once, while they are drained
		a.knock(7000, 8000, 9000)
		h.expect("alice has knocked", a.dial(22), accepted)
		time.Sleep(time.Second)
		if n := len(h.bound()); n != 4 {
			h.t.Errorf("bound: %v", h.bound())
		}
	})
}

// The two banks of a configuration whose numbers are shifted by one use all four queues.
func TestAReloadToNumbersThatOverlapIsAnErrorWhateverIsInstalled(t *testing.T) {
	c := config(sshDoor())
	c.Wall.Queue = 7099
	for name, before := range map[string]func(h *host){
		"the table stands":  func(*host) {},
		"the table is gone": func(h *host) { h.flush("knockwall") },
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				before(h)
				defer func() {
					if p := recover(); p != nil {
						h.t.Errorf("Raise panics: %v", p)
					}
				}()
				if err := h.raise(c); err == nil || !strings.Contains(err.Error(), "numbers that are further away") {
					h.t.Errorf("Apply: %v", err)
				}
				h.expectBound(turn0)
			})
		})
	}
}

func TestAReloadMayRenameATableThatSomebodyHasDeleted(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.flush("knockwall")
		if err := h.raise(renamed(config(sshDoor()))); err != nil {
			h.t.Fatalf("Apply: %v", err)
		}
		h.expect("alice's window is open", a.dial(22), accepted)
		h.expect("bob has none", h.client(bob).dial(22), waiting)
	})
}

// Knocks during a reload are known afterwards, whether the reload succeeds or not.
func TestKnocksThatAreHeardDuringAReloadCount(t *testing.T) {
	for _, call := range []string{"Standing", "SeedConntrack", "Install"} {
		for _, fails := range []error{nil, errInjected} {
			want := fails
			if call == "Standing" {
				want = nil // the recorded windows have to do
			}
			t.Run(map[bool]string{true: "fails in ", false: "succeeds after "}[fails != nil]+call, func(t *testing.T) {
				guarded(t, config(sshDoor()), func(h *host) {
					a := h.client(alice)
					a.knock(7000)
					synctest.Wait()
					h.answering(call, func() error {
						a.knock(8000)
						for !h.log().Drained() {
							time.Sleep(time.Millisecond)
						}
						time.Sleep(time.Millisecond)
						h.failing("nothing", nil)
						return fails
					})
					if err := h.raise(config(sshDoor())); !errors.Is(err, want) {
						h.t.Fatalf("Apply: %v", err)
					}
					if got := h.status().Doors[0].Counters.Knocks; got != 2 {
						h.t.Errorf("%d knocks are counted, want 2", got)
					}
					a.knock(9000)
					h.expect("alice has knocked", a.dial(22), accepted)
				})
			})
		}
	}
}

func TestAWindowThatIsKnockedOpenDuringAReloadIsOpenAfterIt(t *testing.T) {
	for _, call := range []string{"Standing", "SeedConntrack", "Install"} {
		for _, fails := range []error{nil, errInjected} {
			want := fails
			if call == "Standing" {
				want = nil // the recorded windows have to do
			}
			t.Run(map[bool]string{true: "fails in ", false: "succeeds after "}[fails != nil]+call, func(t *testing.T) {
				guarded(t, config(sshDoor()), func(h *host) {
					a, b := h.client(alice), h.client(bob)
					b.knock(7000, 8000, 9000)
					a.knock(7000, 8000)
					synctest.Wait()
					time.Sleep(time.Second)
					var held *journey
					h.answering(call, func() error {
						h.failing("nothing", nil)
						held = a.dial(22)
						a.knock(9000)
						for h.status().Doors[0].Counters.Knocks < 6 {
							runtime.Gosched()
						}
						// Now, or in a moment, the handler waits for the reload.
						return fails
					})
					if err := h.raise(config(sshDoor())); !errors.Is(err, want) {
						h.t.Fatalf("Apply: %v", err)
					}
					h.expect("alice has knocked", held, accepted)
					h.expect("alice has knocked", a.dial(22), accepted)
					if got := h.left("ssh", alice); got != window {
						h.t.Errorf("alice's window is open for %s", got)
					}
					if got, want := h.left("ssh", bob), window-time.Second; got != want {
						h.t.Errorf("bob's window is open for %s, want %s", got, want)
					}
					h.expect("carol has not knocked", h.client(carol).dial(22), waiting)
				})
			})
		}
	}
}
