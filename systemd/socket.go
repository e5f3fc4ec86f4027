package systemd

import (
	"fmt"
	"net"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Listener returns the listener of the one socket that systemd has handed over
// and its unit's name, as far as it is known, or nil if systemd has handed over
// none.
func Listener() (l net.Listener, unit string, err error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, "", nil
	}
	defer func() {
		for _, f := range files {
			f.Close() // net.FileListener has its own
		}
	}()
	if len(files) > 1 {
		return nil, "", fmt.Errorf("systemd hands over %d sockets; knockwall.socket should have one", len(files))
	}
	l, err = net.FileListener(files[0])
	if err == nil && l.Addr().Network() == "unixgram" { // which is not noticed there
		l.Close()
		err = unix.EPROTOTYPE
	}
	if err != nil {
		return nil, "", fmt.Errorf("taking the socket from systemd, which should be a stream socket: %w", err)
	}
	// Whoever else starts the daemon this way may give the socket another name, or none.
	if name := files[0].Name(); strings.HasSuffix(name, ".socket") {
		unit = name
	}
	return l, unit, nil
}
