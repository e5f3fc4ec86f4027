//go:build unix

package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// columnsOf returns the width of a terminal in columns, and whether f is a terminal.
func columnsOf(f *os.File) (columns uint, terminal bool) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return uint(size.Col), true
}
