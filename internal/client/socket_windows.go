package client

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The errors of sockets that have a meaning here. Winsock has numbers of its own, and
// says of a connection under way that it would block.
const (
	errInProgress    = windows.WSAEWOULDBLOCK
	errRefused       = windows.WSAECONNREFUSED
	errNoSuchAddress = windows.WSAEADDRNOTAVAIL
)

// fionbio is the FIONBIO of winsock2.h: whether calls on a socket return at once.
const fionbio = 0x8004667e

// openSocket opens a socket that does not block.
func openSocket(family, kind int) (syscall.Handle, error) {
	// Winsock counts who has started it, and closeSocket ends it once.
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
