package wall_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

const step = 30 * time.Second

// rollingDoor returns a door with a rolling sequence.
func rollingDoor(name string, port uint16, step time.Duration) ruleset.Door {
	d := door(name, port)
	d.Window = 5 * time.Second
	d.Methods = []method.Method{&rolling.Rolling{
		Secret: secret.New([]byte("hipjazz at " + name)), Length: 4, Step: step,
		Range: packet.PortRange{First: 20000, Last: 29999, Protocol: packet.TCP},
	}}
	return d
}

// present returns the knocks of the step at a time.
func present(t *testing.T, d ruleset.Door, at time.Time) []packet.Port {
	t.Helper()
	knocks, err := effective.Knocks(&d, at)
	if err != nil {
		t.Fatal(err)
	}
	return knocks
}

// toStep sleeps until a time after the begin of the next step.
func toStep(length, after time.Duration) {
	now := time.Now()
	time.Sleep(now.Truncate(length).Add(length).Sub(now) + after)
	synctest.Wait()
}

// fates are the kinds of events that show the results of knocks.
var fates = []audit.Kind{audit.Opened, audit.Refreshed, audit.Replayed, audit.Refused, audit.Reset, audit.Closed}

// became knocks, and checks the events.
func (c *client) became(what string, knocks []packet.Port, want ...string) {
	c.t.Helper()
	synctest.Wait()
	c.host.trail.take()
	c.press(knocks)
	synctest.Wait()
	if got := c.host.trail.take(fates...); !slices.Equal(got, want) {
		c.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// again stops the daemon and starts another one.
func (h *host) again(c *ruleset.Config) *host {
	h.t.Helper()
	h.stop()
	if err := <-h.ended; err != nil {
		h.t.Fatal(err)
	}
	next := h.newHost()
	if err := next.raise(c); err != nil {
		h.t.Fatal(err)
	}
	next.run()
	return next
}

// pretend installs the sequences of another time, as if the clock had shown it at the
// last check.
func (h *host) pretend(at time.Time) {
	h.kernel.mu.Lock()
	h.clocks = append(h.clocks, at)
	h.kernel.mu.Unlock()
	h.wall.ApplyAt(at)
}

func TestARollingSequenceChangesWithTheClockByOneTransactionAStep(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	guarded(t, config(d), func(h *host) {
		seen := map[string]bool{}
		for n := range 6 {
			toStep(step, 0)
			if got := h.changes(); !slices.Equal(got, []string{"Install knockwall"}) {
				h.t.Errorf("step %d: %q", n, got)
			}
			knocks := present(h.t, d, time.Now())
			seen[fmt.Sprint(knocks)] = true
			h.client(alice).became("the present step", knocks, "opened ssh 192.0.2.1 4/4")
			time.Sleep(step - time.Nanosecond)
			synctest.Wait()
			h.trail.expect(h.t, []audit.Kind{audit.Expired, audit.Reloaded, audit.Healed}, "expired ssh 192.0.2.1")
			if got := h.changes(); !slices.Equal(got, []string{"OpenWindows ssh 192.0.2.1"}) {
				h.t.Errorf("within step %d: %q", n, got)
			}
		}
		if len(seen) != 6 {
			h.t.Errorf("6 steps have %d sequences", len(seen))
		}
	})
}

func TestTheKnocksOfOtherStepsThanThoseBesideThePresentAreNotHeard(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	guarded(t, config(d), func(h *host) {
		for _, away := range []time.Duration{-2 * step, 2 * step} {
			h.trail.take()
			h.client(alice).press(present(h.t, d, time.Now().Add(away)))
			synctest.Wait()
			h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Replayed})
			if open := h.status().Windows; len(open) != 0 {
				h.t.Errorf("%s away: %+v", away, open)
			}
		}
	})
}

func TestThePresentStepOpensForAllWhoKnockIt(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	guarded(t, config(d), func(h *host) {
		toStep(step, 0)
		knocks := present(h.t, d, time.Now())
		h.client(alice).became("alice", knocks, "opened ssh 192.0.2.1 4/4")
		h.client(bob).became("bob", knocks, "opened ssh 192.0.2.2 4/4")
		time.Sleep(10 * time.Second)
		h.client(alice).became("alice, again", knocks, "opened ssh 192.0.2.1 4/4")

		toStep(step, 0)
		h.client(carol).became("carol, who has overheard it", knocks, "replayed ssh 192.0.2.3")
		if d := h.status().Doors[0].Counters; d.Replayed != 1 || d.Opened != 3 {
			h.t.Errorf("counters: %+v", d)
		}
		h.expect("carol", h.client(carol).dial(22), waiting)
	})
}

