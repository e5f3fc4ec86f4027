//go:build unix

package client

import "syscall"

// The errors of connect that Knock handles.
const (
	errInProgress    = syscall.EINPROGRESS
	errRefused       = syscall.ECONNREFUSED
	errNoSuchAddress = syscall.EADDRNOTAVAIL
)

// openSocket opens a non-blocking socket. Not every system can do this in one call, so
// the lock prevents a child process from inheriting it.
func openSocket(family, kind int) (int, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(family, kind, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		closeSocket(fd)
		return -1, err
	}
	return fd, nil
}

func closeSocket(fd int) { _ = syscall.Close(fd) }
