package wall_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/build"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/wall"
)

// members returns what a companion tells that hears these members.
func members(all ...wall.Member) wall.Companion {
	return wall.Companion{Group: "prod", Name: "a", Version: build.Version(), Connected: true, Count: len(all), Members: all, Sent: 5, Received: 7, Lost: 2}
}

func number(f float64) *float64 { return &f }

// What a companion tells is in the status and in the metrics, and nothing is known of it any
// more when the companion has gone.
func TestTheStatusHasWhatACompanionTells(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		if s := h.status().Sharing; s == nil || s.Group != "prod" || s.Companion != nil {
			t.Errorf("before a companion tells: %+v", s)
		}
		if got := h.gather(); got["share_companion"] != 0 {
			t.Errorf("before a companion tells: %v", got)
		}
		if err := h.wall.TellSharing(members(wall.Member{Name: "b", LagSeconds: number(0.004)}, wall.Member{Name: "c", LagSeconds: number(0.001)}, wall.Member{Name: "d"})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		s := h.status().Sharing
		if s.Companion == nil || s.AgeSeconds != 9 || len(s.Companion.Members) != 3 || *s.Companion.Members[0].LagSeconds != 0.004 {
			t.Errorf("what was told: %+v", s)
		}
		if s.MaxWindows != 2*65536 { // one door is shared, of each IP version
			t.Errorf("the shared doors can have %d windows", s.MaxWindows)
		}
		got := h.gather()
		for name, want := range map[string]float64{"share_companion": 1, "share_connected": 1, "share_members": 3, "share_lag_seconds": 0.004,
			"share_messages_total sent": 5, "share_messages_total received": 7, "share_lost_total": 2} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
		time.Sleep(2 * time.Second)
		if s := h.status().Sharing; s.Companion != nil {
			t.Errorf("eleven seconds later: %+v", s)
		}
		for name := range h.gather() {
			if strings.HasPrefix(name, "share_") && name != "share_companion" {
				t.Errorf("the metric %s of what is unknown", name)
			}
		}
		h.reload(config(sshDoor()))
		if s := h.status().Sharing; s != nil {
			t.Errorf("without a share block: %+v", s)
		}
	})
}

// Whatever keeps a host from sharing is a finding.
func TestFindingsAboutOtherHosts(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		found := func() (all []string) {
			t.Helper()
			for _, f := range h.status().Findings {
				if f.Check == wall.SharingCheck {
					all = append(all, f.Problem)
				}
				if f.Severity != doctor.Warning || f.Cure == "" {
					t.Errorf("%+v", f)
				}
			}
			return all
		}
		if got := found(); len(got) != 1 || !strings.Contains(got[0], "No companion is connected") {
			t.Errorf("without a companion: %q", got)
		}
		good := wall.Member{Name: "b", Version: build.Version(), ClockAheadSeconds: number(0.1)}
		for name, tt := range map[string]struct {
			change func(c *wall.Companion)
			says   []string
		}{
			"good":         {func(*wall.Companion) {}, nil},
			"unknown":      {func(c *wall.Companion) { c.Members[0] = wall.Member{Name: "b"} }, nil},
			"no server":    {func(c *wall.Companion) { c.Connected = false }, []string{"connected with no NATS server"}},
			"no member":    {func(c *wall.Companion) { c.Count, c.Members = 0, nil }, []string{"hears no other host of the group prod"}},
			"clock behind": {func(c *wall.Companion) { c.Members[0].ClockAheadSeconds = number(-6) }, []string{"the clock of b differ"}},
			"version":      {func(c *wall.Companion) { c.Members[0].Version = "v9" }, []string{"b and this host have different versions"}},
			"its version":  {func(c *wall.Companion) { c.Version, c.Members[0].Version = "v9", "v9" }, []string{"The companion and the daemon have different versions"}},
			"other group":  {func(c *wall.Companion) { c.Group = "test" }, []string{"It is another one now"}},
			"namesake":     {func(c *wall.Companion) { c.Namesake = true }, []string{"calls itself a in the group, too"}},
			"many clocks": {func(c *wall.Companion) {
				c.Members = nil
				for _, name := range []string{"b", "c", "d", "e", "f"} {
					c.Members = append(c.Members, wall.Member{Name: name, ClockAheadSeconds: number(10)})
				}
				c.Count = 5
			}, []string{"the clock of b, c, d and 2 others differ"}},
		} {
			c := members(good)
			tt.change(&c)
			if err := h.wall.TellSharing(c); err != nil {
				t.Fatal(err)
			}
			if got := found(); !slices.EqualFunc(got, tt.says, strings.Contains) {
				t.Errorf("%s: %q, want %q", name, got, tt.says)
			}
		}
	})
}

func TestACompanionCannotTellEverything(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		for name, change := range map[string]func(c *wall.Companion){
			"group":     func(c *wall.Companion) { c.Group = "" },
			"name":      func(c *wall.Companion) { c.Name = "a\x1b[31m" },
			"version":   func(c *wall.Companion) { c.Version = strings.Repeat("v", 129) },
			"member":    func(c *wall.Companion) { c.Members[0].Name = strings.Repeat("b", 64) },
			"its":       func(c *wall.Companion) { c.Members[0].Version = "a\nb" },
			"lag":       func(c *wall.Companion) { c.Members[0].LagSeconds = number(-1) },
			"heard":     func(c *wall.Companion) { c.Members[0].HeardSeconds = math.MaxFloat64 },
			"clock":     func(c *wall.Companion) { c.Members[0].ClockAheadSeconds = number(-math.MaxFloat64) },
			"too many":  func(c *wall.Companion) { c.Count, c.Members = 2000, make([]wall.Member, wall.MaxMembers+1) },
			"too few":   func(c *wall.Companion) { c.Count = 0 },
			"too few 2": func(c *wall.Companion) { c.Count = -1; c.Members = nil },
		} {
			c := members(wall.Member{Name: "b"})
			change(&c)
			if err := h.wall.TellSharing(c); !errors.Is(err, wall.ErrBadSharing) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if h.status().Sharing.Companion != nil {
			t.Error("it is in the status")
		}
	})
}