func TestTheStepBeforeOpensOnceForAClientWhoseClockIsBehind(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	guarded(t, config(d), func(h *host) {
		toStep(step, time.Second)
		before := present(h.t, d, time.Now().Add(-step))
		a := h.client(alice)
		a.became("alice", before, "opened ssh 192.0.2.1 4/4")
		h.client(bob).became("bob, who has overheard it", before, "replayed ssh 192.0.2.2")
		a.became("alice, once more", before, "replayed ssh 192.0.2.1")
		h.client(bob).became("the present step", present(h.t, d, time.Now()), "opened ssh 192.0.2.2 4/4")
	})
}

func TestTheStepAfterOpensOnceUntilItIsThePresentOne(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	guarded(t, config(d), func(h *host) {
		toStep(step, time.Second)
		after := present(h.t, d, time.Now().Add(step))
		h.client(alice).became("alice, whose clock is ahead", after, "opened ssh 192.0.2.1 4/4")
		h.client(bob).became("bob, who has overheard it", after, "replayed ssh 192.0.2.2")
		toStep(step, time.Second)
		h.client(bob).became("bob, whose clock is right", after, "opened ssh 192.0.2.2 4/4")
		toStep(step, time.Second)
		h.client(carol).became("carol, who has overheard it", after, "replayed ssh 192.0.2.3")
	})
}

func TestAfterDamageOnlyThePresentStepOpensUntilNoneOfBeforeIsGood(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		toStep(step, 0)
		h.used = &notebook{damaged: time.Now()}
		h.begin(config(d))
		time.Sleep(time.Second)
		a := h.client(alice)
		a.became("the present step", present(t, d, time.Now()), "opened ssh 192.0.2.1 4/4")
		h.client(bob).became("the step before", present(t, d, time.Now().Add(-step)), "refused ssh 192.0.2.2 4/4: "+mayBeUsed)
		h.client(carol).became("the step after", present(t, d, time.Now().Add(step)), "refused ssh 192.0.2.3 4/4: "+mayBeUsed)
		toStep(step, time.Second)
		h.client(carol).became("the step after", present(t, d, time.Now().Add(step)), "opened ssh 192.0.2.3 4/4")
	})
}

func TestAttemptsGoOnWhenTheSequenceChanges(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	guarded(t, config(d), func(h *host) {
		toStep(step, step-time.Second)
		a, b, c := h.client(alice), h.client(bob), h.client(carol)
		now, behind, ahead := present(h.t, d, time.Now()), present(h.t, d, time.Now().Add(-step)), present(h.t, d, time.Now().Add(step))
		a.press(now[:2])
		b.press(behind[:2])
		c.press(ahead[:2])
		toStep(step, time.Second)
		a.became("what was the present step", now[2:], "opened ssh 192.0.2.1 4/4")
		c.became("what was the next step", ahead[2:], "opened ssh 192.0.2.3 4/4")
		b.became("what was the step before", behind[2:])
	})
}

// A late change of steps must not take an old step for the next one.
func TestAStepThatWasUsedIsUsedWhenTheChangeIsLate(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	guarded(t, config(d), func(h *host) {
		toStep(step, step-time.Second)
		behind := present(h.t, d, time.Now().Add(-step))
		h.client(alice).became("alice, whose clock is behind", behind, "opened ssh 192.0.2.1 4/4")
		late := time.Now()
		toStep(step, time.Millisecond) // after the change of steps
		// The first attempt of all would wake housekeeping, which would change the step
		// at once.
		h.client(carol).press(present(h.t, d, late)[:1])
		synctest.Wait()
		h.pretend(late)
		h.trail.take()
		h.client(bob).became("bob, who has overheard it", behind, "replayed ssh 192.0.2.2")
	})
}

