package wall_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// Windows share one transaction because the one before took a while.

// dave is one more client.
var dave = netip.MustParseAddr("192.0.2.4")

// four returns the four clients.
func (h *host) four() (a, b, c, d *client) {
	return h.client(alice), h.client(bob), h.client(carol), h.client(dave)
}

// knockAll makes all of them knock the whole sequence, in this order.
func knockAll(clients ...*client) {
	for _, c := range clients {
		c.knock(7000, 8000, 9000)
	}
}

// hanging makes the opening of a window hang in the kernel while other knocks wait, and
// returns what lets it continue.
func (h *host) hanging(c *client) (goOn func()) {
	h.t.Helper()
	open := make(chan struct{})
	h.once("OpenWindows", func() { <-open })
	h.log().hold()
	knockAll(c)
	h.log().resume() // which is something to be heard, too
	synctest.Wait()
	return func() { close(open) }
}

// changed checks which calls have changed tables since the last time.
func (h *host) changed(what string, want ...string) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.changes()); diff != "" {
		h.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// until waits for a condition where goroutines wait for a lock. A bubble does not count
// these as blocked: its clock does not advance, and synctest.Wait does not return.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 20_000_000 {
		if holds() {
			return
		}
		runtime.Gosched()
	}
	t.Fatalf("it is still not so: %s", what)
}

func TestWindowsAreOpenedTogetherThatWaitForAnother(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b, c, _ := h.four()
		goOn := h.hanging(a)
		hers, theirs := b.dial(22), c.dial(22)
		knockAll(b, c)
		h.expect("bob's window is not open yet", hers, waiting)
		goOn()
		h.expect("bob's window is open", hers, accepted)
		h.expect("carol's window is open", theirs, accepted)
		h.expect("alice's window is open", a.dial(22), accepted)
		h.changed("transactions", "OpenWindows ssh 192.0.2.1", "OpenWindows ssh 192.0.2.2, ssh 192.0.2.3")
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed, audit.Accepted},
			"opened ssh 192.0.2.1 3/3", "opened ssh 192.0.2.2 3/3", "opened ssh 192.0.2.3 3/3",
			"accepted ssh 192.0.2.2", "accepted ssh 192.0.2.3", "accepted ssh 192.0.2.1")
		if got := h.status().Doors[0].Counters; got.Opened != 3 || got.Released != 2 {
			h.t.Errorf("counters: %+v", got)
		}
	})
}

func TestWindowsOfSeveralDoorsAreOpenedTogether(t *testing.T) {
	guarded(t, config(sshDoor(), door("web", 443, 7001)), func(h *host) {
		a, b, _, _ := h.four()
		goOn := h.hanging(a)
		j := a.dial(443)
		knockAll(b)
		a.knock(7001)
		b.knock(7001)
		synctest.Wait()
		goOn()
		h.expect("alice comes to the other door", j, accepted)
		h.changed("transactions", "OpenWindows ssh 192.0.2.1", "OpenWindows ssh 192.0.2.2, web 192.0.2.1, web 192.0.2.2")
	})
}

// A transaction has no window twice.
func TestTheSameWindowIsOpenedAndThenRefreshed(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b, c, d := h.four()
		goOn := h.hanging(a)
		knockAll(b, c, b, d, b, a)
		synctest.Wait()
		goOn()
		synctest.Wait()
		h.changed("transactions",
			"OpenWindows ssh 192.0.2.1",
			"OpenWindows ssh 192.0.2.2, ssh 192.0.2.3",
			"OpenWindows ssh 192.0.2.2, ssh 192.0.2.4",
			"OpenWindows ssh 192.0.2.2, ssh 192.0.2.1")
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed},
			"opened ssh 192.0.2.1 3/3",
			"opened ssh 192.0.2.2 3/3", "opened ssh 192.0.2.3 3/3",
			"refreshed ssh 192.0.2.2 3/3", "opened ssh 192.0.2.4 3/3",
			"refreshed ssh 192.0.2.2 3/3", "refreshed ssh 192.0.2.1 3/3")
		if got := h.status().Doors[0].Counters; got.Opened != 4 || got.Refreshed != 3 {
			h.t.Errorf("counters: %+v", got)
		}
	})
}

