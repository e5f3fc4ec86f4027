package client

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The errors of connect that Knock handles. Winsock has its own numbers, and reports
// WSAEWOULDBLOCK for a connection in progress.
const (
	errInProgress    = windows.WSAEWOULDBLOCK
	errRefused       = windows.WSAECONNREFUSED
	errNoSuchAddress = windows.WSAEADDRNOTAVAIL
)

// fionbio is FIONBIO of winsock2.h. It makes a socket non-blocking.
const fionbio = 0x8004667e

// openSocket opens a non-blocking socket.
func openSocket(family, kind int) (syscall.Handle, error) {
	// Winsock counts WSAStartup calls, and closeSocket reverses one.
	const version = 0x0202
	if err := windows.WSAStartup(version, &windows.WSAData{}); err != nil {
		return syscall.InvalidHandle, err
	}
	fd, err := syscall.Socket(family, kind, 0)
	if err != nil {
		_ = windows.WSACleanup()
		return syscall.InvalidHandle, err
	}
	yes, returned := uint32(1), uint32(0)
	if err := windows.WSAIoctl(windows.Handle(fd), fionbio, (*byte)(unsafe.Pointer(&yes)), uint32(unsafe.Sizeof(yes)),
		nil, 0, &returned, nil, 0); err != nil {
		closeSocket(fd)
		return syscall.InvalidHandle, err
	}
	return fd, nil
}

func closeSocket(fd syscall.Handle) {
	_ = syscall.Closesocket(fd)
	_ = windows.WSACleanup()
}
