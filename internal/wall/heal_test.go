package wall_test

import (
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

// tamper changes a table in a way that its listing does not show, and reports the change.
func (k *kernel) tamper(name string) {
	k.mu.Lock()
	k.tables[name].tampered = true
	k.mu.Unlock()
}

func TestAWallThatSomebodyChangesIsPutBackWithAllWindows(t *testing.T) {
	for name, change := range map[string]func(h *host){
		"its table is deleted":    func(h *host) { h.flush("knockwall") },
		"a rule of it is changed": func(h *host) { h.tamper("knockwall") },
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(limited(sshDoor(), 2), limited(door("web", 443, 7001), 1)), func(h *host) {
				a, b := h.client(alice), h.client(bob)
				a.knock(7000, 8000, 9000)
				h.expect("alice has knocked", a.dial(22), accepted)
				a.knock(7001)
				h.expect("alice's window at web is spent", a.dial(443), accepted)
				time.Sleep(window / 3)
				b.knock(7000, 8000)
				b.knock(7001)
				theirs := h.client(carol).dial(22)
				synctest.Wait()
				h.trail.take()
				h.changes()

				change(h)
				h.tell(nft.Change{Tables: []string{"filter", "knockwall"}, By: "nft (process 4711)"})
				if diff := cmp.Diff([]string{"Restore knockwall"}, h.changes()); diff != "" {
					h.t.Errorf("changed (-want +got):\n%s", diff)
				}
				h.trail.expect(h.t, nil, "healed: the wall was changed by nft (process 4711) and is put back, windows open: 2")
				if got := h.status().Counters.Healed; got != 1 {
					h.t.Errorf("healed %d times", got)
				}
				if got, want := h.left("ssh", alice), window-window/3; got != want {
					h.t.Errorf("alice's window is open for %s, want %s", got, want)
				}
				if got := h.left("web", bob); got != window {
					h.t.Errorf("bob's window is open for %s, want %s", got, window)
				}
				if got := h.left("web", alice); got != 0 {
					h.t.Errorf("alice's spent window is open for %s", got)
				}
				h.expectBound(turn0)
				h.expect("went with the table", theirs, dropped)
				h.expect("a second connection", a.dial(22), accepted)
				h.expect("but no third one", a.dial(22), waiting)
				b.knock(9000)
				h.expect("bob's attempt has gone on", b.dial(22), accepted)
				stranger := h.client(carol).dial(22)
				time.Sleep(hold)
				h.expect("a stranger", stranger, refused)
			})
		})
	}
}

func TestAChangeToAnotherTableIsNothingToTheWall(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.tamper("knockwall") // the change was not reported
		h.tell(nft.Change{Tables: []string{"filter", "nat"}, By: "nft (process 4711)"})
		h.trail.expect(h.t, nil)
		if got := h.changes(); got != nil {
			h.t.Errorf("changed: %v", got)
		}
	})
}

func TestWhenTheAccountOfAChangeIsLostTheWallIsLookedAt(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.tell(nft.Change{})
		h.trail.expect(h.t, nil)
		if got := h.changes(); got != nil {
			h.t.Errorf("it was intact, and changed: %v", got)
		}
		for _, before := range []func(){
			func() { h.tamper("knockwall") },
			func() { h.flush("knockwall") },
			func() { h.failing("Intact", errInjected) }, // so that the state of the table is unknown
		} {
			before()
			h.tell(nft.Change{})
			if got := h.changes(); !slices.Equal(got, []string{"Restore knockwall"}) {
				h.t.Errorf("changed: %v", got)
			}
			h.trail.expect(h.t, nil, "healed: the wall was changed by somebody and is put back, windows open: 0")
		}
	})
}

func TestAWindowThatHasNoTableIsOpenedInANewOne(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		b.knock(7000, 8000, 9000)
		synctest.Wait()
		h.trail.take()
		h.flush("knockwall")
		a.knock(7000, 8000) // no rule logs them
		h.knocked(alice, 7000, 8000, 9000)
		synctest.Wait()
		if got := h.changes(); !slices.Equal(got[len(got)-2:], []string{"OpenWindows ssh 192.0.2.1", "Restore knockwall"}) {
			h.t.Errorf("changed: %v", got)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Healed, audit.Opened, audit.Refused},
			"healed: the wall was changed by somebody and is put back, windows open: 2", "opened ssh 192.0.2.1 3/3")
		h.expect("alice has a window", a.dial(22), accepted)
		h.expect("bob has his", b.dial(22), accepted)
		h.expect("carol has none", h.client(carol).dial(22), waiting)
		if d := h.status().Doors[0].Counters; d.Opened != 2 || d.Accepted != 2 {
			h.t.Errorf("counters: %+v", d)
		}
	})
}

// knocked passes knocks to the log handler. They may have been logged before the table
// was deleted.
func (h *host) knocked(addr netip.Addr, ports ...uint16) {
	h.kernel.mu.Lock()
	defer h.kernel.mu.Unlock()
	c := h.client(addr)
	for _, port := range ports {
		c.connections++
		p := opener(addr, tcp(port), uint32(c.connections))
		h.notify(7100, "ssh", &journey{packet: p})
	}
}