// failingFor makes transactions fail that open a window for a source.
func (h *host) failingFor(source netip.Addr) {
	h.kernel.mu.Lock()
	defer h.kernel.mu.Unlock()
	h.intercept = func(call string) error {
		if strings.HasPrefix(call, "OpenWindows") && strings.Contains(call+",", source.String()+",") {
			return errInjected
		}
		return nil
	}
}

func TestAnErrorAtOneWindowAffectsNoOther(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 9)), func(h *host) {
		a, b, c, d := h.four()
		goOn := h.hanging(a)
		h.failingFor(carol)
		before, hers, after := b.dial(22), c.dial(22), d.dial(22)
		knockAll(b, c, d)
		synctest.Wait()
		goOn()
		h.expect("bob's window is open", before, accepted)
		h.expect("dave's window is open", after, accepted)
		h.expect("carol's is not", hers, waiting)
		h.changed("transactions", "OpenWindows ssh 192.0.2.1", "OpenWindows ssh 192.0.2.2, ssh 192.0.2.3, ssh 192.0.2.4",
			"OpenWindows ssh 192.0.2.2", "OpenWindows ssh 192.0.2.3", "OpenWindows ssh 192.0.2.4")
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed, audit.Refused},
			"opened ssh 192.0.2.1 3/3", "opened ssh 192.0.2.2 3/3",
			"refused ssh 192.0.2.3 3/3: the kernel says no", "opened ssh 192.0.2.4 3/3")
		if s := h.status(); len(s.Windows) != 3 || s.Doors[0].Counters.Opened != 3 {
			h.t.Errorf("status: %+v", s)
		}
		time.Sleep(hold + wall.SweepInterval)
		h.expect("carol has no window", hers, refused)
	})
}

func TestAWindowThatIsNotRefreshedWithOthersStaysAsItIs(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 3)), func(h *host) {
		a, b, c, _ := h.four()
		knockAll(b)
		h.expect("bob's window is open", b.dial(22), accepted)
		time.Sleep(window / 2)
		goOn := h.hanging(a)
		h.failingFor(bob)
		knockAll(b, c)
		synctest.Wait()
		goOn()
		synctest.Wait()
		want := []wall.WindowStatus{
			{Door: "ssh", Source: single(alice), LeftSeconds: 30},
			{Door: "ssh", Source: single(bob), LeftSeconds: 15, Connections: 1},
			{Door: "ssh", Source: single(carol), LeftSeconds: 30},
		}
		if diff := cmp.Diff(want, h.status().Windows, compareSources); diff != "" {
			h.t.Errorf("windows (-want +got):\n%s", diff)
		}
		h.expect("bob's second", b.dial(22), accepted)
		h.expect("bob's third", b.dial(22), accepted)
		h.expect("no fourth", b.dial(22), waiting)
	})
}

// Connections that are admitted while a refresh hangs count for the former window.
func TestAConnectionDuringAFailedRefreshIsCounted(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 3)), func(h *host) {
		_, b, _, _ := h.four()
		knockAll(b)
		h.expect("bob's first", b.dial(22), accepted)
		h.answering("OpenWindows", func() error {
			time.Sleep(time.Second)
			return errInjected
		})
		knockAll(b)
		synctest.Wait()
		h.expect("bob's second, meanwhile", b.dial(22), accepted)
		time.Sleep(time.Second)
		synctest.Wait()
		if w := h.status().Windows; len(w) != 1 || w[0].Connections != 2 {
			h.t.Errorf("windows: %+v", w)
		}
	})
}

func TestKnocksAreHeardWhileAWindowIsBeingOpened(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b, _, _ := h.four()
		goOn := h.hanging(a)
		h.trail.take()
		b.knock(7000, 8000)
		synctest.Wait()
		h.trail.expect(h.t, nil, "knock ssh 192.0.2.2 1/3", "knock ssh 192.0.2.2 2/3")
		if n := h.status().Doors[0].Counters.Knocks; n != 5 || !h.log().Drained() {
			h.t.Errorf("%d knocks are heard, want 5", n)
		}
		goOn()
	})
}

