//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestWhatIsWrittenAsynchronouslyIsWrittenInOrder(t *testing.T) {
	var to bytes.Buffer
	w := newAsyncWriter(&to)
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintln(w, i)
		fmt.Fprintln(&want, i)
	}
	w.then(func() { to.WriteString("then\n") })
	w.Close()
	if want.WriteString("then\n"); to.String() != want.String() {
		t.Errorf("written is %q", to.String())
	}
}

// stuck takes nothing until it is closed.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

// What is to be done after a text must not wait for ever for somebody who reads nothing,
// however much there is to write: the audit trail begins with it.
func TestNothingWaitsForAWriterThatIsStuck(t *testing.T) {
	to := make(stuck)
	t.Cleanup(func() { close(to) })
	w := newAsyncWriter(to)
	for range 2 * asyncTasks {
		fmt.Fprintln(w, "a line")
	}
	done := false
	w.then(func() { done = true })
	if !done {
		t.Error("it waits for who reads nothing")
	}
	w.Close()
}
