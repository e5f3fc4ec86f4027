package wall_test

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

func TestAWindowThatIsOpenedByHandAdmitsPacketsThatWait(t *testing.T) {
	wide := door("web", 443, 7001)
	wide.SourcePrefix = packet.SourcePrefix{IPv4: 24, IPv6: 64}
	for _, tt := range []struct {
		door, source string
		length, want time.Duration
		addr         string // a client that the window admits
		port         uint16
	}{
		{"ssh", "192.0.2.1", 0, window, "192.0.2.1", 22},
		{"ssh", "192.0.2.1/32", time.Hour, time.Hour, "192.0.2.1", 22},
		{"ssh", "::ffff:192.0.2.1", ruleset.MinWindow, ruleset.MinWindow, "192.0.2.1", 22},
		{"ssh", "2001:db8::1", ruleset.MaxWindow, ruleset.MaxWindow, "2001:db8::1", 22},
		{"web", "192.0.2.9", 0, window, "192.0.2.1", 443},
		{"web", "192.0.2.0/24", 0, window, "192.0.2.1", 443},
		{"web", "2001:db8::/64", 0, window, "2001:db8::abcd", 443},
	} {
		t.Run(tt.door+" for "+tt.source, func(t *testing.T) {
			guarded(t, config(sshDoor(), wide), func(h *host) {
				addr := netip.MustParseAddr(tt.addr)
				a := h.client(addr)
				held, theirs := a.dial(tt.port), h.client(netip.MustParseAddr("198.51.100.1")).dial(tt.port)
				h.expect("she has not knocked", held, waiting)
				got, err := h.wall.Open(tt.door, tt.source, tt.length)
				if err != nil {
					h.t.Fatal(err)
				}
				prefix := packet.SourcePrefix{IPv4: 32, IPv6: 128}
				if tt.door == "web" {
					prefix = wide.SourcePrefix
				}
				want := wall.WindowStatus{Door: tt.door, Source: prefix.Of(addr), LeftSeconds: tt.want.Seconds()}
				if diff := cmp.Diff(want, got, compareSources); diff != "" {
					h.t.Errorf("Open (-want +got):\n%s", diff)
				}
				if left := h.left(tt.door, want.Source.Addr()); left != tt.want {
					h.t.Errorf("the kernel has it open for %s", left)
				}
				h.expect("her window is open", held, accepted)
				h.expect("somebody else's is not", theirs, waiting)
				h.trail.expect(h.t, nil,
					"opened "+tt.door+" "+want.Source.String()+": by hand", "accepted "+tt.door+" "+want.Source.String())
				if diff := cmp.Diff([]wall.WindowStatus{{
					Door: tt.door, Source: want.Source, LeftSeconds: tt.want.Seconds(), Connections: 1,
				}}, h.wall.Windows(wall.WindowQuery{}), compareSources); diff != "" {
					h.t.Errorf("windows (-want +got):\n%s", diff)
				}
				time.Sleep(tt.want)
				h.expect("it is over", a.dial(tt.port), waiting)
			})
		})
	}
}

func TestAWindowThatIsOpenIsRefreshedByHandAndMayBeShorterThen(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 1)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.trail.take()
		if _, err := h.wall.Open("ssh", "192.0.2.1", time.Second); err != nil {
			h.t.Fatal(err)
		}
		h.trail.expect(h.t, nil, "refreshed ssh 192.0.2.1: by hand")
		h.expect("it is open", a.dial(22), accepted)
		if _, err := h.wall.Open("ssh", "192.0.2.1", time.Second); err != nil {
			h.t.Fatal(err)
		}
		h.expect("it was spent, and is open anew", a.dial(22), accepted)
		h.trail.expect(h.t, []audit.Kind{audit.Opened}, "opened ssh 192.0.2.1: by hand")
	})
}