// Waiting windows do not delay refusals of other packets beyond the maximum delay.
func TestStrangersAreRefusedAfterAllIfAWindowIsNeverOpened(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b, c, _ := h.four()
		goOn := h.hanging(a)
		hers, theirs := b.dial(22), c.dial(22)
		knockAll(b)
		time.Sleep(hold + wall.MaxRefusalDelay - time.Millisecond)
		h.expect("bob's window may be opened yet", hers, waiting)
		h.expect("carol's might be", theirs, waiting)
		time.Sleep(2 * time.Millisecond)
		h.expect("patience is over for bob", hers, refused)
		h.expect("patience is over for carol", theirs, refused)
		goOn()
		h.expect("and then bob may come in", b.dial(22), accepted)
	})
}

func TestAKnockToCloseIsValidBeforeTheWindowIsOpen(t *testing.T) {
	guarded(t, config(reversible(7000, 8000, 9000)), func(h *host) {
		a, b, _, _ := h.four()
		goOn := h.hanging(a)
		b.knock(7000, 8000, 9000)
		b.knock(9000, 8000, 7000)
		// It waits until bob's window is open, and then closes it.
		until(h.t, "bob has knocked to close", func() bool { return h.status().Doors[0].Counters.Knocks == 9 })
		goOn()
		synctest.Wait()
		h.changed("transactions", "OpenWindows ssh 192.0.2.1", "OpenWindows ssh 192.0.2.2", "CloseWindow ssh 192.0.2.2")
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Closed},
			"opened ssh 192.0.2.1 3/3", "opened ssh 192.0.2.2 3/3", "closed ssh 192.0.2.2: it has knocked to close it")
		h.expect("bob has closed it", b.dial(22), waiting)
	})
}

// heard waits until all sent knocks are handled.
func (h *host) heard() {
	h.t.Helper()
	until(h.t, "the knocks are heard", func() bool { return h.log().Drained() && h.log().Progress().Idle })
}

// overtaking makes a change of the wall wait for another one, while clients knock whose
// windows wait behind it.
func (h *host) overtaking(change, knock func()) {
	waits, changed := make(chan struct{}), make(chan struct{})
	h.once("CloseWindow", func() {
		go func() {
			defer close(changed)
			close(waits)
			change()
		}()
		<-waits
		for range 1000 {
			runtime.Gosched() // until he waits, most likely
		}
		knock()
		h.heard()
	})
	_, _ = h.wall.Close("ssh", dave.String(), false)
	<-changed
	synctest.Wait()
}

func TestAClosingByHandOpensFirstWhatWasKnockedForBefore(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		_, b, _, _ := h.four()
		h.overtaking(func() {
			if _, err := h.wall.Close("ssh", bob.String(), false); err != nil {
				h.t.Errorf("bob's window could not be closed: %v", err)
			}
		}, func() { knockAll(b) })
		h.changed("transactions", "CloseWindow ssh 192.0.2.4", "OpenWindows ssh 192.0.2.2", "CloseWindow ssh 192.0.2.2")
		h.expect("it was closed by hand", b.dial(22), waiting)
	})
}

// A window opened by hand has the requested length, whatever was knocked before.
func TestAnOpeningByHandOpensFirstWhatWasKnockedForBefore(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		_, b, _, _ := h.four()
		h.overtaking(func() {
			if _, err := h.wall.Open("ssh", bob.String(), time.Hour); err != nil {
				h.t.Error(err)
			}
		}, func() { knockAll(b) })
		h.changed("transactions", "CloseWindow ssh 192.0.2.4", "OpenWindows ssh 192.0.2.2", "OpenWindows ssh 192.0.2.2")
		if got := h.left("ssh", bob); got != time.Hour {
			h.t.Errorf("the window is open for %s", got)
		}
	})
}

