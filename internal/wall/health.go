package wall

import (
	"slices"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
)

// examineInterval is how often the host is examined.
const examineInterval = 30 * time.Second

// What is told of the host is no older than freshFor, unless to find it out takes longer
// than examinePatience.
const (
	maxFindingsAge = 2 * time.Second
	examineTimeout = time.Second
)

// health is what is known of the host that the wall stands on, by package doctor.
type health struct {
	mu     sync.Mutex
	config *effective.Config // that was examined last; nil: none
	at     time.Time         // when
	done   chan struct{}     // closed when the examination under way is over; nil: none is
	report doctor.Report
}

// examine examines the host when it is time, or other rules are in force, beside the
// keeper, which must not wait for it.
func (w *Wall) examine(now time.Time) (next time.Time, ok bool) {
	if w.edges.Examine == nil {
		return time.Time{}, false
	}
	if w.examined(now, examineInterval) != nil {
		return now.Add(examineInterval), true
	}
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	return w.health.at.Add(examineInterval), true
}

// examined begins to examine the host, unless what is known is of these rules and no
// older than that. It returns what is closed when it is over, and nil if it is.
func (w *Wall) examined(now time.Time, age time.Duration) <-chan struct{} {
	h := &w.health
	c := w.current().config
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done != nil || w.edges.Examine == nil || h.config == c && now.Sub(h.at) < age {
		return h.done
	}
	done := make(chan struct{})
	h.done = done
	go func() {
		report := w.edges.Examine(c)
		h.mu.Lock()
		before, again := h.report.Findings, h.config != nil
		h.config, h.at, h.done, h.report = c, time.Now(), nil, report
		h.mu.Unlock()
		close(done)
		if again && w.edges.Found != nil && !slices.Equal(before, report.Findings) {
			w.edges.Found(c, before, report.Findings)
		}
	}()
	return done
}

// Findings are those of the host as it is now, or, where that takes too long to find out,
// as it was before. A wall stands.
func (w *Wall) Findings() []doctor.Finding {
	if done := w.examined(time.Now(), maxFindingsAge); done != nil {
		select {
		case <-done:
		case <-time.After(examineTimeout):
		}
	}
	return w.health.known()
}

// known are the findings of the last examination.
func (h *health) known() []doctor.Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.report.Findings
}
