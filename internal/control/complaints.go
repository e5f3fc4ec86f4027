package control

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// complaintsEvery is how often the HTTP server's complaints are told: it has one a
// second while the process has no file descriptor left, and one for each client that it
// does not understand.
const complaintsEvery = time.Minute

// maxComplaint is how many bytes are told of one.
const maxComplaint = 300

// complaints is where an [http.Server] logs to: one is told, and how many there were
// since the last.
type complaints struct {
	tell func(string)
	now  func() time.Time

	mu     sync.Mutex
	next   time.Time // when one is told
	untold int
}

func (c *complaints) Write(p []byte) (int, error) {
	text, _, _ := strings.Cut(strings.TrimSpace(string(p[:min(len(p), maxComplaint)])), "\n")
	c.mu.Lock()
	now := c.now()
	if now.Before(c.next) {
		c.untold++
		c.mu.Unlock()
		return len(p), nil
	}
	untold := c.untold
	c.untold, c.next = 0, now.Add(complaintsEvery)
	c.mu.Unlock()
	if untold > 0 {
		text = fmt.Sprintf("%s (and %d more since the last that was told)", text, untold)
	}
	if c.tell != nil {
		c.tell(text)
	}
	return len(p), nil
}