// Knocks before a reload open their windows after it, at the doors that are left.
func TestWindowsThatAreToBeOpenedAreOpenedAfterAReload(t *testing.T) {
	web := door("web", 443, 7001)
	wider := sshDoor()
	wider.SourcePrefix.IPv4 = 24
	for _, tt := range []struct {
		name  string
		then  *ruleset.Config
		want  []string
		tells []string
	}{
		{"the doors are the same", config(sshDoor(), web),
			[]string{"OpenWindows ssh 192.0.2.2, web 192.0.2.3"}, []string{"opened ssh 192.0.2.2 3/3", "opened web 192.0.2.3 1/1"}},
		{"other numbers", moved(config(web, sshDoor())),
			[]string{"OpenWindows ssh 192.0.2.2, web 192.0.2.3"}, []string{"opened ssh 192.0.2.2 3/3", "opened web 192.0.2.3 1/1"}},
		{"one door is gone", config(web),
			[]string{"OpenWindows web 192.0.2.3"}, []string{"opened web 192.0.2.3 1/1"}},
		{"one door tells sources apart otherwise", config(wider, web),
			[]string{"OpenWindows web 192.0.2.3"}, []string{"opened web 192.0.2.3 1/1"}},
		{"both are gone", config(door("mail", 25, 7002)), nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			guarded(t, config(sshDoor(), web), func(h *host) {
				_, b, c, d := h.four()
				h.once("Standing", func() { // before the new configuration judges
					knockAll(b)
					c.knock(7001)
					h.heard()
				})
				h.reload(tt.then)
				synctest.Wait()
				h.changed("transactions", append([]string{"Install knockwall"}, tt.want...)...)
				h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refreshed, audit.Refused, audit.Closed}, tt.tells...)
				if got, want := len(h.status().Windows), len(tt.tells); got != want {
					h.t.Errorf("%d windows are open, want %d", got, want)
				}
				theirs := d.dial(25)
				time.Sleep(2 * hold) // nobody waits for those that are not opened
				if synctest.Wait(); h.fate(theirs) == waiting {
					h.t.Error("strangers still wait")
				}
			})
		})
	}
}

// Windows are opened before the next table is installed, because that takes a while.
// A reload gives the kernel no spent windows to be closed. So the window is closed afterwards,
// though the door is gone: if the door came back, the window would admit without a daemon.
func TestASpentWindowIsClosedThoughItsDoorIsGone(t *testing.T) {
	web := door("web", 443, 7001)
	guarded(t, config(limited(sshDoor(), 1), web), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.heard()
		h.changes()
		h.once("Standing", func() {
			last := a.dial(22)
			until(h.t, "the last connection is admitted", func() bool { return h.fate(last) == accepted })
		})
		h.reload(config(web))
		synctest.Wait()
		h.changed("transactions", "Install knockwall", "CloseWindow ssh 192.0.2.1")
	})
}

func TestAChangeOfSequenceOpensFirstWhatWasKnockedForBefore(t *testing.T) {
	guarded(t, config(sshDoor(), rollingDoor("web", 443, time.Hour)), func(h *host) {
		_, b, _, _ := h.four()
		h.overtaking(func() { h.wall.ApplyAt(time.Now()) }, func() { knockAll(b) })
		h.changed("transactions", "CloseWindow ssh 192.0.2.4", "OpenWindows ssh 192.0.2.2", "Install knockwall")
		h.expect("bob's window is open", b.dial(22), accepted)
	})
}

// crowd returns n sources.
func crowd(n int) []netip.Addr {
	all := sources(n + 1)
	return all[1:]
}

func TestMoreMayWaitForTheirWindowsThanThereIsRoomFor(t *testing.T) {
	const all = wall.MaxOpenings + wall.MaxTogether + 1
	c := config(door("web", 443, 7001))
	c.Wall.MaxSources = 2 * all
	guarded(t, c, func(h *host) {
		open := make(chan struct{})
		h.once("OpenWindows", func() { <-open })
		h.log().hold()
		for _, source := range crowd(all) {
			h.client(source).knock(7001)
		}
		h.log().resume()
		// The next knock waits until the queue has room, and all later ones wait, too.
		until(h.t, "as many are heard as there is room for", func() bool {
			return h.status().Doors[0].Counters.Knocks == wall.MaxOpenings+1
		})
		close(open)
		synctest.Wait()
		if got := h.status(); len(got.Windows) != all || got.Doors[0].Counters.Opened != all {
			h.t.Errorf("%d windows, %d are counted, want %d", len(got.Windows), got.Doors[0].Counters.Opened, all)
		}
		total := 0
		for _, call := range h.changes() {
			n := 1 + strings.Count(call, ",")
			if total += n; n > wall.MaxTogether {
				h.t.Errorf("%d windows in one transaction", n)
			}
		}
		if total != all {
			h.t.Errorf("%d windows were opened, want %d", total, all)
		}
		for _, source := range crowd(all) {
			if h.left("web", source) != window {
				h.t.Fatalf("the window of %s is not open", source)
			}
		}
	})
}

