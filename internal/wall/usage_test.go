package wall_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
)

// A nearly full conntrack table is reported when that begins and ends. The metrics show
// it, and explain names it where no knocks were received.
func TestANearlyFullConntrackHasAnEvent(t *testing.T) {
	guarded(t, config(sshDoor()), func(h *host) {
		connections := func(known int) {
			h.kernel.mu.Lock()
			h.kernel.known, h.kernel.room = known, 1000
			h.kernel.mu.Unlock()
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		history := audit.NewHistory()
		explained := func() string {
			all, err := h.wall.Explain("192.0.2.77", history.Past)
			if err != nil || len(all) == 0 {
				h.t.Fatalf("explain: %v, %v", all, err)
			}
			return all[0].Sentence
		}
		connections(899)
		h.trail.expect(h.t, nil)
		if s := explained(); strings.Contains(s, "conntrack") {
			h.t.Errorf("with room in the table it is said: %s", s)
		}
		for range 2 {
			connections(900)
			h.trail.expect(h.t, nil, "overloaded: conntrack's table is nearly full, 900 of 1000 connections: when it is full, "+
				"the kernel drops new connections of this host, and knocks. Increase net.netfilter.nf_conntrack_max")
			if s := explained(); !strings.Contains(s, "no knock from it was received") || !strings.Contains(s, "nearly full, 900 of 1000") {
				h.t.Errorf("it is not said that the table is nearly full: %s", s)
			}
			if got := h.gather(); got["conntrack_entries"] != 900 || got["conntrack_limit"] != 1000 {
				h.t.Errorf("the metrics have %v of %v", got["conntrack_entries"], got["conntrack_limit"])
			}
			connections(1000)
			connections(850)
			h.trail.expect(h.t, nil)
			connections(799)
			h.trail.expect(h.t, nil, "overloaded: conntrack's table has room again, 799 of 1000 connections")
		}
	})
}
