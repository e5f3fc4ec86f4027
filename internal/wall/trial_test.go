package wall_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// try installs a wall on trial.
func (h *host) try(c *ruleset.Config, within time.Duration) error {
	return h.wall.Try(h.knows(c), within)
}

// tried runs f in a bubble with a first wall that is on trial for a minute.
func tried(t *testing.T, ownership bool, f func(h *host)) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(t)
		k.ownership = ownership
		h := k.newHost()
		if err := h.try(config(sshDoor()), time.Minute); err != nil {
			t.Fatal(err)
		}
		h.run()
		f(h)
	})
}

func (h *host) onTrial() bool {
	h.kernel.mu.Lock()
	defer h.kernel.mu.Unlock()
	for _, t := range h.tables {
		return t.trial
	}
	return false
}

func TestAFirstWallThatIsNotConfirmedIsTakenDown(t *testing.T) {
	tried(t, true, func(h *host) {
		h.trail.expect(h.t, nil, "started: on trial for 1m; doors: 1, windows open: 0")
		h.expect("the wall stands", h.client(bob).dial(22), waiting)
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if got := h.status().Trial; got == nil || !h.onTrial() || len(h.stands()) != 1 {
			h.t.Errorf("trial: %v, %t, stands: %v", got, h.onTrial(), h.stands())
		}
		time.Sleep(time.Nanosecond)
		if err := <-h.ended; !errors.Is(err, wall.ErrNotConfirmed) {
			h.t.Errorf("Run: %v", err)
		}
		h.stop()
		h.expectBound(nil)
		if got := h.stands(); len(got) != 0 {
			h.t.Errorf("stands: %v", got)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Stopped}, "stopped: the wall is taken down")
		if err := h.wall.Confirm(); !errors.Is(err, wall.ErrStopping) {
			h.t.Errorf("Confirm, too late: %v", err)
		}
	})
}

func TestAWallThatIsConfirmedStays(t *testing.T) {
	for _, ownership := range []bool{false, true} {
		tried(t, ownership, func(h *host) {
			a := h.client(alice)
			a.knock(7000, 8000, 9000)
			time.Sleep(20 * time.Second)
			if got := h.status().Trial; got == nil || got.LeftSeconds != 40 {
				h.t.Errorf("trial: %+v", got)
			}
			h.failing("Install", errInjected)
			if ownership {
				if err := h.wall.Confirm(); !errors.Is(err, errInjected) || h.status().Trial == nil {
					h.t.Errorf("Confirm: %v", err)
				}
			}
			h.failing("nothing", nil)
			h.trail.take()
			if err := h.wall.Confirm(); err != nil {
				h.t.Fatal(err)
			}
			h.trail.expect(h.t, nil, "reloaded: the rules on trial are confirmed")
			if h.onTrial() || h.status().Trial != nil {
				h.t.Error("it is on trial yet")
			}
			if err := h.wall.Confirm(); !errors.Is(err, wall.ErrNoTrial) {
				h.t.Errorf("Confirm, once more: %v", err)
			}
			if got := h.left("ssh", alice); got != 10*time.Second {
				h.t.Errorf("alice's window is open for %s", got)
			}
			h.expect("alice's window is open", a.dial(22), accepted)
			time.Sleep(time.Hour)
			h.expect("the wall stands", h.client(bob).dial(22), waiting)
			h.stop()
			if err := <-h.ended; err != nil || len(h.stands()) != 1 || h.onTrial() {
				h.t.Errorf("Run: %v, stands: %v, on trial: %t", err, h.stands(), h.onTrial())
			}
		})
	}
}

