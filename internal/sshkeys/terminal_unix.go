//go:build unix

package sshkeys

import "os"

// openTerminal opens the terminal that controls this process.
func openTerminal() (in, out *os.File, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	return tty, tty, err
}
