// Package systemd is how knockwall and the service manager talk: the control
// socket comes from it, and it is told when the wall stands. Where no systemd
// is, nothing happens.
package systemd

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Listener returns the listener of the one socket that systemd has handed over,
// or nil if it has none.
func Listener() (net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("taking the socket from systemd: %w", err)
	}
	switch {
	case len(listeners) == 0:
		return nil, nil
	case len(listeners) > 1 || listeners[0] == nil:
		return nil, fmt.Errorf("systemd hands over %d sockets; knockwall.socket should have one stream socket", len(listeners))
	}
	return listeners[0], nil
}

// Ready tells systemd that the wall stands.
func Ready() error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyReady)
	return err
}

// Stopping tells systemd that the daemon is on its way out.
func Stopping() error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyStopping)
	return err
}
