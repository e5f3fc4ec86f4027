package wall_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/ruleset"
)

func TestPacketsInTheSocketsWhenTheDaemonStopsAreJudged(t *testing.T) {
	for name, end := range map[string]func(h *host){
		"it is told to":          func(h *host) { h.stop() },
		"the log fails":          func(h *host) { h.log().handler.Failed(errInjected) },
		"the wall is taken down": func(h *host) { go func() { _, _ = h.wall.Down(context.Background()) }() },
	} {
		t.Run(name, func(t *testing.T) {
			open := withKnock(sshDoor(), tcp(7777))
			open.Name, open.Ports[0].First, open.Ports[0].Last = "open", 23, 23
			open.OnFailure = ruleset.FailOpen
			guarded(t, config(sshDoor(), open), func(h *host) {
				a, b, c := h.client(alice), h.client(bob), h.client(carol)
				c.knock(7000, 8000, 9000)
				synctest.Wait()
				lane, strangers := h.lanes()
				log := h.log()
				sockets := []*socket{log.socket, lane.socket, strangers.socket}
				for _, s := range sockets {
					s.hold()
				}
				in := c.dial(22)
				a.knock(7000, 8000, 9000)
				theirs, atOpen := b.dial(22), b.dial(23)
				h.changes()
				end(h)
				synctest.Wait()
				if got := h.changes(); !slices.Equal(got, []string{"Install knockwall"}) {
					h.t.Errorf("changed: %v", got)
				}
				if n := h.named(); n != nft.NumbersOf(&config(sshDoor()).Wall, 1) {
					h.t.Errorf("the table names %+v", n)
				}
				h.expectBound(turn0)
				h.expect("unread", in, waiting)
				// The kernel works without the daemon meanwhile.
				h.expect("carol's window is open", c.dial(22), accepted)
				h.expect("bob has none", b.dial(22), dropped)
				h.expect("strangers come in as on_failure says", b.dial(23), accepted)
				for _, s := range sockets {
					s.resume()
				}
				h.expect("carol was let in", in, accepted)
				h.expect("bob was not", theirs, dropped)
				h.expect("strangers come in as on_failure says", atOpen, accepted)
				if got := h.left("ssh", alice); got != window {
					h.t.Errorf("alice's knocks were unread, and her window is open for %s", got)
				}
				h.expect("alice comes in", a.dial(22), accepted)
				err := <-h.ended
				h.stop()
				if name == "the log fails" && !errors.Is(err, errInjected) || name != "the log fails" && err != nil {
					h.t.Errorf("Run: %v", err)
				}
				h.expectBound(nil)
				if got, want := len(h.stands()) == 0, name == "the wall is taken down"; got != want {
					h.t.Errorf("stands: %v", h.stands())
				}
			})
		})
	}
}

func TestSocketsThatAreNeverEmptyDoNotKeepTheDaemonFromStopping(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		lane, _ := h.lanes()
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		lane.hold()
		j := a.dial(22)
		began := time.Now()
		h.stop()
		if err := <-h.ended; err != nil || time.Since(began) > 3*time.Second {
			h.t.Errorf("Run: %v, after %s", err, time.Since(began))
		}
		h.expectBound(nil)
		h.expect("nobody has judged it", j, dropped)
	})
}

func TestADaemonThatIsStoppedLosesNoWindowAndCountsNoSecondStop(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 1)), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		b.knock(7000, 8000, 9000)
		h.expect("her only one", a.dial(22), accepted)
		time.Sleep(window / 2)
		h.stop()
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		if got := h.left("ssh", alice); got != 0 {
			h.t.Errorf("alice's spent window is open for %s", got)
		}
		if got, want := h.left("ssh", bob), window/2; got > want || got < want-time.Second {
			h.t.Errorf("bob's window is open for %s, want %s", got, want)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Stopped},
			"stopped: the wall stays: open windows admit until they end, and strangers are refused")
	})
}

// Windows that another process has closed in the kernel stay closed.
func TestStoppingOpensNoWindowThatTheKernelHasLost(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.client(alice).knock(7000, 8000, 9000)
		synctest.Wait()
		if _, err := h.CloseWindow("knockwall", "ssh", single(alice)); err != nil {
			h.t.Fatal(err)
		}
		h.stop()
		<-h.ended
		if got := h.left("ssh", alice); got != 0 {
			h.t.Errorf("the window is open for %s", got)
		}
	})
}

func TestAStopWhoseTableCannotBeInstalledIsAnErrorAndNoPacketLoops(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		held := b.dial(22)
		synctest.Wait()
		h.failing("Install", errInjected)
		h.stop()
		if err := <-h.ended; !errors.Is(err, errInjected) {
			h.t.Errorf("Run: %v", err)
		}
		h.expectBound(nil)
		h.expect("alice's window is open", a.dial(22), accepted)
		if got := h.fate(held); got == accepted {
			h.t.Errorf("bob's packet is %q", got)
		}
		h.expect("bob has no window", b.dial(22), dropped)
	})
}

func TestAStopThatMeetsAReloadWaitsForIt(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		installing, install := make(chan struct{}), make(chan struct{})
		h.once("Install", func() {
			close(installing)
			<-install
		})
		raised := make(chan error)
		go func() { raised <- h.raise(moved(config(sshDoor()))) }()
		<-installing
		h.stop()
		close(install)
		if err := <-raised; err != nil {
			h.t.Errorf("Apply: %v", err)
		}
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		h.expectBound(nil)
		if n := h.named(); n.Admitted < 7200 {
			h.t.Errorf("the table names %+v", n)
		}
		if err := h.raise(config(sshDoor())); err == nil {
			h.t.Error("a wall is installed after Run")
		}
	})
}

// The knocks that the daemon reads last open their windows, whether the table is handed
// over before that or after it.
func TestTheLastKnocksOpenTheirWindowsWhenTheDaemonStops(t *testing.T) {
	const open, handOver = "OpenWindows ssh 192.0.2.1", "Install knockwall"
	for name, tt := range map[string]struct {
		queue func(h *host, knock func())
		want  []string
	}{
		"read before":    {func(_ *host, knock func()) { knock() }, []string{open, handOver}},
		"read meanwhile": {func(h *host, knock func()) { h.once("Install", knock) }, []string{handOver, open}},
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				tt.queue(h, func() { h.wall.Queue("ssh", single(alice), window) })
				h.stop()
				if err := <-h.ended; err != nil {
					h.t.Errorf("Run: %v", err)
				}
				if got := h.changes(); !slices.Equal(got, tt.want) {
					h.t.Errorf("changed: %q, want %q", got, tt.want)
				}
				h.expect("alice has knocked", h.client(alice).dial(22), accepted)
			})
		})
	}
}

// What is said of strangers is what the rules do with them.
func TestAStoppedDaemonSaysWhatBecomesOfStrangers(t *testing.T) {
	open := door("web", 443, 7001)
	open.OnFailure = ruleset.FailOpen
	for says, c := range map[string]*ruleset.Config{
		"strangers are refused":                                                     config(sshDoor()),
		`strangers get in by on_failure = "open"`:                                   config(open),
		`strangers get in at web by on_failure = "open", and are refused elsewhere`: config(sshDoor(), open),
	} {
		guarded(t, c, func(h *host) {
			h.stop()
			<-h.ended
			h.trail.expect(h.t, []audit.Kind{audit.Stopped}, "stopped: the wall stays: open windows admit until they end, and "+says)
		})
	}
}
