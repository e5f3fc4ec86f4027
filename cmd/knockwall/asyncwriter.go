//go:build linux

package main

import (
	"bytes"
	"io"
	"time"
)

// asyncWriter writes from a goroutine of its own, so that no wall, trial or signal waits
// for a terminal or a pipe that takes nothing. When too much waits, the rest is lost.
type asyncWriter struct {
	to    io.Writer
	tasks chan func()
	done  chan struct{}
}

const (
	asyncTasks    = 8 << 10 // more than there are doors, of each of which a line is told
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

// Write never waits, and never fails.
func (w *asyncWriter) Write(p []byte) (int, error) {
	text := bytes.Clone(p)
	select {
	case w.tasks <- func() { _, _ = w.to.Write(text) }:
	default:
	}
	return len(p), nil
}

// then does something when all is written that was to be until now, or at once if too
// much waits for that.
func (w *asyncWriter) then(task func()) {
	select {
	case w.tasks <- task:
	default:
		task()
	}
}

// Unwrap returns where it is written to in the end.
func (w *asyncWriter) Unwrap() io.Writer { return w.to }

// Close writes what waits, unless nobody takes it.
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
