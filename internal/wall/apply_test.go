package wall_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// The sockets of each bank.
var (
	turn0 = []string{"group 7100", "queue 7100", "queue 7101", "queue 7104"}
	turn1 = []string{"group 7101", "queue 7102", "queue 7103", "queue 7105"}
	turn2 = []string{"group 7200", "queue 7200", "queue 7201", "queue 7204"} // after a reload with other numbers
)

// moved returns a configuration like c with other numbers, and renamed one with
// another table.
func moved(c *ruleset.Config) *ruleset.Config {
	c.Wall.LogGroup, c.Wall.Queue = 7200, 7200
	return c
}

func renamed(c *ruleset.Config) *ruleset.Config {
	c.Wall.Table = "rampart"
	return c
}

// expectBound compares what is bound with what is wanted.
func (h *host) expectBound(want []string) {
	h.t.Helper()
	if got := h.bound(); !slices.Equal(got, want) {
		h.t.Errorf("bound: %v, want %v", got, want)
	}
}

func TestAWallIsInstalledOnceItsSocketsAreBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.once("Install", func() {
			h.expectBound(turn0)
			if h.seeded != 1 {
				t.Errorf("connections were added to conntrack %d times before the wall stood", h.seeded)
			}
		})
		if err := h.raise(config(sshDoor())); err != nil {
			t.Fatal(err)
		}
		h.run()
		if !h.wanted(session(tcp(22), bob)) || h.wanted(session(tcp(7000), bob)) || h.wanted(session(tcp(80), bob)) {
			t.Error("connections of the wrong ports are added to conntrack")
		}
		h.trail.expect(t, nil, "started: doors: 1, windows open: 0")
		if want := (nft.Numbers{LogGroup: 7100, Admitted: 7100, Strangers: 7101, Excess: 7104}); h.named() != want {
			t.Errorf("numbers: %+v", h.named())
		}
		admitted, strangers := h.lanes()
		if !admitted.config.FailOpen || strangers.config.FailOpen {
			t.Errorf("queues: %+v, %+v", admitted.config, strangers.config)
		}
	})
}

func TestAStartTakesTheNumbersThatTheStandingTableDoesNotName(t *testing.T) {
	for turn, want := range [][]string{turn1, turn0} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			c := config(sshDoor())
			h.found(c, turn)
			if err := h.raise(c); err != nil {
				t.Fatal(err)
			}
			h.run()
			h.expectBound(want)
			if h.named() != nft.NumbersOf(&c.Wall, 1-turn) {
				t.Errorf("the table names %+v", h.named())
			}
		})
	}
}

func TestATableThatNamesNumbersOfBothBanksIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		former := config(sshDoor())
		former.Wall.Queue = 7101 // 7101 and 7102 are in both banks
		h.found(former, 0)
		err := h.raise(config(sshDoor()))
		if err == nil || !strings.Contains(err.Error(), "numbers that are further away") {
			t.Errorf("Apply: %v", err)
		}
		h.expectBound(nil)
		if got := h.changes(); got != nil {
			t.Errorf("changed: %v", got)
		}
	})
}

func TestWindowsAreReadBackWithTheTimeTheyHadLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		gone, stays := door("gone", 80, 1000), door("stays", 443, 2000)
		h.found(config(sshDoor(), gone, stays), 0,
			nft.Window{Door: "ssh", Source: single(alice), Left: 12 * time.Second},
			nft.Window{Door: "ssh", Source: single(bob), Left: time.Second},
			nft.Window{Door: "gone", Source: single(alice), Left: 12 * time.Second},
			nft.Window{Door: "stays", Source: single(carol), Left: 3 * time.Second})
		time.Sleep(2 * time.Second)
		// Neither the order of the doors nor the new length of windows matters.
		if err := h.raise(config(stays, limited(sshDoor(), 2))); err != nil {
			t.Fatal(err)
		}
		h.run()
		h.trail.expect(t, nil, "started: doors: 2, windows open: 2")
		want := []wall.WindowStatus{
			{Door: "ssh", Source: single(alice), LeftSeconds: 10},
			{Door: "stays", Source: single(carol), LeftSeconds: 1},
		}
		if diff := cmp.Diff(want, h.status().Windows, compareSources); diff != "" {
			t.Errorf("windows (-want +got):\n%s", diff)
		}
		if got := h.left("ssh", alice); got != 10*time.Second {
			t.Errorf("the kernel has the window open for %s", got)
		}
		time.Sleep(10*time.Second - 1)
		h.expect("alice's window is open", h.client(alice).dial(22), accepted)
		h.expect("bob's is not", h.client(bob).dial(22), waiting)
		time.Sleep(time.Second)
		synctest.Wait()
		h.trail.expect(t, []audit.Kind{audit.Expired}, "expired stays 192.0.2.3", "expired ssh 192.0.2.1")
	})
}

func TestWindowsThatAreReadBackAreCountedAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		c := config(limited(sshDoor(), 1))
		h.found(c, 0, nft.Window{Door: "ssh", Source: single(alice), Left: window})
		if err := h.raise(c); err != nil {
			t.Fatal(err)
		}
		h.run()
		a := h.client(alice)
		h.expect("first", a.dial(22), accepted)
		h.expect("second", a.dial(22), waiting)
		if got := h.left("ssh", alice); got != 0 {
			t.Errorf("the spent window is open for %s", got)
		}
	})
}

func TestAStartWhereSomebodyListensChangesNothing(t *testing.T) {
	for socket, key := range map[string]string{
		"group 7100": "nflog_group", "group 7101": "nflog_group",
		"queue 7100": "queue", "queue 7101": "queue", "queue 7102": "queue", "queue 7103": "queue", "queue 7104": "queue", "queue 7105": "queue",
	} {
		t.Run(socket, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				kind, number, _ := strings.Cut(socket, " ")
				call := map[string]string{"group": "LogInUse ", "queue": "QueueInUse "}[kind] + number
				n := 7100 + uint16(number[3]-'0')
				if kind == "group" {
					h.logs[n] = &fakeLog{}
				} else {
					h.queues[n] = &fakeQueue{}
				}
				var inUse *wall.InUseError
				err := h.raise(config(sshDoor()))
				if !errors.As(err, &inUse) || inUse.Key != key || !strings.Contains(err.Error(), number) {
					t.Errorf("Apply: %v", err)
				}
				h.expectBound([]string{socket})
				if len(h.stands()) != 0 || h.seeded != 0 {
					t.Errorf("stands: %v, connections added %d times", h.stands(), h.seeded)
				}
				h.trail.expect(t, nil)

				h.failing(call, errInjected)
				if err := h.raise(config(sshDoor())); !errors.Is(err, errInjected) {
					t.Errorf("Apply: %v", err)
				}
				h.expectBound([]string{socket})
			})
		})
	}
}

func TestAStartWhereAnotherWallsTableNamesTheNumbersChangesNothing(t *testing.T) {
	for turn := range 2 {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			other := config(sshDoor())
			other.Wall.Table = "rampart"
			h.found(other, turn)
			err := h.raise(config(sshDoor()))
			if err == nil || !strings.Contains(err.Error(), "nft delete table inet rampart") {
				t.Errorf("Apply: %v", err)
			}
			h.expectBound(nil)
			if got := h.changes(); got != nil {
				t.Errorf("changed: %v", got)
			}

			apart := config(sshDoor())
			apart.Wall.LogGroup, apart.Wall.Queue = 7200, 7200
			if err := h.raise(apart); err != nil {
				t.Errorf("Raise, with other numbers: %v", err)
			}
			h.run()
		})
	}
}

func TestASourceGetsNoWindowOfAnotherPrefix(t *testing.T) {
	wide, web := sshDoor(), door("web", 443, 8001)
	wide.SourcePrefix.IPv4 = 24
	zero := netip.MustParseAddr("192.0.2.0") // whose network has the same address
	guarded(t, config(sshDoor(), web), func(h *host) {
		z, b := h.client(zero), h.client(bob)
		z.knock(7000, 8000, 9000)
		z.knock(8001)
		synctest.Wait()
		if err := h.raise(config(wide, web)); err != nil {
			h.t.Fatal(err)
		}
		h.expect("nobody has knocked for the whole network", b.dial(22), waiting)
		h.expect("web's windows are carried over", z.dial(443), accepted)
		b.knock(7000, 8000, 9000)
		h.expect("bob has", z.dial(22), accepted)
		if err := h.raise(config(sshDoor(), web)); err != nil {
			h.t.Fatal(err)
		}
		h.expect("the network's window is nobody's", z.dial(22), waiting)
	})
}

