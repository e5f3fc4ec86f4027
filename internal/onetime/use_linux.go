package onetime

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUsed is why a line is not crossed out that is already.
var ErrUsed = errors.New("it was used meanwhile")

// Use crosses a line out, so that it is never returned again: its first byte
// becomes a #. It is on stable storage when Use returns. The error is [ErrUsed], or
// says that the line was changed since it was read, or that it cannot be written.
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
	return unix.Fdatasync(int(f.Fd()))
}

// isIn returns an error if the file does not have the line where it was, with no more
// in it.
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
	return errors.New("it was changed meanwhile, and is read again")
}
