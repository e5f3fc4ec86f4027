package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// columnsOf returns how wide a console is, and whether the file is one that understands
// the escape sequences of a terminal. Older consoles have to be asked to.
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
