//go:build linux

package daemon

import (
	"bytes"
	"io"
	"time"
)

// asyncWriter writes from its own goroutine, so that no wall, trial or signal waits for a
// terminal or a pipe that blocks. If too much waits, it drops the rest.
type asyncWriter struct {
	to    io.Writer
	tasks chan func()
	done  chan struct{}
}

const (
	asyncTasks    = 8 << 10 // more than there can be doors; each door needs a line
	asyncPatience = 2 * time.Second
)

func newAsyncWriter(to io.Writer) *asyncWriter {
	w := &asyncWriter{to, make(chan func(), asyncTasks), make(chan struct{})}
	go func() {
		for {
			select {
			case task := <-w.tasks:
				task()
			case <-w.done:
				return
			}
		}
	}()
	return w
}

// Write never blocks and never fails.
func (w *asyncWriter) Write(p []byte) (int, error) {
	text := bytes.Clone(p)
	select {
	case w.tasks <- func() { _, _ = w.to.Write(text) }:
	default:
	}
	return len(p), nil
}

// then runs task after everything that waits now is written, or at once if too much waits.
func (w *asyncWriter) then(task func()) {
	select {
	case w.tasks <- task:
	default:
		task()
	}
}

// Unwrap returns the writer behind w.
func (w *asyncWriter) Unwrap() io.Writer { return w.to }

// Close writes what waits, for at most asyncPatience.
func (w *asyncWriter) Close() {
	written := make(chan struct{})
	patience := time.After(asyncPatience)
	select {
	case w.tasks <- func() { close(written) }:
		select {
		case <-written:
		case <-patience:
		}
	case <-patience:
	}
	close(w.done)
}
