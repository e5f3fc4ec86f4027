package wall_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
)

// watchdog is the interval at which the tests call Alive.
const watchdog = 2500 * time.Millisecond

// alive checks that the wall is alive.
func (h *host) alive(when string) {
	h.t.Helper()
	synctest.Wait()
	if err := h.wall.Alive(); err != nil {
		h.t.Errorf("%s: %v", when, err)
	}
}

// hangs checks that the wall hangs, by these of its sockets and no others.
func (h *host) hangs(when string, what ...string) {
	h.t.Helper()
	synctest.Wait()
	var want []string
	for _, s := range what {
		want = append(want, s+" wait, and the daemon handles none of them")
	}
	if err := h.wall.Alive(); err == nil || err.Error() != strings.Join(want, "\n") {
		h.t.Errorf("%s: %v, want %q", when, err, want)
	}
}

func TestAWallWhereNothingHappensIsAlive(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		for range 1000 {
			h.alive("nothing happens")
			time.Sleep(watchdog)
		}
	})
}

func TestAWallThatDoesNotStandYetIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.alive("at first")
		h.reload(config(sshDoor()))
		for range 20 { // Run does not run yet
			h.alive("before it runs")
			time.Sleep(watchdog)
		}
		h.run()
		h.alive("when it runs")
	})
}

func TestAWallThatIsBusyIsAlive(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		for range 100 {
			a.knock(7000, 8000, 9000)
			synctest.Wait()
			a.dial(22)
			b.dial(22) // and waits for a while
			h.alive("busy")
			time.Sleep(hold / 4)
		}
	})
}

func TestPacketsOfWhichNoneIsHandledAreASignOfDeath(t *testing.T) {
	for _, tt := range []struct {
		what   string
		socket func(h *host) *socket
		send   func(h *host)
	}{
		{"knocks", func(h *host) *socket { return h.log().socket },
			func(h *host) { h.client(bob).knock(7000) }},
		{"first packets of sources with a window", func(h *host) *socket { admitted, _ := h.lanes(); return admitted.socket },
			func(h *host) { h.client(alice).dial(22) }},
		{"first packets of sources without a window", func(h *host) *socket { _, strangers := h.lanes(); return strangers.socket },
			func(h *host) { h.client(bob).dial(22) }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			long := sshDoor()
			long.Window = time.Hour
			guarded(t, config(long), func(h *host) {
				h.client(alice).knock(7000, 8000, 9000)
				synctest.Wait()
				s := tt.socket(h)
				s.hold()
				h.alive("nothing waits")
				tt.send(h)
				h.alive("at once")
				time.Sleep(watchdog)
				h.hangs("it waits for long", tt.what)
				tt.send(h)
				h.hangs("another waits", tt.what)
				s.readFew(1)
				h.alive("one of two was handled")
				time.Sleep(watchdog)
				h.hangs("the other waits", tt.what)
				s.resume()
				h.alive("all are handled")
				// Other packets wait each time.
				for range 10 {
					s.hold()
					tt.send(h)
					h.alive("one waits")
					time.Sleep(watchdog)
					s.resume()
					synctest.Wait()
				}
			})
		})
	}
}

func TestAllSocketsThatAreNotReadAreNamed(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		admitted, strangers := h.lanes()
		for _, s := range []*socket{h.log().socket, admitted.socket, strangers.socket} {
			s.hold()
			defer s.resume()
		}
		b.knock(7000)
		a.dial(22)
		b.dial(22)
		h.alive("at once")
		h.hangs("later", "knocks", "first packets of sources with a window", "first packets of sources without a window")
	})
}

// A completed knock waits for the kernel to open the window.
func TestAnOpeningThatIsStuckIsASignOfDeath(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		open := make(chan struct{})
		h.intercepted("OpenWindows", func() { <-open })
		h.client(alice).knock(7000, 8000, 9000)
		h.alive("at once")
		time.Sleep(watchdog)
		h.hangs("nothing comes back", "knocks", "windows to be opened")
		close(open)
		h.alive("it has come back")
		time.Sleep(watchdog)
		h.alive("and later")
	})
}

