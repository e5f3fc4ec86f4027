package wall_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/wall"
)

// endFor ends the sessions of a source and checks their number.
func (h *host) endFor(door string, source netip.Addr, want int) {
	h.t.Helper()
	c, err := h.wall.Close(door, source.String(), true)
	if err != nil || c.Ended != want {
		h.t.Errorf("Close: %+v, %v, want %d ended", c, err, want)
	}
}

// stillEnded checks which connections are marked as ended.
func (h *host) stillEnded(when string, want ...connection) {
	h.t.Helper()
	synctest.Wait()
	if !slices.Equal(h.barred, want) {
		h.t.Errorf("%s: ended are %v, want %v", when, h.barred, want)
	}
}

func TestSessionsThatWereEndedGoOnWhenTheirSourceHasKnockedAgain(t *testing.T) {
	web := door("web", 443, 7001)
	guarded(t, config(sshDoor(), web), func(h *host) {
		theirs, hers, elsewhere := connection{tcp(22), bob}, connection{tcp(22), alice}, connection{tcp(443), alice}
		h.connections = []connection{hers, theirs, elsewhere}
		asked := h.dumps
		h.client(bob).knock(7000, 8000, 9000)
		synctest.Wait()
		h.endFor("ssh", alice, 1)
		h.endFor("ssh", bob, 1)
		h.endFor("web", alice, 1)
		a := h.client(alice)
		a.knock(7000, 8000)
		h.stillEnded("before the last knock", hers, theirs, elsewhere)
		if h.dumps != asked {
			h.t.Error("who has nothing ended costs something")
		}
		var waits *journey
		h.intercepted("ClearMarks", func() {
			if h.left("ssh", alice) == 0 {
				h.t.Error("they go on before the window is open")
			}
			waits = a.dial(22)
		})
		a.knock(9000)
		h.stillEnded("she has knocked at ssh", theirs, elsewhere)
		h.expect("what came meanwhile", waits, accepted)
		a.knock(7000, 8000, 9000)
		h.stillEnded("once more", theirs, elsewhere)
		if h.dumps != asked+1 {
			h.t.Errorf("she was pardoned %d times", h.dumps-asked)
		}
		if _, err := h.wall.Open("ssh", bob.String(), 0); err != nil {
			h.t.Error(err)
		}
		h.stillEnded("by hand", elsewhere)
	})
}

// It does not matter by which of the doors before a port they come back.
func TestSessionsThatWereEndedGoOnByAnotherDoorBeforeThePort(t *testing.T) {
	wide := door("wide", 22, 7001)
	wide.SourcePrefix.IPv4 = 24
	guarded(t, config(sshDoor(), wide), func(h *host) {
		h.connections = []connection{{tcp(22), alice}, {tcp(22), bob}}
		h.endFor("ssh", alice, 1)
		h.endFor("ssh", bob, 1)
		h.client(bob).knock(7001) // the same source as alice at that door
		h.stillEnded("by the other door")
	})
}

// A window that could not be opened clears no marks. Clearing that failed is retried.
func TestWhatCannotBePardonedIsSaidAndTriedAgain(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		hers := connection{tcp(22), alice}
		h.connections = []connection{hers}
		h.endFor("ssh", alice, 1)
		h.trail.take()
		h.failing("OpenWindows", errInjected)
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.stillEnded("no window", hers)
		h.trail.expect(h.t, []audit.Kind{audit.Refused}, "refused ssh 192.0.2.1 3/3: the kernel says no")
		h.failing("ClearMarks", errInjected)
		a.knock(7000, 8000, 9000)
		h.stillEnded("no pardon", hers)
		h.trail.expect(h.t, []audit.Kind{audit.Opened, audit.Refused},
			"refused ssh 192.0.2.1: its ended sessions stay ended: the kernel says no", "opened ssh 192.0.2.1 3/3")
		h.failing("nothing", nil)
		a.knock(7000, 8000, 9000)
		h.stillEnded("in the end")
	})
}

// A daemon finds the sessions that others have ended. A reload may give it other doors.
func TestSessionsThatWereEndedAreFoundAgain(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.connections = []connection{{tcp(22), alice}, {tcp(22), bob}}
		h.endFor("ssh", alice, 1)
		h.endFor("ssh", bob, 1)
		asked := h.dumps
		next := h.again(config(sshDoor()))
		if next.dumps != asked+1 {
			h.t.Errorf("asked %d times", next.dumps-asked)
		}
		next.client(alice).knock(7000, 8000, 9000)
		next.stillEnded("after a restart", connection{tcp(22), bob})
		if err := next.raise(config(door("other", 22, 7001))); err != nil {
			h.t.Fatal(err)
		}
		next.client(bob).knock(7001)
		next.stillEnded("after a reload")
		asked = next.dumps
		if err := next.raise(config(sshDoor())); err != nil || next.dumps != asked {
			h.t.Errorf("a reload asks when nothing is ended, or fails: %v", err)
		}
		next.failing("EndedSessions", errInjected)
		next = next.again(config(sshDoor()))
		next.trail.expect(h.t, []audit.Kind{audit.Refused}, "refused: ended sessions stay ended, even after a knock: the kernel says no")
	})
}

// The record is bounded, and does not fill up with sessions that are gone.
func TestSourcesWithEndedSessionsAreRememberedWithinBounds(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		nth := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }
		for n := range wall.MaxEnded {
			h.connections = []connection{{tcp(22), nth(n)}}
			h.endFor("ssh", nth(n), 1)
		}
		h.barred = nil // the connections have gone by themselves
		asked := h.dumps
		h.connections = []connection{{tcp(22), alice}}
		h.endFor("ssh", alice, 1)
		if h.dumps != asked+1 {
			h.t.Errorf("it was looked %d times what is left", h.dumps-asked)
		}
		h.client(alice).knock(7000, 8000, 9000)
		h.stillEnded("alice has knocked")
		if h.dumps != asked+2 {
			h.t.Errorf("asked %d times", h.dumps-asked)
		}
		h.connections = []connection{{tcp(22), bob}}
		h.endFor("ssh", bob, 1)
		if h.dumps != asked+2 {
			h.t.Error("what is gone takes up room")
		}
	})
}
