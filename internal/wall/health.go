package wall

import (
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/ruleset"
)

// examineInterval is how often the host is examined.
const examineInterval = 30 * time.Second

// health is what is known of the host that the wall stands on, by package doctor.
type health struct {
	mu     sync.Mutex
	config *ruleset.Config // that was examined last; nil: none
	at     time.Time       // when
	busy   bool            // it is being examined
	report doctor.Report
}

// examine examines the host when it is time, or other rules are in force, beside the
// keeper, which must not wait for it.
func (w *Wall) examine(now time.Time) (next time.Time, ok bool) {
	if w.edges.Examine == nil {
		return time.Time{}, false
	}
	h := &w.health
	c := w.current().config
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy {
		return now.Add(examineInterval), true
	}
	if next = h.at.Add(examineInterval); next.After(now) && h.config == c {
		return next, true
	}
	h.busy = true
	go func() {
		report := w.edges.Examine(c)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.config, h.at, h.busy, h.report = c, time.Now(), false, report
	}()
	return now.Add(examineInterval), true
}

// findings are those of the last examination.
func (h *health) findings() []doctor.Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]doctor.Finding{}, h.report.Findings...)
}