// If one of very many windows fails, each is tried separately, and all others are opened.
func TestOfVeryManyOneFails(t *testing.T) {
	const all = wall.MaxTogether
	c := config(door("web", 443, 7001))
	c.Wall.MaxSources = 2 * all
	guarded(t, c, func(h *host) {
		a, _, _, _ := h.four()
		open := make(chan struct{})
		h.once("OpenWindows", func() { <-open })
		who := crowd(all)
		h.log().hold()
		a.knock(7001)
		h.log().resume()
		synctest.Wait()
		for _, source := range who {
			h.client(source).knock(7001)
		}
		synctest.Wait()
		h.failingFor(who[all/2])
		close(open)
		synctest.Wait()
		if got := h.status(); len(got.Windows) != all {
			h.t.Errorf("%d windows are open, want %d", len(got.Windows), all)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Refused}, fmt.Sprintf("refused web %s 1/1: the kernel says no", who[all/2]))
	})
}

// Another process has deleted the table. It is put back with all windows of the
// transaction.
func TestATableIsPutBackWithAllWindowsThatAreOpenedTogether(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b, c, d := h.four()
		goOn := h.hanging(a)
		knockAll(b, c)
		synctest.Wait()
		h.flush("knockwall") // before the change is reported
		goOn()
		synctest.Wait()
		h.changed("transactions", "OpenWindows ssh 192.0.2.1", "Restore knockwall", "OpenWindows ssh 192.0.2.2, ssh 192.0.2.3")
		for _, source := range []netip.Addr{alice, bob, carol} {
			h.expect("has knocked", h.client(source).dial(22), accepted)
		}
		h.expect("has not", d.dial(22), waiting)
	})
}

func TestAWallThatOpensWindowsSlowlyIsAlive(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b, c, _ := h.four()
		h.intercepted("OpenWindows", func() { time.Sleep(watchdog - 1) }) // each time
		knockAll(a)
		for range 20 {
			knockAll(b, c) // so that there are always some that wait
			h.alive("windows are being opened")
			time.Sleep(watchdog)
		}
		h.failing("nothing", nil)
		time.Sleep(watchdog) // before the wall ends, which has to wait for it
	})
}

// Sources that have knocked before the daemon stops have their windows when it has
// stopped.
func TestWindowsThatAreToBeOpenedWhenTheDaemonEndsAreOpened(t *testing.T) {
	for _, stop := range []ruleset.OnStop{ruleset.Keep, ruleset.Remove} {
		t.Run(string(stop), func(t *testing.T) {
			c := config(door("web", 443, 7001))
			c.Wall.OnStop = stop
			guarded(t, c, func(h *host) {
				goOn := make(chan struct{})
				h.trail.watch(func(e audit.Event) {
					if e.Kind == audit.Knock {
						<-goOn
					}
				})
				h.log().hold() // so that others wait, and its event is recorded before all else
				h.client(alice).knock(7001)
				h.log().resume()
				synctest.Wait()
				h.stop()
				time.Sleep(time.Minute) // longer than it waits for the log to be read
				close(goOn)
				if err := <-h.ended; err != nil {
					h.t.Errorf("Run: %v", err)
				}
				if open := h.left("web", alice) > 0; open != (stop == ruleset.Keep) {
					h.t.Errorf("the window is open: %t", open)
				}
				got := h.trail.take(audit.Opened, audit.Refused, audit.Stopped)
				if len(got) != 2 || got[0] != "opened web 192.0.2.1 1/1" || !strings.HasPrefix(got[1], "stopped: ") {
					h.t.Errorf("it is told: %q", got)
				}
			})
		})
	}
}