func TestAReloadThatTakesItsTimeGivesNobodyMore(t *testing.T) {
	for name, next := range map[string]*ruleset.Config{
		"the same table": config(sshDoor(), door("web", 443, 8001)),
		"another table":  renamed(config(sshDoor(), door("web", 443, 8001))),
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor(), door("web", 443, 8001)), func(h *host) {
				h.client(alice).knock(7000, 8000, 9000)
				h.client(bob).knock(8001)
				time.Sleep(window - time.Second)
				h.client(bob).knock(8001)
				synctest.Wait()
				h.intercepted("SeedConntrack", func() { time.Sleep(2 * time.Second) }) // before and after the table is installed
				if err := h.raise(next); err != nil {
					h.t.Fatal(err)
				}
				if got, want := h.left("web", bob), window-4*time.Second; got != want {
					h.t.Errorf("bob's window is open for %s, want %s", got, want)
				}
				if got := h.left("ssh", alice); got != 0 {
					h.t.Errorf("alice's window, which is over, is open for %s", got)
				}
				want := []wall.WindowStatus{{Door: "web", Source: single(bob), LeftSeconds: 26}}
				if diff := cmp.Diff(want, h.status().Windows, compareSources); diff != "" {
					h.t.Errorf("windows (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestASecondDaemonLeavesTheFirstAlone(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		var inUse *wall.InUseError
		if err := wall.New(h.edges(), &trail{}).Apply(config(sshDoor())); !errors.As(err, &inUse) {
			h.t.Errorf("Apply: %v", err)
		}
		h.expectBound(turn0)
		h.expect("the first daemon's window is open", a.dial(22), accepted)
	})
}

func TestAStartThatFailsLeavesNothing(t *testing.T) {
	for _, call := range []string{"Others", "Standing", "ListenLog 7100", "ListenQueue 7100", "ListenQueue 7101", "Watch", "SeedConntrack", "Install"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.failing(call, errInjected)
				if err := h.raise(config(sshDoor())); !errors.Is(err, errInjected) {
					t.Errorf("Apply: %v", err)
				}
				synctest.Wait()
				h.expectBound(nil)
				if len(h.stands()) != 0 || len(h.watchers) != 0 {
					t.Errorf("stands: %v, %d watch", h.stands(), len(h.watchers))
				}
				h.trail.expect(t, nil)
				h.failing("nothing", nil)
				if err := h.raise(config(sshDoor())); err != nil {
					t.Errorf("Raise, when nothing fails any more: %v", err)
				}
				h.run()
			})
		})
	}
}

func TestAReloadThatFailsLeavesAllAsItWas(t *testing.T) {
	ssh := func() *ruleset.Config { return config(limited(sshDoor(), 9)) }
	for call, c := range map[string]*ruleset.Config{
		"SeedConntrack": ssh(), "Install knockwall": ssh(),
		"ListenLog 7200": moved(ssh()), "ListenQueue 7200": moved(ssh()), "ListenQueue 7201": moved(ssh()),
		"Install": moved(ssh()), "Install rampart": renamed(ssh()),
	} {
		t.Run(call, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				a, b := h.client(alice), h.client(bob)
				b.knock(7000, 8000, 9000)
				first := a.dial(22)
				a.knock(7000, 8000)
				synctest.Wait()
				h.failing(call, errInjected)
				if err := h.raise(c); !errors.Is(err, errInjected) {
					h.t.Errorf("Apply: %v", err)
				}
				h.expectBound(turn0)
				if got := h.stands(); !slices.Equal(got, []string{"knockwall"}) {
					h.t.Errorf("stands: %v", got)
				}
				h.trail.expect(h.t, []audit.Kind{audit.Reloaded})
				if s := h.status(); s.Doors[0].MaxConnections != 0 || len(s.Windows) != 1 || s.Counters.Attempts != 2 {
					h.t.Errorf("status: %+v", s)
				}
				h.expect("bob's window is open", b.dial(22), accepted)
				a.knock(9000)
				h.expect("alice has knocked", first, accepted)

				h.failing("nothing", nil)
				if err := h.raise(c); err != nil {
					h.t.Errorf("Raise, when nothing fails any more: %v", err)
				}
				if s := h.status(); s.Doors[0].MaxConnections != 9 || len(s.Windows) != 2 {
					h.t.Errorf("status: %+v", s)
				}
				h.expect("alice's window is open", a.dial(22), accepted)
			})
		})
	}
}

