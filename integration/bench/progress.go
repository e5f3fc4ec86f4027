package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows what is being measured. On a terminal it updates one line. Elsewhere it
// writes a line for each row.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	row      string
}

func newProgress(out *os.File) *progress {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return &progress{out: out, terminal: err == nil, began: time.Now()}
}

// begin shows the name of the next row.
func (p *progress) begin(row string) {
	p.row = row
	if p.terminal {
		p.say("…")
	} else {
		fmt.Fprintf(p.out, "%4.0fs  %s\n", time.Since(p.began).Seconds(), row)
	}
}

// say shows the state of the row.
func (p *progress) say(format string, a ...any) {
	if p.terminal {
		fmt.Fprintf(p.out, "\r\033[K%4.0fs  %s: %s", time.Since(p.began).Seconds(), p.row, fmt.Sprintf(format, a...))
	}
}

// end clears the line on the terminal.
func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\033[K")
	}
}