func TestOtherSocketsAreNotTakenForThoseOfBefore(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		for _, c := range []func(){
			func() { h.reload(moved(config(sshDoor()))) },
			func() { h.reload(config(sshDoor())) },
		} {
			former := h.log()
			former.hold()
			h.client(alice).knock(7000)
			h.alive("a knock waits")
			c()
			h.log().hold()
			h.client(bob).knock(7000)
			h.alive("another one, at another socket")
			time.Sleep(watchdog)
			h.hangs("it is not read", "knocks")
			former.resume()
			h.log().resume()
			h.alive("it is read")
		}
	})
}

// Housekeeping never waits for long by itself, but something else may block it.
func TestAKeeperThatDoesNothingIsASignOfDeath(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		write := make(chan struct{})
		h.trail.watch(func(e audit.Event) {
			if e.Kind == audit.Expired {
				<-write
			}
		})
		h.client(alice).knock(7000, 8000, 9000)
		synctest.Wait()
		time.Sleep(window) // and housekeeping hangs when it ends
		stuck := time.Now()
		dead := false
		for time.Since(stuck) < time.Minute && !dead {
			synctest.Wait()
			err := h.wall.Alive()
			waited := time.Since(stuck)
			switch dead = err != nil; {
			case dead && (waited < 20*time.Second || waited > 30*time.Second+watchdog):
				h.t.Errorf("it is told after %s: %v", waited, err)
			case dead && !strings.HasPrefix(err.Error(), "periodic tasks have not run for 3"):
				h.t.Errorf("it is told: %v", err)
			}
			time.Sleep(watchdog)
		}
		if !dead {
			h.t.Error("nobody notices")
		}
		h.trail.watch(nil)
		close(write)
		h.alive("it goes on")
	})
}

func TestADaemonThatStopsIsAlive(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.log().hold()
		h.client(alice).knock(7000)
		h.alive("a knock waits")
		h.stop()
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		h.alive("its sockets are closed")
		h.alive("and stay so")
	})
}

// Other requests and calls of Alive go on meanwhile.
func TestTheWallMayBeAskedWhetherItIsAliveAtAnyTime(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				_ = h.wall.Alive()
				_, _, _ = h.wall.Brief()
			}
		}()
		a := h.client(alice)
		for n := range 50 {
			a.knock(7000, 8000, 9000)
			a.dial(22)
			c := config(sshDoor())
			if n%2 == 0 {
				c = moved(c)
			}
			h.reload(c)
			time.Sleep(hold)
		}
		close(stop)
		<-stopped
	})
}

func TestBriefCountsDoorsAndOpenWindows(t *testing.T) {
	brief := func(h *host, when string, doors, windows int) {
		h.t.Helper()
		synctest.Wait()
		if d, bare, w := h.wall.Brief(); d != doors || bare != 0 || w != windows {
			h.t.Errorf("%s: %d doors, %d windows; want %d, %d", when, d, w, doors, windows)
		}
	}
	synctest.Test(t, func(t *testing.T) { brief(newHost(t), "before the wall stands", 0, 0) })
	guarded(t, config(limited(sshDoor(), 1), door("web", 443, 7001)), func(h *host) {
		brief(h, "at first", 2, 0)
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		b.knock(7000, 8000, 9000)
		b.knock(7001)
		brief(h, "three are open", 2, 3)
		h.expect("alice's only one", a.dial(22), accepted)
		brief(h, "one is spent", 2, 2)
		time.Sleep(window - 1)
		brief(h, "until their time is up", 2, 2)
		time.Sleep(time.Nanosecond)
		brief(h, "their time is up", 2, 0)
		h.reload(config(sshDoor()))
		brief(h, "other rules", 1, 0)
	})
}

// Knocks have to wait while the wall is being put back. Killing the daemon then would
// lose the windows that are put back with it.
func TestAWallThatIsBeingPutBackIsAlive(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.failing("Restore", errInjected)
		h.flush("knockwall")
		h.knocked(alice, 7000, 8000, 9000)
		h.knocked(bob, 7000)
		for ended := false; !ended; {
			select {
			case <-h.ended: // after a minute, by itself
				ended = true
			default:
				h.alive("while it is put back")
				time.Sleep(watchdog)
			}
		}
		h.stop()
	})
}
