// Package control lets commands ask the daemon: HTTP with JSON on a unix
// socket, so that curl can, too.
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

// DefaultPath is where the daemon listens unless it is told otherwise.
const DefaultPath = "/run/knockwall/control.sock"

// Listen makes the control socket, which its owner and group may use. It takes
// the place of a socket that a killed daemon has left, but not of one that is
// answered, and of no other file.
func Listen(path string) (net.Listener, error) {
	// To the kernel, either of these is a socket that everybody may use.
	if path == "" || path[0] == '@' {
		return nil, fmt.Errorf("%q is not the path of a file: name another with --control", path)
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
		return nil, fmt.Errorf("%s is there and is no socket: remove it, or name another path with --control", path)
	default:
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("a knockwall is running already, and listens at %s", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("looking who listens at the control socket: %w", err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing a dead control socket: %w", err)
		}
	}
	// The socket is made with these rights, not given them a moment later.
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

// tooLong is what the kernel means by EINVAL: unix(7), "Pathname sockets".
func tooLong(path string) error {
	return fmt.Errorf("the path of a socket may have 107 bytes, and %s has %d: name a shorter one with --control", path, len(path))
}
