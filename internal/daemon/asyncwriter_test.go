//go:build linux

package daemon

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

// stuck is a writer that blocks until it is closed.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

// A task after a text must not wait forever for a reader that reads nothing, however much
// there is to write: the audit trail starts with such a task.
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
		t.Error("the task waits for a reader that reads nothing")
	}
	w.Close()
}
