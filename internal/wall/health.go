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
	mu     sync.Mutex
	config *effective.Config // the configuration of the last examination; nil: none
	at     time.Time         // of the last examination
	done   chan struct{}     // closed when the running examination ends; nil: none runs
	report doctor.Report
}

// examine starts an examination of the host when one is due, or when other rules are in
// force. It runs beside housekeeping, which must not wait for it.
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

// examined starts an examination, unless the last one was of the rules in force and is
// less than age ago. It returns a channel that is closed when the examination ends, or
// nil if none runs.
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

// Findings returns the findings about the host. They are current, or, if an examination
// takes too long, those of the last one. The wall must be installed.
func (w *Wall) Findings() []doctor.Finding {
	if done := w.examined(time.Now(), maxFindingsAge); done != nil {
		select {
		case <-done:
		case <-time.After(examineTimeout):
		}
	}
	return w.health.known()
}

// known returns the findings of the last examination.
func (h *health) known() []doctor.Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.report.Findings
}