func TestNewRulesThatAreNotConfirmedGiveWayToTheFormerOnes(t *testing.T) {
	for name, c := range map[string]func(...ruleset.Door) *ruleset.Config{
		"the same numbers": config,
		"other numbers":    func(d ...ruleset.Door) *ruleset.Config { return moved(config(d...)) },
		"another table":    func(d ...ruleset.Door) *ruleset.Config { return renamed(config(d...)) },
	} {
		t.Run(name, func(t *testing.T) {
			former := config(sshDoor(), door("web", 443, 7001))
			former.Wall.OnStop = ruleset.Remove
			guarded(t, former, func(h *host) {
				a, b := h.client(alice), h.client(bob)
				a.knock(7000, 8000, 9000)
				a.knock(7001)
				synctest.Wait()
				time.Sleep(window - 20*time.Second)
				b.knock(7000, 8000)
				synctest.Wait()
				if err := h.try(c(sshDoor(), door("mail", 25, 7002)), 4*time.Second); err != nil {
					h.t.Fatal(err)
				}
				h.trail.expect(h.t, []audit.Kind{audit.Reloaded}, "reloaded: on trial for 4s; doors: 2, windows open: 1")
				if h.onTrial() {
					h.t.Error("a wall that takes another's place goes with the daemon")
				}
				a.knock(7002)
				h.expect("the new rules are in force", a.dial(25), accepted)
				time.Sleep(4*time.Second - 1)
				h.expect("they are yet", h.client(carol).dial(25), waiting)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				h.trail.expect(h.t, []audit.Kind{audit.Reloaded},
					"reloaded: the new rules were not confirmed, and the former ones are back; doors: 2, windows open: 1")
				h.expect("mail is not guarded any more", h.client(carol).dial(25), accepted)
				h.expect("web is", h.client(carol).dial(443), waiting)
				h.expect("and has lost its windows", a.dial(443), waiting)
				if got := h.left("ssh", alice); got != 16*time.Second {
					h.t.Errorf("alice's window is open for %s", got)
				}
				b.knock(9000)
				h.expect("bob's attempt has gone on", b.dial(22), accepted)
				if got := h.stands(); !slices.Equal(got, []string{"knockwall"}) {
					h.t.Errorf("stands: %v", got)
				}
				time.Sleep(time.Second)
				h.expectBound(turn0)
				if err := h.wall.Confirm(); !errors.Is(err, wall.ErrNoTrial) {
					h.t.Errorf("Confirm, too late: %v", err)
				}
				h.reload(config(sshDoor()))
			})
		})
	}
}

func TestATrialIsEndedByHand(t *testing.T) {
	guarded(t, config(sshDoor(), door("web", 443, 7001)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		if _, err := h.wall.Revert(context.Background()); !errors.Is(err, wall.ErrNoTrial) {
			h.t.Errorf("Revert without a trial: %v", err)
		}
		if err := h.try(config(sshDoor()), time.Minute); err != nil {
			h.t.Fatal(err)
		}
		h.expect("the new rules are in force", h.client(bob).dial(443), accepted)
		h.failing("Install", errInjected)
		if down, err := h.wall.Revert(context.Background()); down || !errors.Is(err, errInjected) || h.status().Trial == nil {
			h.t.Errorf("Revert that fails: down %t, %v", down, err)
		}
		h.failing("nothing", nil)
		h.trail.take()
		if down, err := h.wall.Revert(context.Background()); down || err != nil {
			h.t.Fatalf("Revert: down %t, %v", down, err)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Reloaded}, "reloaded: the trial was ended, and the former rules are back; doors: 2, windows open: 1")
		h.expect("web is guarded again", h.client(bob).dial(443), waiting)
		h.expect("alice's window is open", a.dial(22), accepted)
		if h.status().Trial != nil {
			h.t.Error("it is on trial yet")
		}
		if err := h.wall.Confirm(); !errors.Is(err, wall.ErrNoTrial) {
			h.t.Errorf("Confirm: %v", err)
		}
		time.Sleep(time.Hour)
		h.expect("web stays guarded", h.client(carol).dial(443), waiting)
		h.reload(config(sshDoor()))
	})
}

