package terminal

import (
	"os"

	"golang.org/x/sys/windows"
)

// sizeOf returns the size of a console, and whether f is a console that understands terminal
// escape sequences. Older consoles need a mode for that, which it sets.
func sizeOf(f *os.File) (columns, rows uint, terminal bool) {
	console := windows.Handle(f.Fd())
	var mode uint32
	var screen windows.ConsoleScreenBufferInfo
	if windows.GetConsoleMode(console, &mode) != nil || windows.GetConsoleScreenBufferInfo(console, &screen) != nil ||
		windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) != nil {
		return 0, 0, false
	}
	return uint(screen.Size.X), uint(screen.Window.Bottom-screen.Window.Top) + 1, true
}