func TestWhatIsWrongWithARequestByHandIsSaid(t *testing.T) {
	wide := door("web", 443, 7001)
	wide.SourcePrefix.IPv4 = 24
	for _, tt := range []struct {
		name, door, source string
		length             time.Duration
		want               error
		says               string
	}{
		{"no such door", "shh", "192.0.2.1", 0, wall.ErrNoDoor, `there is no door "shh"; there is "ssh", "web"`},
		{"no address", "ssh", "alice", 0, wall.ErrBadSource, `"alice" is not an IP address`},
		{"nothing", "ssh", "", 0, wall.ErrBadSource, `"" is not an IP address`},
		{"an address with a zone", "ssh", "2001:db8::1%eth0", 0, wall.ErrBadSource, "only link-local addresses have a zone"},
		{"a link-local address without one", "ssh", "fe80::1", 0, wall.ErrBadSource, "name the interface"},
		{"an address with a port", "ssh", "192.0.2.1:22", 0, wall.ErrBadSource, "is not an IP address"},
		{"a prefix that is too long", "ssh", "192.0.2.1/33", 0, wall.ErrBadSource, "is not an IP address"},
		{"nobody", "ssh", "0.0.0.0", 0, wall.ErrBadSource, "cannot be a source"},
		{"this host", "ssh", "127.0.0.1", 0, wall.ErrBadSource, "cannot be a source"},
		{"this host", "ssh", "::1", 0, wall.ErrBadSource, "cannot be a source"},
		{"many", "ssh", "224.0.0.1", 0, wall.ErrBadSource, "cannot be a source"},
		{"a prefix that is shorter than a source", "ssh", "192.0.2.0/24", 0, wall.ErrBadSource, "192.0.2.0"},
		{"a prefix that is longer than a source", "web", "192.0.2.1/32", 0, wall.ErrBadSource, "the source of these addresses is 192.0.2.0/24"},
		{"a prefix with more bits", "web", "192.0.2.1/24", 0, wall.ErrBadSource, "the source of these addresses is 192.0.2.0/24"},
		{"nobody, as a prefix", "ssh", "0.0.0.0/32", 0, wall.ErrBadSource, "cannot be a source"},
		{"many, as a prefix", "web", "224.0.0.0/24", 0, wall.ErrBadSource, "cannot be a source"},
		{"this host, as a prefix", "web", "127.0.0.0/24", 0, wall.ErrBadSource, "cannot be a source"},
		{"everybody", "ssh", "0.0.0.0/0", 0, wall.ErrBadSource, "0.0.0.0 cannot be a source"},
		{"too short", "ssh", "192.0.2.1", ruleset.MinWindow - 1, wall.ErrBadWindow, "100ms to 24h"},
		{"negative", "ssh", "192.0.2.1", -time.Second, wall.ErrBadWindow, "-1s"},
		{"too long", "ssh", "192.0.2.1", ruleset.MaxWindow + 1, wall.ErrBadWindow, "24h"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			guarded(t, config(sshDoor(), wide), func(h *host) {
				check := func(what string, err error) {
					if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
						h.t.Errorf("%s: %v", what, err)
					}
				}
				_, err := h.wall.Open(tt.door, tt.source, tt.length)
				check("Open", err)
				if tt.length == 0 {
					_, err = h.wall.Close(tt.door, tt.source, true)
					check("Close", err)
				}
				h.trail.expect(h.t, nil)
				if got := h.changes(); got != nil || h.ending != nil {
					h.t.Errorf("changed: %v", got)
				}
			})
		})
	}
}

func TestAWallThatDoesNotStandHasNothingToOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		for range 2 {
			if _, err := h.wall.Open("ssh", "192.0.2.1", 0); err == nil {
				t.Error("Open")
			}
			if _, err := h.wall.Close("ssh", "192.0.2.1", false); err == nil {
				t.Error("Close")
			}
			if _, err := h.wall.Status(wall.WindowQuery{}); err == nil {
				t.Error("Status")
			}
			if got := h.wall.Windows(wall.WindowQuery{}); len(got) != 0 {
				t.Errorf("windows: %v", got)
			}
			h.failing("Install", errInjected)
			if err := h.raise(config(sshDoor())); err == nil {
				t.Error("Raise")
			}
		}
	})
}

