package systemd

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// Listener returns the listener of the one socket that systemd has handed over
// and its unit's name, or nil if systemd has handed over none.
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
	if err != nil {
		return nil, "", fmt.Errorf("taking the socket from systemd, which should be a stream socket: %w", err)
	}
	return l, files[0].Name(), nil
}