func TestAReloadCarriesWindowsOver(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		h.expect("alice has knocked", a.dial(22), accepted)
		time.Sleep(window / 2)
		theirs := b.dial(22)
		h.expect("bob has not", theirs, waiting)
		time.Sleep(hold / 2)

		web := door("web", 443, 7001, 8001)
		if err := h.raise(config(web, sshDoor())); err != nil {
			h.t.Fatal(err)
		}
		h.expectBound(turn0)
		h.trail.expect(h.t, []audit.Kind{audit.Started, audit.Reloaded}, "reloaded: doors: 2, windows open: 1")
		if got, want := h.left("ssh", alice), window/2-hold/2; got != want {
			h.t.Errorf("the kernel has the window open for %s, want %s", got, want)
		}
		h.expect("alice's window is open", a.dial(22), accepted)
		time.Sleep(hold/2 - 1)
		h.expect("hold is not over", theirs, waiting)
		b.knock(7000, 8000, 9000)
		h.expect("bob has knocked at the new wall", theirs, accepted)

		if err := h.raise(config(sshDoor())); err != nil {
			h.t.Fatal(err)
		}
		h.expectBound(turn0)
		if got, want := len(h.status().Windows), 2; got != want {
			h.t.Errorf("%d windows, want %d", got, want)
		}
	})
}

func TestAReloadMayReorderDoors(t *testing.T) {
	ssh, web := limited(door("ssh", 22, 7000), 2), limited(door("web", 443, 8000), 2)
	guarded(t, config(ssh, web), func(h *host) {
		a := h.client(alice)
		a.knock(7000)
		synctest.Wait()
		if err := h.raise(config(web, ssh)); err != nil {
			h.t.Fatal(err)
		}
		h.expect("alice has not knocked at web", a.dial(443), waiting)
		h.expect("alice has knocked at ssh", a.dial(22), accepted)
		want := []wall.WindowStatus{{Door: "ssh", Source: single(alice), LeftSeconds: 30, Connections: 1}}
		if diff := cmp.Diff(want, h.status().Windows, compareSources); diff != "" {
			h.t.Errorf("windows (-want +got):\n%s", diff)
		}
	})
}

func TestPacketsThatMeetTheNewTableBeforeItsPolicyAreJudgedByItsDoors(t *testing.T) {
	ssh, web := limited(door("ssh", 22, 7000), 1), limited(door("web", 443, 8000), 1)
	guarded(t, config(ssh, web), func(h *host) {
		a := h.client(alice)
		a.knock(8000)
		synctest.Wait()
		var early *journey
		next := config(web, ssh)
		h.intercepted("Install", func() {
			// Installed by hand, so that a packet meets the table before Raise goes on.
			h.intercepted("nothing", func() {})
			if err := h.Install(nft.NewTable(resolved(next), h.named()), nil, ""); err != nil {
				h.t.Error(err)
			}
			early = a.dial(443)
			<-early.done
		})
		if err := h.raise(next); err != nil {
			h.t.Fatal(err)
		}
		h.expect("alice has knocked at web", early, accepted)
		second := a.dial(443)
		time.Sleep(hold)
		h.expect("her window was spent", second, refused)
	})
}