func TestAFirstTrialThatIsEndedByHandTakesTheWallDown(t *testing.T) {
	tried(t, true, func(h *host) {
		if down, err := h.wall.Revert(context.Background()); !down || err != nil {
			h.t.Errorf("Revert: down %t, %v", down, err)
		}
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		h.stop()
		if got := h.stands(); len(got) != 0 {
			h.t.Errorf("stands: %v", got)
		}
		if _, err := h.wall.Revert(context.Background()); !errors.Is(err, wall.ErrStopping) {
			h.t.Errorf("Revert, too late: %v", err)
		}
	})
}

func TestFormerRulesThatDoNotComeBackAreTriedAgain(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		if err := h.try(config(limited(sshDoor(), 1)), time.Second); err != nil {
			h.t.Fatal(err)
		}
		h.trail.take()
		h.failing("SeedConntrack", errInjected)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		h.trail.expect(h.t, nil, "reloaded: the former rules cannot be put back yet: "+errInjected.Error())
		if err := h.wall.Confirm(); !errors.Is(err, wall.ErrNoTrial) {
			h.t.Errorf("Confirm, too late: %v", err)
		}
		if h.status().Doors[0].MaxConnections != 1 {
			h.t.Error("the former rules are back, though that has failed")
		}
		h.failing("nothing", nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		h.trail.expect(h.t, nil, "reloaded: the new rules were not confirmed, and the former ones are back; doors: 1, windows open: 0")
		if s := h.status(); s.Doors[0].MaxConnections != 0 || s.Trial != nil {
			h.t.Errorf("status: %+v", s)
		}
	})
}

func TestFormerRulesWhoseNumbersAreTakenComeBackWithOthers(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		if err := h.try(moved(config(limited(sshDoor(), 1))), time.Second); err != nil {
			h.t.Fatal(err)
		}
		h.configs = append(h.configs, moved(config(sshDoor())))           // by which the kernel understands it
		h.answering("LogInUse 7100", func() error { return errInjected }) // or so it seems
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := h.status(); s.Doors[0].MaxConnections != 0 || s.Trial != nil {
			h.t.Errorf("status: %+v", s)
		}
		if h.named().LogGroup != 7200 {
			h.t.Errorf("the table names %+v", h.named())
		}
		h.failing("nothing", nil)
	})
}

func TestDuringATrialNoOtherRulesAreTaken(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first: %t", first), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				if !first {
					h.reload(config(sshDoor()))
				}
				if err := h.wall.Confirm(); !errors.Is(err, wall.ErrNoTrial) {
					t.Errorf("Confirm: %v", err)
				}
				if err := h.try(config(sshDoor()), time.Minute); err != nil {
					t.Fatal(err)
				}
				h.run()
				h.changes()
				if err := h.raise(config(sshDoor())); !errors.Is(err, wall.ErrOnTrial) {
					t.Errorf("Apply: %v", err)
				}
				if err := h.try(config(sshDoor()), time.Hour); !errors.Is(err, wall.ErrOnTrial) {
					t.Errorf("Try: %v", err)
				}
				if got := h.changes(); got != nil {
					t.Errorf("changed: %v", got)
				}
				if err := h.wall.Confirm(); err != nil {
					t.Errorf("Confirm: %v", err)
				}
				h.reload(config(sshDoor()))
			})
		})
	}
}

func TestATrialThatFailsIsNone(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.failing("Install", errInjected)
		if err := h.try(config(limited(sshDoor(), 1)), time.Second); !errors.Is(err, errInjected) {
			h.t.Errorf("Try: %v", err)
		}
		h.failing("nothing", nil)
		if err := h.wall.Confirm(); !errors.Is(err, wall.ErrNoTrial) {
			h.t.Errorf("Confirm: %v", err)
		}
		h.reload(config(limited(sshDoor(), 1)))
		time.Sleep(time.Minute)
		if got := h.status().Doors[0].MaxConnections; got != 1 {
			h.t.Errorf("the former rules are back")
		}
	})
}

