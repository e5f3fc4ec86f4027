package wall

import (
	"fmt"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
)

// stocks warns of doors that have few one-time sequences left, or no usable sequence.
type stocks struct {
	trail *audit.Summer

	mu         sync.Mutex
	low        map[string]int // by door: one-time sequences left at the last warning
	unresolved error          // the last reported error of doors without a usable sequence
}

// warnUnresolved records once why some doors have no usable sequence; nil: all have one.
func (s *stocks) warnUnresolved(err error) {
	s.mu.Lock()
	isNew := err != nil && (s.unresolved == nil || err.Error() != s.unresolved.Error())
	s.unresolved = err
	s.mu.Unlock()
	if isNew {
		s.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Low, Code: audit.CodeNoSequence, Failed: true, Reason: err.Error()})
	}
}

// warnLow warns of doors with few one-time sequences left, once for each number left.
func (s *stocks) warnLow(c *effective.Config) {
	for _, d := range c.Doors {
		stock := d.Stock()
		if !stock.IsLow() || !s.isNews(d.Name, stock.Left) {
			continue
		}
		s.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Low, Door: d.Name, Code: audit.CodeFewLeft, Reason: fmt.Sprintf(
			"sequences left in %s: %d", stock.Of, stock.Left)})
	}
}

// isNews records how many sequences a door has left, and reports whether the last warning
// said otherwise.
func (s *stocks) isNews(door string, left int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	reported, known := s.low[door]
	s.low[door] = left
	return !known || reported != left
}