func TestAReloadGoesOnCounting(t *testing.T) {
	c := config(limited(sshDoor(), 2))
	guarded(t, c, func(h *host) {
		h.losing = true
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		first := a.dial(22)
		h.expect("first", first, accepted)
		if err := h.raise(c); err != nil {
			h.t.Fatal(err)
		}
		if got := h.status().Doors[0].Counters; got.Knocks != 3 || got.Opened != 1 || got.Accepted != 1 {
			h.t.Errorf("counters: %+v", got)
		}
		for range 2 {
			if n := h.status().Windows[0].Connections; n != 1 {
				h.t.Errorf("%d connections, want 1", n)
			}
			time.Sleep(retransmitted)
			h.expect("the first's SYN again", h.send(first.packet), accepted)
		}
		second := a.dial(22)
		h.expect("second", second, accepted)
		if err := h.raise(c); err != nil {
			h.t.Fatal(err)
		}
		time.Sleep(retransmitted)
		h.expect("the second's SYN again, when the window is spent", h.send(second.packet), accepted)
		third := a.dial(22)
		time.Sleep(hold)
		h.expect("a reload is no knock", third, refused)
		if got := h.left("ssh", alice); got != 0 {
			h.t.Errorf("the spent window is open for %s", got)
		}
	})
}

func TestAWindowThatIsSpentDuringAReloadIsClosed(t *testing.T) {
	c := config(limited(sshDoor(), 1))
	guarded(t, c, func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		var during []*journey
		h.intercepted("SeedConntrack", func() { // when the windows were read, and when the table is installed
			during = append(during, a.dial(22))
			<-during[0].done // and its handler waits for the reload, to close the window
		})
		if err := h.raise(c); err != nil {
			h.t.Fatal(err)
		}
		synctest.Wait()
		if len(during) != 2 || during[0].fate != accepted || during[1].fate != refused {
			h.t.Errorf("during the reload: %v", during)
		}
		second := a.dial(22)
		time.Sleep(hold)
		h.expect("the window is spent", second, refused)
		if got := h.left("ssh", alice); got != 0 {
			h.t.Errorf("the spent window is open for %s", got)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Accepted, audit.Closed},
			"accepted ssh 192.0.2.1", "closed ssh 192.0.2.1: max_connections is reached")
	})
}

func TestAStrangerThatMeetsTheNewTableBeforeItsPolicyIsRefusedInTime(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		var j *journey
		adoptions := 0
		h.intercepted("SeedConntrack", func() {
			if adoptions++; adoptions == 2 { // when the new table is installed
				j = h.client(bob).dial(22)
				time.Sleep(hold / 2)
			}
		})
		if err := h.raise(config(sshDoor())); err != nil {
			h.t.Fatal(err)
		}
		time.Sleep(hold/2 - 1)
		h.expect("hold is not over", j, waiting)
		time.Sleep(time.Nanosecond)
		h.expect("hold is over", j, refused)
	})
}

func TestAWindowThatIsKnockedOpenAgainBeforeItIsClosedStaysOpen(t *testing.T) {
	c := config(limited(door("web", 443, 8001), 1))
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		former := config(limited(door("web", 443, 8001), 1))
		h.found(former, 0, nft.Window{Door: "web", Source: single(alice), Left: window})
		if err := h.raise(c); err != nil {
			t.Fatal(err)
		}
		h.run()
		// During a reload, first a knock waits for it, and then the end of the window.
		installing, install := make(chan struct{}), make(chan struct{})
		h.once("Install", func() {
			close(installing)
			<-install
		})
		opening := make(chan struct{})
		h.trail.watch(func(e audit.Event) {
			if e.Kind == audit.Knock {
				close(opening)
			}
		})
		raised := make(chan error)
		go func() { raised <- h.raise(c) }()
		<-installing
		a := h.client(alice)
		a.knock(8001)
		<-opening
		first := a.dial(443)
		<-first.done
		close(install)
		if err := <-raised; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := h.left("web", alice); got != window {
			t.Errorf("the window is open for %s, want %s", got, window)
		}
		h.expect("knocked again", a.dial(443), accepted)
	})
}

func TestAReloadForgetsWindowsThatTheKernelHasLost(t *testing.T) {
	guarded(t, config(sshDoor(), door("web", 443, 8001)), func(h *host) {
		h.client(alice).knock(7000, 8000, 9000)
		h.client(bob).knock(7000, 8000, 9000)
		h.client(bob).knock(8001) // at a door that goes
		synctest.Wait()
		if _, err := h.CloseWindow("knockwall", "ssh", single(alice)); err != nil {
			h.t.Fatal(err)
		}
		if err := h.raise(config(sshDoor())); err != nil {
			h.t.Fatal(err)
		}
		want := []wall.WindowStatus{{Door: "ssh", Source: single(bob), LeftSeconds: 30}}
		if diff := cmp.Diff(want, h.status().Windows, compareSources); diff != "" {
			h.t.Errorf("windows (-want +got):\n%s", diff)
		}
	})
}