func TestADaemonThatStopsDuringATrialLeavesTheFormerState(t *testing.T) {
	for name, stop := range map[string]func(h *host){
		"it is told to": func(h *host) { h.stop() },
		"the log fails": func(h *host) { h.log().handler.Failed(errInjected) },
	} {
		t.Run("no wall, "+name, func(t *testing.T) {
			tried(t, true, func(h *host) {
				time.Sleep(time.Second)
				stop(h)
				err := <-h.ended
				h.stop()
				if name == "it is told to" && err != nil || errors.Is(err, wall.ErrNotConfirmed) {
					h.t.Errorf("Run: %v", err)
				}
				if got := h.stands(); len(got) != 0 {
					h.t.Errorf("stands: %v", got)
				}
				h.expectBound(nil)
			})
		})
		t.Run("former rules, "+name, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				a := h.client(alice)
				a.knock(7000, 8000, 9000)
				synctest.Wait()
				if err := h.try(moved(config(sshDoor(), door("mail", 25, 7002))), time.Minute); err != nil {
					h.t.Fatal(err)
				}
				stop(h)
				<-h.ended
				h.stop()
				h.expectBound(nil)
				if n := h.named(); n.Admitted >= 7200 {
					h.t.Errorf("the table names %+v", n)
				}
				h.expect("mail is not guarded any more", h.client(bob).dial(25), accepted)
				h.expect("ssh is", h.client(bob).dial(22), dropped)
				h.expect("alice's window is open", a.dial(22), accepted)
			})
		})
	}
}

func TestDownTakesTheWallDownWhateverTheRulesSay(t *testing.T) {
	for name, prepare := range map[string]func(h *host) error{
		"on_stop is keep":         func(*host) error { return nil },
		"new rules are on trial":  func(h *host) error { return h.try(config(door("web", 443, 7001)), time.Minute) },
		"the table is renamed":    func(h *host) error { return h.raise(renamed(config(sshDoor()))) },
		"the numbers are changed": func(h *host) error { return h.raise(moved(config(sshDoor()))) },
		"somebody has deleted it": func(h *host) error { h.flush("knockwall"); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				if err := prepare(h); err != nil {
					h.t.Fatal(err)
				}
				h.trail.take()
				down := make(chan error)
				for range 3 { // asked by several
					go func() {
						_, err := h.wall.Down(context.Background())
						down <- err
					}()
				}
				if err := <-h.ended; err != nil {
					h.t.Errorf("Run: %v", err)
				}
				for range 3 {
					if err := <-down; err != nil {
						h.t.Errorf("Down: %v", err)
					}
				}
				if _, err := h.wall.Down(context.Background()); err != nil {
					h.t.Errorf("Down, once more: %v", err)
				}
				h.stop()
				h.expectBound(nil)
				if got := h.stands(); len(got) != 0 {
					h.t.Errorf("stands: %v", got)
				}
				h.trail.expect(h.t, nil, "stopped: the wall is taken down")
				h.expect("there is no wall", h.client(bob).dial(22), accepted)
			})
		})
	}
}

func TestDownDuringAFirstTrialTakesTheWallDown(t *testing.T) {
	tried(t, false, func(h *host) {
		if _, err := h.wall.Down(context.Background()); err != nil {
			h.t.Errorf("Down: %v", err)
		}
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		h.stop()
		if got := h.stands(); len(got) != 0 {
			h.t.Errorf("stands: %v", got)
		}
	})
}

func TestDownWaitsNoLongerThanItIsToldTo(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.log().hold()
		h.client(bob).knock(7000) // which is waited for
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		if _, err := h.wall.Down(ctx); !errors.Is(err, context.DeadlineExceeded) {
			h.t.Errorf("Down: %v", err)
		}
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		h.stop()
		if got := h.stands(); len(got) != 0 {
			h.t.Errorf("stands: %v", got)
		}
	})
}

func TestDownSaysThatTheWallCannotBeRemoved(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.failing("Remove", errInjected)
		if _, err := h.wall.Down(context.Background()); !errors.Is(err, errInjected) {
			h.t.Errorf("Down: %v", err)
		}
		if err := <-h.ended; !errors.Is(err, errInjected) {
			h.t.Errorf("Run: %v", err)
		}
		h.stop()
	})
}
