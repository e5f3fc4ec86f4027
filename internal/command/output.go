//go:build linux

package command

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/knockwall/knockwall/internal/printable"
)

// output reads what a command writes. It keeps the beginning and counts the rest, so that
// the command never blocks on its output.
type output struct {
	pipe *os.File
	over chan struct{} // closed when no process holds the other end of the pipe
	kept []byte
	left int64 // how many bytes were not kept
}

// newOutput returns an output and the writable end of its pipe.
func newOutput() (o *output, written *os.File, err error) {
	pipe, written, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	return &output{pipe: pipe, over: make(chan struct{})}, written, nil
}

func (o *output) read() {
	defer close(o.over)
	buffer := make([]byte, 32<<10)
	for {
		n, err := o.pipe.Read(buffer)
		kept := min(n, MaxOutput-len(o.kept))
		o.kept = append(o.kept, buffer[:kept]...)
		o.left += int64(n - kept)
		if err != nil {
			return
		}
	}
}

// text returns the output as text for people. It is called when the command has ended. It
// waits for output of processes that the command started for WaitDelay at most.
func (o *output) text() string {
	_ = o.pipe.SetReadDeadline(time.Now().Add(WaitDelay))
	<-o.over
	o.pipe.Close()
	if o.left == 0 {
		return strings.TrimRight(printable.Lines(o.kept), "\n")
	}
	return fmt.Sprintf("%s\n… and %d more bytes", strings.TrimRight(printable.Lines(wholeRunes(o.kept)), "\n"), o.left)
}

// wholeRunes removes a character at the end that is incomplete.
func wholeRunes(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if last := b[len(b)-i:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}