func TestAReloadMayRenameTheTable(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.changes()
		if err := h.raise(renamed(config(sshDoor()))); err != nil {
			h.t.Fatal(err)
		}
		if got := h.changes(); !slices.Equal(got, []string{"Install rampart for knockwall"}) {
			h.t.Errorf("changed: %v", got)
		}
		h.expectBound(turn0)
		if got := h.stands(); !slices.Equal(got, []string{"rampart"}) {
			h.t.Errorf("stands: %v", got)
		}
		h.expect("alice's window was carried over", a.dial(22), accepted)
		h.expect("bob has none", h.client(bob).dial(22), waiting)
	})
}

func TestAReloadPutsBackATableThatSomebodyHasDeleted(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		if _, err := h.Remove("knockwall"); err != nil {
			h.t.Fatal(err)
		}
		if err := h.raise(config(sshDoor())); err != nil {
			h.t.Fatal(err)
		}
		h.expectBound(turn0)
		h.expect("the wall stands again", h.client(bob).dial(22), waiting)
	})
}

func TestAKnockThatCompletesAtADoorWhichAReloadTakesAwayOpensNothing(t *testing.T) {
	guarded(t, config(sshDoor(), door("web", 443, 8001)), func(h *host) {
		h.changes()
		installing, install := make(chan struct{}), make(chan struct{})
		h.once("SeedConntrack", func() {
			close(installing)
			<-install
		})
		completed := make(chan struct{})
		h.trail.watch(func(e audit.Event) {
			if e.Kind == audit.Knock {
				close(completed)
			}
		})
		raised := make(chan error)
		go func() { raised <- h.raise(config(sshDoor())) }()
		<-installing
		a := h.client(alice)
		a.knock(8001)
		<-completed // now, or in a moment, the handler waits for the reload
		close(install)
		if err := <-raised; err != nil {
			h.t.Fatal(err)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refused})
		if got := h.changes(); !slices.Equal(got, []string{"Install knockwall"}) {
			h.t.Errorf("changed: %v", got)
		}
		h.expect("web is not guarded any more", a.dial(443), accepted)
	})
}

// A handler that opens a window waits for a reload, and the reload closes the former
// sockets once their handlers are done.
func TestAReloadAndAKnockThatWaitForEachOtherBothEnd(t *testing.T) {
	c := config(limited(sshDoor(), 1), door("web", 443, 8001))
	guarded(t, c, func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		theirs := b.dial(443)
		synctest.Wait()

		installing, install := make(chan struct{}), make(chan struct{})
		h.once("Install", func() {
			close(installing)
			<-install
		})
		opening, spending := make(chan struct{}), make(chan struct{})
		h.trail.watch(func(e audit.Event) {
			switch {
			case e.Kind == audit.Knock:
				close(opening)
			case e.Kind == audit.Accepted && e.Door == "ssh":
				close(spending)
			}
		})

		raised := make(chan error)
		go func() { raised <- h.raise(moved(config(limited(sshDoor(), 1), door("web", 443, 8001)))) }()
		<-installing
		b.knock(8001)
		a.dial(22)
		<-opening
		<-spending // now, or in a moment, both handlers wait for the reload
		close(install)
		if err := <-raised; err != nil {
			h.t.Fatal(err)
		}
		h.expect("bob's window was opened in the new table", theirs, accepted)
		h.expect("alice's was spent", a.dial(22), waiting)
		if got := h.left("ssh", alice); got != 0 {
			h.t.Errorf("the spent window is open for %s", got)
		}
		time.Sleep(time.Second)
		h.expectBound(turn2)
	})
}

