package terminal

import (
	"os"

	"golang.org/x/sys/windows"
)

// columnsOf returns the width of a console in columns, and whether f is a console that
// understands terminal escape sequences. Older consoles need a mode for that, which it sets.
func columnsOf(f *os.File) (columns uint, terminal bool) {
	console := windows.Handle(f.Fd())
	var mode uint32
	var screen windows.ConsoleScreenBufferInfo
	if windows.GetConsoleMode(console, &mode) != nil || windows.GetConsoleScreenBufferInfo(console, &screen) != nil ||
		windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) != nil {
		return 0, false
	}
	return uint(screen.Size.X), true
}
