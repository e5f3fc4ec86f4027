package systemd

import (
	"fmt"
	"net"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Listener returns the listener of the one socket that systemd has passed, and the name
// of its unit if it is known. It returns nil if systemd has passed none.
func Listener() (l net.Listener, unit string, err error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, "", nil
	}
	defer func() {
		for _, f := range files {
			f.Close() // net.FileListener has duplicated it
		}
	}()
	if len(files) > 1 {
		return nil, "", fmt.Errorf("systemd passed %d sockets; knockwall.socket should have one", len(files))
	}
	l, err = net.FileListener(files[0])
	if err == nil && l.Addr().Network() == "unixgram" { // net.FileListener does not refuse it
		l.Close()
		err = unix.EPROTOTYPE
	}
	if err != nil {
		return nil, "", fmt.Errorf("taking the socket from systemd, which should be a stream socket: %w", err)
	}
	// Another program that starts the daemon this way may give the socket another name,
	// or none.
	if name := files[0].Name(); strings.HasSuffix(name, ".socket") {
		unit = name
	}
	return l, unit, nil
}