// During the first Apply, requests are answered or wait.
func TestAWallThatIsBeingPutUpMayBeAskedAnything(t *testing.T) {
	for _, fails := range []error{nil, errInjected} {
		t.Run(fmt.Sprint("which ends with ", fails), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				c := config(sshDoor())
				h.found(c, 0, nft.Window{Door: "ssh", Source: single(alice), Left: window})
				answers := make(chan error, 8)
				ask := func(what func() error) {
					go func() { answers <- what() }()
				}
				h.answering("Install", func() error {
					h.failing("nothing", nil)
					_, _ = h.statusIfAny()
					ask(func() error { _, err := h.wall.Open("ssh", "192.0.2.2", 0); return err })
					ask(func() error { _, err := h.wall.Close("ssh", "192.0.2.1", false); return err })
					for range 1000 { // until both of them wait
						runtime.Gosched()
					}
					return fails
				})
				if err := h.raise(c); !errors.Is(err, fails) {
					t.Fatalf("Apply: %v", err)
				}
				for range 2 {
					if err := <-answers; fails == nil && err != nil {
						t.Error(err)
					}
				}
				if fails != nil {
					h.reload(config(sshDoor()))
				}
				h.run()
			})
		})
	}
}

// statusIfAny returns the status of a wall that may not be installed.
func (h *host) statusIfAny() (s wall.Status, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.t.Errorf("Status panics: %v", p)
		}
	}()
	return h.wall.Status(wall.WindowQuery{})
}

func TestAWindowIsClosedByHand(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		a.knock(7000, 8000, 9000)
		b.knock(7000, 8000, 9000)
		h.expect("alice has a window", a.dial(22), accepted)
		h.trail.take()
		got, err := h.wall.Close("ssh", "192.0.2.1/32", false)
		want := wall.Closing{Door: "ssh", Source: single(alice), Closed: true}
		if diff := cmp.Diff(want, got, compareSources); err != nil || diff != "" {
			h.t.Errorf("Close: %v, (-want +got):\n%s", err, diff)
		}
		h.trail.expect(h.t, nil, "closed ssh 192.0.2.1: by hand")
		h.expect("her window is closed", a.dial(22), waiting)
		h.expect("bob's is not", b.dial(22), accepted)
		if s := h.status(); len(s.Windows) != 1 || s.Doors[0].Counters.Closed != 1 {
			h.t.Errorf("status: %+v", s)
		}
		if h.ending != nil {
			h.t.Error("connections were ended")
		}
		_, err = h.wall.Close("ssh", "192.0.2.1", false)
		if !errors.Is(err, wall.ErrNoWindow) || err.Error() != "the door ssh is not open for 192.0.2.1" {
			h.t.Errorf("Close, once more: %v", err)
		}
		time.Sleep(2 * window)
		synctest.Wait()
		h.trail.expect(h.t, []audit.Kind{audit.Expired, audit.Closed}, "expired ssh 192.0.2.2")
		a.knock(7000, 8000, 9000)
		h.expect("she has knocked again", a.dial(22), accepted)
	})
}

func TestASpentWindowIsNotThereToBeClosed(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 1)), func(h *host) {
		h.losing = true
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		j := a.dial(22)
		h.expect("her only connection", j, accepted)
		h.trail.take()
		if _, err := h.wall.Close("ssh", "192.0.2.1", false); !errors.Is(err, wall.ErrNoWindow) {
			h.t.Errorf("Close: %v", err)
		}
		time.Sleep(retransmitted)
		h.expect("its SYN again", h.send(j.packet), accepted)
		if got := h.status().Doors[0].Counters.Closed; got != 1 {
			h.t.Errorf("closed %d times", got)
		}
		h.trail.expect(h.t, nil)
		if _, err := h.wall.Close("ssh", "192.0.2.1", true); err != nil {
			h.t.Errorf("Close with sessions: %v", err)
		}
		time.Sleep(retransmitted)
		h.expect("its SYN again, after it was ended", h.send(j.packet), waiting)
	})
}

