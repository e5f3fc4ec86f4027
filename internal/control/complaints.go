package control

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// complaintsEvery is how often a message of the HTTP server is passed on. The server logs
// one message a second while the process has no file descriptor left, and one for each
// client that it does not understand.
const complaintsEvery = time.Minute

// maxComplaint is the greatest length of a message, in bytes.
const maxComplaint = 300

// complaints is the log of an [http.Server]. It passes on one message at a time, with the
// number of messages since the last one.
type complaints struct {
	tell func(string)
	now  func() time.Time

	mu     sync.Mutex
	next   time.Time // when the next message is passed on
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
		text = fmt.Sprintf("%s (and %d more since the last message)", text, untold)
	}
	if c.tell != nil {
		c.tell(text)
	}
	return len(p), nil
}
