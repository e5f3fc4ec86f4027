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

// Findings are at most maxFindingsAge old when they are asked for, unless an examination
// takes longer than examineTimeout.
const (
	maxFindingsAge = 2 * time.Second
	examineTimeout = time.Second
)

// health holds the findings of package doctor about this host.
type health struct {
	examine func(c *effective.Config) doctor.Report // nil: the host is not examined
	found   func(c *effective.Config, before, now []doctor.Finding)
	config  func() *effective.Config // the configuration in force

	mu     sync.Mutex
	of     *effective.Config // the configuration of the last examination; nil: none
	at     time.Time         // of the last examination
	done   chan struct{}     // closed when the running examination ends; nil: none runs
	report doctor.Report
}

// check starts an examination of the host when one is due, or when other rules are in
// force. It runs beside housekeeping, which must not wait for it.
func (h *health) check(now time.Time) (next time.Time, ok bool) {
	if h.examine == nil {
		return time.Time{}, false
	}
	if h.examined(now, examineInterval) != nil {
		return now.Add(examineInterval), true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at.Add(examineInterval), true
}

// examined starts an examination, unless the last one was of the rules in force and is
// less than age ago. It returns a channel that is closed when the examination ends, or
// nil if none runs.
func (h *health) examined(now time.Time, age time.Duration) <-chan struct{} {
	c := h.config()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done != nil || h.examine == nil || h.of == c && now.Sub(h.at) < age {
		return h.done
	}
	done := make(chan struct{})
	h.done = done
	go func() {
		report := h.examine(c)
		h.mu.Lock()
		before, again := h.report.Findings, h.of != nil
		h.of, h.at, h.done, h.report = c, time.Now(), nil, report
		h.mu.Unlock()
		close(done)
		if again && h.found != nil && !slices.Equal(before, report.Findings) {
			h.found(c, before, report.Findings)
		}
	}()
	return done
}

// findings returns the findings about the host, and when it was examined. They are current,
// or, if an examination takes too long, those of the last one.
func (h *health) findings() (found []doctor.Finding, at time.Time) {
	if done := h.examined(time.Now(), maxFindingsAge); done != nil {
		select {
		case <-done:
		case <-time.After(examineTimeout):
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.report.Findings, h.at
}

// known returns the findings of the last examination.
func (h *health) known() []doctor.Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.report.Findings
}
