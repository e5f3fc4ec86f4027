//go:build unix

package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// sizeOf returns the size of a terminal, and whether f is a terminal.
func sizeOf(f *os.File) (columns, rows uint, terminal bool) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	return uint(size.Col), uint(size.Row), true
}