func TestASequenceThatCannotChangeIsTriedAgainAndHasOneEvent(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	guarded(t, config(d), func(h *host) {
		h.failing("Install", errInjected)
		toStep(step, 5*wall.LookAtClock)
		h.trail.expect(h.t, []audit.Kind{audit.Reloaded}, "reloaded: the next sequences are not in force: the kernel says no")
		if n := len(h.changes()); n != 6 { // one at once, and then with each look
			h.t.Errorf("tried %d times, want 6", n)
		}
		h.failing("nothing", nil)
		time.Sleep(wall.LookAtClock)
		synctest.Wait()
		if n := len(h.changes()); n != 1 {
			h.t.Errorf("%d transactions when the kernel lets it", n)
		}
		ahead := present(h.t, d, time.Now().Add(step))
		h.client(alice).became("the step that the kernel knows since", ahead, "opened ssh 192.0.2.1 4/4")
		h.trail.take()
		time.Sleep(2 * wall.LookAtClock)
		if got := h.changes(); !slices.Equal(got, []string{"OpenWindows ssh 192.0.2.1"}) {
			h.t.Errorf("and then: %q", got)
		}
		h.failing("Install", errInjected)
		toStep(step, time.Second)
		h.trail.expect(h.t, []audit.Kind{audit.Reloaded}, "reloaded: the next sequences are not in force: the kernel says no")
		h.failing("nothing", nil)
	})
}

// A daemon that continues with the former rules continues with what the kernel has.
func TestASequenceThatCouldNotChangeIsTriedAgainAfterAReloadThatFails(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	c := config(d)
	guarded(t, c, func(h *host) {
		h.failing("Install", errInjected)
		toStep(step, 0)
		if err := h.wall.Apply(c); !errors.Is(err, errInjected) {
			h.t.Fatalf("a reload: %v", err)
		}
		h.failing("nothing", nil)
		time.Sleep(wall.LookAtClock)
		synctest.Wait()
		ahead := present(h.t, d, time.Now().Add(step))
		h.client(alice).became("the next step", ahead, "opened ssh 192.0.2.1 4/4")
	})
}

func TestAClockThatIsSetIsFollowed(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	for what, off := range map[string]time.Duration{"forwards": -100 * time.Hour, "back": 100 * time.Hour, "before 1970": -50 * 365 * 24 * time.Hour} {
		t.Run(what, func(t *testing.T) {
			guarded(t, config(d), func(h *host) {
				toStep(step, time.Second)
				wrong := time.Now().Add(off)
				h.pretend(wrong)
				now := present(h.t, d, time.Now())
				h.client(alice).became("before the clock is looked at", now)
				time.Sleep(wall.LookAtClock)
				synctest.Wait()
				h.client(alice).became("after", now, "opened ssh 192.0.2.1 4/4")
				h.client(bob).became("the step that it was", present(h.t, d, wrong))
			})
		})
	}
}

func TestAStepThatWasUsedIsUsedForTheNextDaemonToo(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	c := config(d)
	guarded(t, c, func(h *host) {
		toStep(step, time.Second)
		used, ahead := present(h.t, d, time.Now()), present(h.t, d, time.Now().Add(step))
		h.client(alice).became("the present step", used, "opened ssh 192.0.2.1 4/4")
		h.client(bob).became("the next one", ahead, "opened ssh 192.0.2.2 4/4")
		next := h.again(c)
		next.client(carol).became("the next one, overheard", ahead, "replayed ssh 192.0.2.3")
		toStep(step, time.Second)
		next.client(carol).became("the one before, overheard", used, "replayed ssh 192.0.2.3")
	})
}

// A full disk does not keep out clients that knock the present sequence. Of former
// sequences it is unknown whether they were used.
func TestOnlyThePresentStepIsGoodWhereNoneCanBeRemembered(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		book := &notebook{}
		h.used = book
		h.begin(config(d))
		toStep(step, time.Second)
		book.fail(errInjected)
		now, before := present(t, d, time.Now()), present(t, d, time.Now().Add(-step))
		h.client(alice).became("the present step", now, "opened ssh 192.0.2.1 4/4")
		h.client(bob).became("the one before", before, "refused ssh 192.0.2.2 4/4: the kernel says no")
		book.fail(nil)
		h.client(carol).became("when it can be", before, "opened ssh 192.0.2.3 4/4")
	})
}