// Other changes get the lock between two transactions.
func TestAStreamOfOpeningsLeavesTheLockToOthers(t *testing.T) {
	guarded(t, config(door("web", 443, 7001)), func(h *host) {
		const most = 100000 // a busy machine runs who wants to close late
		a, b, _, _ := h.four()
		transactions, closedAt := 0, -1
		closed := make(chan struct{})
		h.kernel.mu.Lock()
		h.intercept = func(call string) error {
			if strings.HasPrefix(call, "CloseWindow") {
				closedAt = transactions
			}
			if !strings.HasPrefix(call, "OpenWindows") {
				return nil
			}
			if transactions++; transactions == 2 {
				go func() {
					defer close(closed)
					_, _ = h.wall.Close("web", bob.String(), false)
				}()
			}
			if transactions < most && closedAt < 0 {
				for range 100 {
					runtime.Gosched() // so that who wants to close waits for it
				}
				a.knock(7001) // once more, so that there is always somebody
				h.heard()
			}
			return nil
		}
		h.kernel.mu.Unlock()
		h.log().hold()
		b.knock(7001)
		a.knock(7001)
		h.log().resume()
		<-closed
		synctest.Wait()
		if closedAt < 0 || closedAt >= most {
			t.Errorf("a window is closed by hand after %d of at most %d transactions", closedAt, most)
		}
	})
}

// A door whose windows cannot be opened does not block windows of another.
func TestAFailingDoorAffectsNoOther(t *testing.T) {
	c := config(door("web", 443, 7001), sshDoor())
	c.Wall.MaxSources = 20000
	guarded(t, c, func(h *host) {
		a, b, _, _ := h.four()
		open := make(chan struct{})
		h.once("OpenWindows", func() { <-open })
		h.log().hold()
		b.knock(7001)
		h.log().resume()
		synctest.Wait()
		for _, source := range crowd(400) {
			h.client(source).knock(7001)
		}
		knockAll(a)
		synctest.Wait()
		transactions := 0
		h.kernel.mu.Lock()
		h.intercept = func(call string) error {
			if strings.HasPrefix(call, "OpenWindows") {
				transactions++
				if strings.Contains(call, "web ") {
					time.Sleep(10 * time.Millisecond) // as the kernel does, to undo it
					return unix.ENOMEM
				}
			}
			return nil
		}
		h.kernel.mu.Unlock()
		j := a.dial(22)
		close(open)
		time.Sleep(hold / 2)
		h.expect("alice comes to the other door", j, accepted)
		if transactions > 10 {
			t.Errorf("400 windows that cannot be opened took %d transactions", transactions)
		}
		h.failing("nothing", nil)
		late := h.client(crowd(401)[400])
		late.knock(7001)
		h.expect("windows can be opened again", late.dial(443), accepted)
	})
}

// The kernel may have a window for longer than was recorded at first. It is not taken for
// a new one then: kernels before Linux 6.12 would not extend it.
func TestAWindowThatWasOpenedSlowlyIsNotTakenForNew(t *testing.T) {
	for name, slow := range map[string]func(h *host){
		"opened": func(h *host) {
			h.once("OpenWindows", func() { time.Sleep(5 * time.Second) })
			knockAll(h.client(alice))
		},
		"put back": func(h *host) {
			knockAll(h.client(alice))
			synctest.Wait()
			goOn := h.hanging(h.client(carol))
			knockAll(h.client(bob))
			synctest.Wait()
			h.flush("knockwall")
			h.once("Restore", func() { time.Sleep(5 * time.Second) })
			goOn() // and bob's finds it gone
		},
		"opened, and not told of it": func(h *host) {
			h.answering("OpenWindows", func() error {
				h.kernel.mu.Lock()
				defer h.kernel.mu.Unlock()
				h.kernel.tables["knockwall"].windows[opening{"ssh", alice}] = time.Now().Add(window + 5*time.Second)
				return unix.ENOBUFS
			})
			knockAll(h.client(alice))
			synctest.Wait()
			h.failing("nothing", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				slow(h)
				for range 12 { // past the end of the recorded window and of the kernel's
					time.Sleep(window / 8)
					synctest.Wait()
				}
				for left := h.left("ssh", alice); left > 0; left = h.left("ssh", alice) {
					time.Sleep(left / 2)
					if left < time.Second {
						break
					}
				}
				knockAll(h.client(alice)) // the kernel here finds fault with what is said to be new, and is not
				synctest.Wait()
				if left := h.left("ssh", alice); left != window {
					t.Errorf("the window has %s left", left)
				}
			})
		})
	}
}
