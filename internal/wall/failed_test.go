package wall_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/nft"
)

// Events of failures have the mark Failed, and no others have it.
func TestWhatCouldNotBeDoneIsMarkedInTheTrail(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(h *host)
		want []string // the marked events
		code []audit.Code
	}{
		{"nothing fails", func(h *host) {
			a := h.client(alice)
			a.knock(7000, 8000, 9000)
			h.expect("her only one", a.dial(22), accepted)
			h.client(bob).knock(7000)
			h.client(bob).dial(22)
			h.reload(config(sshDoor()))
			if err := h.try(config(sshDoor()), time.Minute); err != nil {
				h.t.Fatal(err)
			}
			if err := h.wall.Confirm(); err != nil {
				h.t.Fatal(err)
			}
			h.flush("knockwall")
			h.tell(nft.Change{Tables: []string{"knockwall"}})
			time.Sleep(time.Minute)
		}, nil, nil},
		{"opening", func(h *host) {
			h.failing("OpenWindows", errInjected)
			h.client(alice).knock(7000, 8000, 9000)
		}, []string{"refused ssh 192.0.2.1 3/3: " + errInjected.Error()}, []audit.Code{audit.CodeNotOpened}},
		{"closing", func(h *host) {
			a := h.client(alice)
			a.knock(7000, 8000, 9000)
			h.failing("CloseWindow", errInjected)
			h.expect("her only one", a.dial(22), accepted)
		}, []string{"closed ssh 192.0.2.1: " + errInjected.Error()}, []audit.Code{audit.CodeNotClosed}},
		{"putting back", func(h *host) {
			h.failing("Restore", errInjected)
			h.flush("knockwall")
			go h.tell(nft.Change{Tables: []string{"knockwall"}})
			synctest.Wait()
			h.failing("nothing", nil)
			time.Sleep(time.Second)
		}, []string{"healed: the wall was changed and cannot be put back yet: " + errInjected.Error()}, []audit.Code{audit.CodeNotPutBack}},
		{"a trial", func(h *host) {
			if err := h.try(config(sshDoor()), time.Second); err != nil {
				h.t.Fatal(err)
			}
			h.failing("SeedConntrack", errInjected)
			time.Sleep(2 * time.Second)
			h.failing("nothing", nil)
			time.Sleep(5 * time.Second)
		}, []string{
			"reloaded: the former rules cannot be put back yet: " + errInjected.Error(),
			"reloaded: the new rules were not confirmed, and the former ones are back; doors: 1, windows open: 0",
		}, []audit.Code{audit.CodeNotPutBack, audit.CodeNotConfirmed}},
		{"stopping", func(h *host) {
			h.stop()
			<-h.ended
		}, nil, nil},
		{"stopping without handing over", func(h *host) {
			h.failing("Install", errInjected)
			h.stop()
			<-h.ended
		}, []string{"stopped: the wall stays: open windows admit until they end, and strangers are refused"}, []audit.Code{audit.CodeWallStands}},
		{"reading", func(h *host) {
			h.log().handler.Failed(errInjected)
			<-h.ended
			h.stop()
		}, []string{"stopped: the wall stays: open windows admit until they end, and strangers are refused"}, []audit.Code{audit.CodeWallStands}},
		{"taking down", func(h *host) {
			h.failing("Remove", errInjected)
			if _, err := h.wall.Down(context.Background()); !errors.Is(err, errInjected) {
				h.t.Errorf("Down: %v", err)
			}
			<-h.ended
			h.stop()
		}, []string{"stopped: the wall could not be taken down: " + errInjected.Error()}, []audit.Code{audit.CodeWallNotRemoved}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			guarded(t, config(limited(sshDoor(), 1)), func(h *host) {
				h.knows(config(sshDoor()))
				tt.do(h)
				synctest.Wait()
				h.trail.mu.Lock()
				h.trail.events = slices.DeleteFunc(h.trail.events, func(e audit.Event) bool { return !e.Failed })
				h.trail.mu.Unlock()
				var codes []audit.Code
				for _, e := range h.trail.past() {
					codes = append(codes, e.Code)
					if e.Priority() != audit.Error {
						h.t.Errorf("%s has the priority %d", e, e.Priority())
					}
				}
				if !slices.Equal(codes, tt.code) {
					h.t.Errorf("the codes are %q, want %q", codes, tt.code)
				}
				if diff := cmp.Diff(tt.want, h.trail.take()); diff != "" {
					h.t.Errorf("marked (-want +got):\n%s", diff)
				}
			})
		})
	}
}
