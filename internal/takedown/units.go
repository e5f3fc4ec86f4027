//go:build linux

package takedown

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// The units with which systemd listens for clients and starts the daemon.
const (
	socketUnit  = "knockwall.socket"
	serviceUnit = "knockwall.service"
)

// restarts reports whether systemd is about to start the daemon again.
func restarts() bool {
	state, _ := exec.Command("systemctl", "is-active", serviceUnit).Output() // fails if the unit is not active
	return string(bytes.TrimSpace(state)) == "activating"
}

// listenedAt reports whether a program listens at a unix socket. It does not connect: it
// reads the flag __SO_ACCEPTCON in /proc/net/unix (proc_net_unix(5)).
func listenedAt(path string) bool {
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(sockets)) {
		// Num RefCount Protocol Flags Type St Inode Path
		if f := strings.Fields(line); len(f) == 8 && f[3] == "00010000" && f[7] == path {
			return true
		}
	}
	return false
}

// stopUnits stops systemd from listening at the control socket, as the next client there
// would put the wall up again. The name of the unit comes from the daemon, so root stops
// only the units that it knows, and prints any other name as a hint.
func (d *takedown) stopUnits(unit string) error {
	if os.Geteuid() != 0 || !d.ours() || unit != socketUnit {
		if unit != socketUnit {
			unit = strconv.Quote(unit)
		}
		fmt.Fprintf(d.out, "systemd puts it up again when the next client asks for its status. To prevent that:\n"+
			"  sudo systemctl stop %s\n", unit)
		return nil
	}
	if said, err := exec.Command("systemctl", "stop", socketUnit, serviceUnit).CombinedOutput(); err != nil {
		return fmt.Errorf("systemd puts the wall up again when the next client asks for its status; "+
			"`systemctl stop %s`, which would prevent that, failed: %w: %s", socketUnit, err, bytes.TrimSpace(said))
	}
	if err := d.removeLate(); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%s is stopped too, as the next client there would put the wall up\n"+
		"again. To put it up: systemctl start knockwall. If the service is enabled, the\n"+
		"next boot does so, too.\n", socketUnit)
	return nil
}

// removeLate removes a wall that a daemon put up because a client asked for its status
// before the socket unit stopped. That daemon has stopped with the units.
func (d *takedown) removeLate() error {
	if d.kernel == nil {
		return nil
	}
	walls, err := d.kernel.Others("")
	if err != nil {
		return err
	}
	for _, w := range walls {
		if slices.Contains(d.others, w.Table) {
			continue
		}
		if _, err := d.kernel.Remove(w.Table); err != nil {
			return err
		}
	}
	return nil
}
