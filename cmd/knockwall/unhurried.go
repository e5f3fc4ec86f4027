package main

import (
	"bytes"
	"io"
	"time"
)

// unhurried writes from a goroutine of its own, so that no wall, trial or signal waits
// for a terminal or a pipe that takes nothing. When too much waits, the rest is lost.
type unhurried struct {
	to    io.Writer
	tasks chan func()
	done  chan struct{}
}

const (
	unhurriedTasks    = 1024
	unhurriedPatience = 2 * time.Second
)

func newUnhurried(to io.Writer) *unhurried {
	u := &unhurried{to, make(chan func(), unhurriedTasks), make(chan struct{})}
	go func() {
		for {
			select {
			case task := <-u.tasks:
				task()
			case <-u.done:
				return
			}
		}
	}()
	return u
}

// Write never waits, and never fails.
func (u *unhurried) Write(p []byte) (int, error) {
	text := bytes.Clone(p)
	u.then(func() { _, _ = u.to.Write(text) })
	return len(p), nil
}

// then does something when all is written that was to be until now.
func (u *unhurried) then(task func()) {
	select {
	case u.tasks <- task:
	default:
	}
}

// Unwrap returns where it is written to in the end.
func (u *unhurried) Unwrap() io.Writer { return u.to }

// Close writes what waits, unless nobody takes it.
func (u *unhurried) Close() {
	written := make(chan struct{})
	u.then(func() { close(written) })
	select {
	case <-written:
	case <-time.After(unhurriedPatience):
	}
	close(u.done)
}