func TestAWallThatIsIntactIsNotPutBackBecauseAWindowFails(t *testing.T) {
	for name, intact := range map[string]func(h *host) func(call string) error{
		"it is intact": func(*host) func(string) error { return func(string) error { return nil } },
		"nobody knows": func(*host) func(string) error { return func(string) error { return errInjected } },
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				ask := intact(h)
				h.kernel.mu.Lock()
				h.intercept = func(call string) error {
					switch {
					case strings.HasPrefix(call, "OpenWindows"):
						return unix.ENOMEM
					case strings.HasPrefix(call, "Intact"):
						return ask(call)
					}
					return nil
				}
				h.kernel.mu.Unlock()
				h.client(alice).knock(7000, 8000, 9000)
				synctest.Wait()
				if got := h.changes(); !slices.Equal(got, []string{"OpenWindows ssh 192.0.2.1"}) {
					h.t.Errorf("changed: %v", got)
				}
				if got := h.status(); len(got.Windows) != 0 || got.Counters.Healed != 0 {
					h.t.Errorf("status: %+v", got)
				}
			})
		})
	}
}

func TestAWallThatCannotBePutBackEndsRun(t *testing.T) {
	for name, change := range map[string]func(h *host){
		"when a change is told of": func(h *host) {
			h.tell(nft.Change{Tables: []string{"knockwall"}})
		},
		"when a window is to be opened": func(h *host) { h.knocked(alice, 7000, 8000, 9000) },
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				h.failing("Restore", errInjected)
				h.flush("knockwall")
				change(h)
				if err := <-h.ended; !errors.Is(err, errInjected) {
					h.t.Errorf("Run: %v", err)
				}
				h.stop()
				h.expectBound(nil)
				h.trail.expect(h.t, []audit.Kind{audit.Healed, audit.Opened},
					"healed: the wall was changed and cannot be put back yet: "+errInjected.Error())
			})
		})
	}
}

func TestAWatchThatFailsEndsRunAndTheWallStays(t *testing.T) {
	c := config(sshDoor())
	c.Wall.OnStop = ruleset.Remove
	guarded(t, c, func(h *host) {
		h.watchers[0].failed(errInjected)
		if err := <-h.ended; !errors.Is(err, errInjected) {
			h.t.Errorf("Run: %v", err)
		}
		h.stop()
		if got := h.stands(); len(got) != 1 || len(h.watchers) != 0 {
			h.t.Errorf("stands: %v, %d watch", got, len(h.watchers))
		}
	})
}

func TestAWallThatWasLoweredIsNotPutBack(t *testing.T) {
	for name, change := range map[string]func(h *host){
		"when a change is told of": func(h *host) {
			h.tell(nft.Change{Tables: []string{"knockwall"}})
			h.tell(nft.Change{})
		},
		"when a knock is heard that was unread": func(h *host) { h.knocked(alice, 7000, 8000, 9000) },
		"when a window is opened by hand":       func(h *host) { _, _ = h.wall.Open("ssh", "192.0.2.1", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			guarded(t, config(sshDoor()), func(h *host) {
				log := h.log()
				log.hold()
				h.client(bob).knock(7000) // so that the sockets are drained for a while
				h.stop()
				synctest.Wait()
				h.flush("knockwall")
				h.changes()
				change(h)
				log.resume()
				if err := <-h.ended; err != nil {
					h.t.Errorf("Run: %v", err)
				}
				h.trail.expect(h.t, []audit.Kind{audit.Healed, audit.Opened})
				if got := h.changes(); slices.Contains(got, "Restore knockwall") || len(h.stands()) != 0 {
					h.t.Errorf("changed: %v, stands: %v", got, h.stands())
				}
			})
		})
	}
}

func TestAWallThatWasTakenDownIsNotPutUpByAWindowThatIsOpenedByHand(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		if _, err := h.wall.Down(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
		h.stop()
		if _, err := h.wall.Open("ssh", "192.0.2.1", 0); err == nil {
			h.t.Error("a window is open in a wall that does not stand")
		}
		if got := h.stands(); len(got) != 0 {
			h.t.Errorf("stands: %v", got)
		}
		if err := h.raise(config(sshDoor())); !errors.Is(err, wall.ErrStopping) {
			h.t.Errorf("Apply: %v", err)
		}
	})
}

func TestOnlyAdmittedConnectionsAreAddedToConntrackWhenTheWallIsPutBack(t *testing.T) {
	prefix := netip.MustParsePrefix
	ssh, web := sshDoor(), limited(door("web", 443, 7001), 1)
	ssh.Trusted = []netip.Prefix{prefix("198.51.100.0/24")}
	web.SourcePrefix.IPv4 = 24
	c := config(ssh, web)
	c.Wall.Trusted = []netip.Prefix{prefix("203.0.113.128/25")}
	guarded(t, c, func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		a.knock(7001)
		a.dial(443) // her only one
		synctest.Wait()
		h.flush("knockwall")
		h.tell(nft.Change{Tables: []string{"knockwall"}})
		for _, tt := range []struct {
			port uint16
			addr string
			want bool
		}{
			{22, "192.0.2.1", true},
			{22, "192.0.2.2", false},
			{22, "198.51.100.9", true},
			{22, "203.0.113.200", true},
			{443, "192.0.2.1", true},
			{443, "192.0.2.2", true}, // of the same source as alice
			{443, "198.51.100.9", false},
			{443, "203.0.113.200", true},
			{443, "203.0.113.1", false},
			{80, "192.0.2.1", false},
			{7000, "192.0.2.1", false},
		} {
			if got := h.wanted(session(tcp(tt.port), netip.MustParseAddr(tt.addr))); got != tt.want {
				h.t.Errorf("a connection of %s to port %d is added to conntrack: %t", tt.addr, tt.port, got)
			}
		}
		time.Sleep(window)
		synctest.Wait()
		h.tell(nft.Change{Tables: []string{"knockwall"}})
		if h.wanted(session(tcp(22), alice)) {
			h.t.Error("a connection whose window is over is added to conntrack")
		}
	})
}