func TestAWindowIsClosedOnceIfItIsSpentAndClosedByHandAtOnce(t *testing.T) {
	guarded(t, config(limited(sshDoor(), 1)), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.trail.take()
		var only *journey
		h.once("CloseWindow", func() {
			only = a.dial(22)
			<-only.done // now, or in a moment, its handler waits to close the window
		})
		if _, err := h.wall.Close("ssh", "192.0.2.1", false); err != nil {
			h.t.Errorf("Close: %v", err)
		}
		h.expect("her only connection", only, accepted)
		if got := h.status().Doors[0].Counters.Closed; got != 1 {
			h.t.Errorf("closed %d times", got)
		}
		if got := h.trail.take(audit.Closed); len(got) != 1 {
			h.t.Errorf("closed: %v", got)
		}
	})
}

func TestAWindowThatIsClosedByHandEndsItsConnectionsIfThatIsWanted(t *testing.T) {
	wide := door("web", 443, 7001)
	wide.SourcePrefix.IPv4 = 24
	guarded(t, config(sshDoor(), wide), func(h *host) {
		a := h.client(alice)
		a.knock(7001)
		synctest.Wait()
		elsewhere := netip.MustParseAddr("198.51.100.1")
		h.connections = []connection{{tcp(443), alice}, {tcp(443), bob}, {tcp(443), elsewhere}, {tcp(22), alice}}
		got, err := h.wall.Close("web", "192.0.2.1", true)
		want := wall.Closing{Door: "web", Source: wide.SourcePrefix.Of(alice), Closed: true, Ended: 2}
		if diff := cmp.Diff(want, got, compareSources); err != nil || diff != "" {
			h.t.Errorf("Close: %v, (-want +got):\n%s", err, diff)
		}
		left := []connection{{tcp(443), elsewhere}, {tcp(22), alice}}
		if diff := cmp.Diff(left, h.connections, cmp.AllowUnexported(connection{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			h.t.Errorf("connections (-want +got):\n%s", diff)
		}
		got, err = h.wall.Close("ssh", "192.0.2.1", true)
		want = wall.Closing{Door: "ssh", Source: single(alice), Ended: 1}
		if diff := cmp.Diff(want, got, compareSources); err != nil || diff != "" {
			h.t.Errorf("Close where no window is open: %v, (-want +got):\n%s", err, diff)
		}
		h.failing("EndSessions", errInjected)
		if _, err := h.wall.Close("ssh", "192.0.2.1", true); !errors.Is(err, errInjected) {
			h.t.Errorf("Close: %v", err)
		}
	})
}

func TestWhatTheKernelRefusesByHandIsAnError(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		h.failing("OpenWindows", errInjected)
		if _, err := h.wall.Open("ssh", "192.0.2.1", 0); !errors.Is(err, errInjected) {
			h.t.Errorf("Open: %v", err)
		}
		h.client(bob).knock(7000, 8000, 9000)
		h.failing("nothing", nil)
		if _, err := h.wall.Open("ssh", "192.0.2.2", 0); err != nil {
			h.t.Fatal(err)
		}
		h.failing("CloseWindow", errInjected)
		if _, err := h.wall.Close("ssh", "192.0.2.2", true); !errors.Is(err, errInjected) || h.ending != nil {
			h.t.Errorf("Close: %v", err)
		}
		if got := h.status().Windows; len(got) != 1 {
			h.t.Errorf("windows: %+v", got)
		}
	})
}

// A window can be closed by the source with which it is shown.
func TestAWindowOfAPrefixOfZeroesIsClosedByHand(t *testing.T) {
	wide := door("web", 443, 7001)
	wide.SourcePrefix = packet.SourcePrefix{IPv4: 24, IPv6: 64}
	guarded(t, config(wide), func(h *host) {
		for _, address := range []string{"0.0.0.7", "::7"} {
			opened, err := h.wall.Open("web", address, 0)
			if err != nil {
				t.Fatal(err)
			}
			if c, err := h.wall.Close("web", opened.Source.String(), false); err != nil || !c.Closed {
				t.Errorf("%s: %+v, %v", opened.Source, c, err)
			}
		}
	})
}
