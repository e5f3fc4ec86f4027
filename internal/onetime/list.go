// Package onetime reads lists of one-time sequences in the format of knockd: one sequence a
// line. A line that begins with # is a comment or a used sequence.
package onetime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/knockwall/knockwall/internal/durable"
	"github.com/knockwall/knockwall/internal/ownership"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// maxSize is the maximum size of a list in bytes.
const maxSize = 1 << 20

// List is a file of sequences.
type List struct{ Path string }

// Line is an unused sequence of a list.
type Line struct {
	Steps  []packet.Port
	number int
	offset int64
	text   string
}

// IsZero reports whether the Line is the zero value, as no sequence is left.
func (l Line) IsZero() bool { return l.text == "" }

// Equal reports whether both are the same line of a list. go-cmp needs it to compare values
// with a Line.
func (l Line) Equal(o Line) bool {
	return l.number == o.number && l.offset == o.offset && l.text == o.text
}

// LineError is an error in a line.
type LineError struct {
	Path string
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s line %d: %v", e.Path, e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// Next returns the first unused line and the number of unused lines. Both are zero if all
// sequences are used. The error says that the file cannot be read or that other users can
// access it. It is a [*LineError] if a line is not a sequence.
func (l List) Next() (next Line, left int, err error) {
	f, err := l.open(os.O_RDONLY)
	if err != nil {
		return Line{}, 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return Line{}, 0, err
	}
	if len(text) > maxSize {
		return Line{}, 0, fmt.Errorf("%s is too large: a list of sequences has at most %d KiB", l.Path, maxSize>>10)
	}
	offset, number := int64(0), 0
	for raw := range bytes.Lines(text) {
		number++
		line := strings.TrimRight(string(raw), "\r\n")
		if text := strings.TrimSpace(line); text != "" && text[0] != '#' {
			steps, err := parse(line)
			if err != nil {
				return Line{}, 0, &LineError{l.Path, number, err}
			}
			if left++; left == 1 {
				next = Line{steps, number, offset, line}
			}
		}
		offset += int64(len(raw))
	}
	return next, left, nil
}

// errNoSequence does not quote the line, as the file may be something else with secrets.
var errNoSequence = errors.New("this is not a sequence: write knocks such as 4113,27911:udp,1840")

// parse reads knocks in the syntax of knockd (7000, 8000 : udp) and of rule files.
func parse(line string) ([]packet.Port, error) {
	var steps []packet.Port
	for s := range strings.SplitSeq(line, ",") {
		number, protocol, hasProtocol := strings.Cut(s, ":")
		s = strings.TrimSpace(number)
		if hasProtocol {
			s += ":" + strings.TrimSpace(protocol)
		}
		p, err := packet.ParsePort(s)
		if err != nil {
			return nil, errNoSequence
		}
		steps = append(steps, p)
	}
	if len(steps) > sequence.MaxSteps {
		return nil, fmt.Errorf("a sequence has at most %d knocks, and this one has %d", sequence.MaxSteps, len(steps))
	}
	return steps, nil
}

// ErrUsed says that a line was already marked as used.
var ErrUsed = errors.New("the sequence was used meanwhile")

// Use marks a line as used, so that Next never returns it again: its first byte becomes a
// #. The mark is on stable storage when Use returns. The error wraps [ErrUsed], or says
// that the line was changed since it was read, or that it cannot be written.
func (l List) Use(line Line) error {
	f, err := l.open(os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := line.isIn(f); err != nil {
		return &LineError{l.Path, line.number, err}
	}
	if _, err := f.WriteAt([]byte{'#'}, line.offset); err != nil {
		return err
	}
	return durable.Sync(f)
}

// isIn returns an error unless the file still has the same line at the same place.
func (l Line) isIn(f io.ReaderAt) error {
	at, before := l.offset, ""
	if at > 0 {
		at, before = at-1, "\n"
	}
	now := make([]byte, len(before)+len(l.text)+1)
	n, err := f.ReadAt(now, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for text, err := range map[string]error{l.text: nil, "#" + l.text[1:]: ErrUsed} {
		if after, same := strings.CutPrefix(string(now[:n]), before+text); same && strings.Trim(after, "\r\n") == "" {
			return err
		}
	}
	return errors.New("the line was changed meanwhile, so the list is read again")
}

// Writable returns an error if lines cannot be marked as used.
func (l List) Writable() error {
	f, err := l.open(os.O_RDWR)
	if err != nil {
		return err
	}
	return f.Close()
}

// open opens the file. It refuses a file that other users can read or write.
func (l List) open(flags int) (*os.File, error) {
	f, err := os.OpenFile(l.Path, flags|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", l.Path)
	case ownership.Mode(info)&0o007 != 0:
		err = fmt.Errorf("others can read or write %s, which is a list of secrets: run chmod o= %[1]s", l.Path)
	default:
		err = ownership.Check(l.Path, ownership.List)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