func TestTwoRollingDoorsChangeEachAtItsTime(t *testing.T) {
	slow, fast := rollingDoor("ssh", 22, 45*time.Second), rollingDoor("web", 443, step)
	guarded(t, config(slow, fast), func(h *host) {
		toStep(90*time.Second, 0) // where both begin one
		h.changes()
		began := time.Now()
		var turned []time.Duration
		for range 90 {
			if n := len(h.changes()); n > 0 {
				turned = append(turned, time.Since(began))
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if want := []time.Duration{30 * time.Second, 45 * time.Second, 60 * time.Second}; !slices.Equal(turned, want) {
			h.t.Errorf("turned at %v, want %v", turned, want)
		}
		if got := h.changes(); !slices.Equal(got, []string{"Install knockwall"}) {
			h.t.Errorf("where both turn: %q", got)
		}
		a := h.client(alice)
		a.became("the one", present(h.t, slow, time.Now()), "opened ssh 192.0.2.1 4/4")
		a.became("the other", present(h.t, fast, time.Now()), "opened web 192.0.2.1 4/4")
	})
}

// The first wall on trial disappears with a killed daemon until it is confirmed.
func TestAFirstWallOnTrialIsOnTrialAfterItsSequenceChanges(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		if err := h.wall.Try(h.knows(config(d)), time.Hour); err != nil {
			t.Fatal(err)
		}
		h.run()
		onTrial := func() bool {
			h.kernel.mu.Lock()
			defer h.kernel.mu.Unlock()
			return h.tables["knockwall"].trial
		}
		toStep(step, time.Second)
		if !onTrial() {
			t.Error("the table with the next step is for good")
		}
		if err := h.wall.Confirm(); err != nil {
			t.Fatal(err)
		}
		toStep(step, time.Second)
		if onTrial() {
			t.Error("the table is on trial after it was confirmed")
		}
		h.client(alice).became("the present step", present(t, d, time.Now()), "opened ssh 192.0.2.1 4/4")
	})
}

func TestTheSequenceInForceChangesWhateverHappensToItsFile(t *testing.T) {
	former, next := rollingDoor("ssh", 22, step), rollingDoor("web", 443, step)
	reloads := func(c *ruleset.Config) func(*host) error {
		return func(h *host) error { return h.raise(c) }
	}
	tries := func(h *host) error { return h.wall.Try(h.knows(config(next)), 2*step+step/2) }
	for _, test := range []struct {
		what string
		do   func(h *host) error
		door []ruleset.Door // the present step opens, from then on
	}{
		{"a reload", reloads(config(next)), []ruleset.Door{next, next, next}},
		{"a reload to the same", reloads(config(former)), []ruleset.Door{former, former, former}},
		{"a trial that is not confirmed", tries, []ruleset.Door{next, next, former, former}},
		{"a trial that is confirmed", func(h *host) error {
			return errors.Join(tries(h), h.wall.Confirm())
		}, []ruleset.Door{next, next, next, next}},
		{"a trial that is confirmed after a turn", func(h *host) error {
			if err := tries(h); err != nil {
				return err
			}
			toStep(step, 0)
			return h.wall.Confirm()
		}, []ruleset.Door{next, next, next, next}},
	} {
		t.Run(test.what, func(t *testing.T) {
			guarded(t, config(former), func(h *host) {
				toStep(step, time.Second)
				if err := test.do(h); err != nil {
					h.t.Fatal(err)
				}
				for n, d := range test.door {
					toStep(step, time.Second)
					h.client(alice).became(fmt.Sprint("turn ", n), present(h.t, d, time.Now()), "opened "+d.Name+" 192.0.2.1 4/4")
				}
			})
		})
	}
}

func TestTheSequencesOfAWallThatIsDownDoNotChange(t *testing.T) {
	guarded(t, config(rollingDoor("ssh", 22, step)), func(h *host) {
		h.once("Remove", func() { toStep(step, time.Second) })
		if _, err := h.wall.Down(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
		if err := <-h.ended; err != nil {
			h.t.Fatal(err)
		}
		h.ended <- nil
		h.changes()
		h.wall.ApplyAt(time.Now())
		toStep(step, time.Second)
		if got := h.changes(); got != nil || len(h.stands()) != 0 {
			h.t.Errorf("%q, and there stands %q", got, h.stands())
		}
	})
}
