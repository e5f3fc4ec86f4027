// Package control is the daemon's API: HTTP with JSON on a unix socket, so that curl can
// use it as well.
//
//	curl --unix-socket /run/knockwall/control.sock http://knockwall/v1/status
//
// API.md, which the daemon also serves at /, describes all of it.
package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// DefaultPath is the default path of the control socket.
const DefaultPath = "/run/knockwall/control.sock"

// Command returns what to type for a command of the daemon whose socket is at path.
func Command(path, command string) string {
	text := "knockwall " + command
	if path != DefaultPath {
		if absolute, err := filepath.Abs(path); err == nil { // it may be typed in another folder
			path = absolute
		}
		text += " --control " + path
	}
	return text
}

// Listen makes the control socket. Its owner and its group can use it. Listen replaces a
// socket that a killed daemon has left. It does not replace one on which a daemon
// answers, nor another kind of file.
func Listen(path string) (net.Listener, error) {
	// The kernel would make an abstract socket, which everybody can use.
	if path == "" || path[0] == '@' {
		return nil, fmt.Errorf("%q is not the path of a file: set another path with --control", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the control socket: %w", err)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("looking for the control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s exists and is not a socket: remove it, or set another path with --control", path)
	default:
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("a knockwall daemon is running already and listens at %s", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("connecting to the control socket: %w", err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing a dead control socket: %w", err)
		}
	}
	// The umask gives the socket these permissions from the start, not a moment later.
	mask := syscall.Umask(0o117)
	defer syscall.Umask(mask)
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EINVAL) {
		return nil, tooLong(path)
	}
	if err != nil {
		return nil, fmt.Errorf("listening for control: %w", err)
	}
	return l, nil
}

// tooLong explains the kernel's EINVAL: unix(7), "Pathname sockets".
func tooLong(path string) error {
	return fmt.Errorf("the path of a socket may have 107 bytes, and %s has %d: set a shorter one with --control", path, len(path))
}