func TestAReloadWaitsForAWindowThatIsBeingOpened(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		opening, open := make(chan struct{}), make(chan struct{})
		h.intercepted("OpenWindows", func() {
			close(opening)
			<-open
		})
		a := h.client(alice)
		j := a.dial(22)
		a.knock(7000, 8000, 9000)
		<-opening
		raised := make(chan error)
		go func() { raised <- h.raise(config(sshDoor())) }()
		// Everything else goes on meanwhile.
		h.status()
		if got := h.fate(h.client(bob).dial(22)); got != waiting {
			h.t.Errorf("bob's packet is %q", got)
		}
		close(open)
		if err := <-raised; err != nil {
			h.t.Fatal(err)
		}
		h.expect("alice has knocked", j, accepted)
		if got := h.left("ssh", alice); got != window {
			h.t.Errorf("the new table has the window open for %s", got)
		}
	})
}

func TestWhenRunEndsTheWallStays(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		held := b.dial(22)
		synctest.Wait()
		h.trail.take()
		h.stop()
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		h.expectBound(nil)
		if got := h.stands(); !slices.Equal(got, []string{"knockwall"}) {
			h.t.Errorf("stands: %v", got)
		}
		h.expect("alice's window admits", a.dial(22), accepted)
		h.expect("bob was waiting", held, dropped)
		h.expect("bob has no window", b.dial(22), dropped)
		h.trail.expect(h.t, nil,
			"stopped: the wall stays: open windows admit until they end, and strangers are refused")
	})
}

func TestWhenRunEndsTheWallGoesIfThatIsWanted(t *testing.T) {
	c := config(sshDoor())
	c.Wall.OnStop = ruleset.Remove
	guarded(t, c, func(h *host) {
		h.intercepted("Remove", func() {
			h.expectBound(nil) // all packets in the sockets have been handled
		})
		h.stop()
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		h.expectBound(nil)
		if got := h.stands(); len(got) != 0 {
			h.t.Errorf("stands: %v", got)
		}
		h.expect("there is no wall", h.client(bob).dial(22), accepted)
		h.trail.expect(h.t, nil, "stopped: the wall is taken down")
	})
}

func TestAWallThatCannotBeRemovedIsAnError(t *testing.T) {
	c := config(sshDoor())
	c.Wall.OnStop = ruleset.Remove
	guarded(t, c, func(h *host) {
		h.failing("Remove", errInjected)
		h.stop()
		if err := <-h.ended; !errors.Is(err, errInjected) {
			h.t.Errorf("Run: %v", err)
		}
		h.expectBound(nil)
	})
}

func TestASocketThatFailsEndsRunAndTheWallStays(t *testing.T) {
	for _, socket := range []string{"log", "admitted", "strangers"} {
		t.Run(socket, func(t *testing.T) {
			c := config(sshDoor())
			c.Wall.OnStop = ruleset.Remove
			guarded(t, c, func(h *host) {
				log := h.log()
				lane, strangers := h.lanes()
				fail := map[string]func(error){
					"log": log.handler.Failed, "admitted": lane.handler.Failed, "strangers": strangers.handler.Failed,
				}[socket]
				// Not from the socket's goroutine: that can only report one error.
				fail(unix.EIO)
				fail(errInjected) // the first error counts, and no call waits
				fail(errInjected)
				err := <-h.ended
				h.stop()
				if !errors.Is(err, unix.EIO) {
					h.t.Errorf("Run: %v", err)
				}
				h.expectBound(nil)
				if got := h.stands(); !slices.Equal(got, []string{"knockwall"}) {
					h.t.Errorf("stands: %v", got)
				}
			})
		})
	}
}

func TestARunThatIsStoppedAtOnceIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		if err := h.raise(config(sshDoor())); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := h.wall.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		h.expectBound(nil)
	})
}

// No two doors share a number in the records of windows, however many have come and gone.
func TestDoorsOfVeryManyNamesNeedARestart(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.wall.UseUpDoors(1)
		if err := h.raise(config(sshDoor(), door("web", 443, 8001))); err != nil {
			t.Fatal(err)
		}
		err := h.raise(config(sshDoor(), door("mail", 25, 8002)))
		if err == nil || !strings.Contains(err.Error(), "restart it") {
			t.Errorf("one name more: %v", err)
		}
		if n := len(h.status().Doors); n != 2 {
			t.Errorf("there are %d doors, want the former two", n)
		}
		if err := h.raise(config(sshDoor())); err != nil {
			t.Errorf("rules with a door less: %v", err)
		}
	})
}
