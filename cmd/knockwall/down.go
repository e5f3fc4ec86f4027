//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/nfqueue"
)

func downCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "down",
		Short: "Take the wall down, whether a daemon runs or not",
		Long: `down takes the wall down: every port answers again as it would without
knockwall. A daemon that listens at --control removes its wall itself, and ends.
If no daemon runs, down removes the tables that daemons have left. This needs
root, or the capability CAP_NET_ADMIN. down needs no rule files.

If systemd listens at the control socket, it would start the daemon, and so put
the wall up again, when the next client connects there. So down, as root, also
stops the socket unit. The wall returns with systemctl start knockwall, and at
the next boot.`,
		Example: `  sudo knockwall down`,
		Args:    noArguments,
	}
	path := controlFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		d := &lowering{out: c.OutOrStdout(), path: *path}
		kernel, notAllowed := nft.OpenKernel()
		if notAllowed == nil {
			defer kernel.Close()
			d.kernel = kernel
		}
		// A connection to systemd's socket would start the daemon. So down first asks the
		// kernel whether a daemon runs, if it has the privilege. It does not if --control
		// names another socket: that daemon may be in another network namespace.
		if d.kernel != nil && d.ours() {
			if done, err := d.removeUnminded(); done || err != nil {
				return err
			}
		}
		lowered, err := control.NewClient(*path).Down(c.Context())
		switch {
		case errors.Is(err, control.ErrNoDaemon) && d.kernel == nil:
			return notAllowed
		case errors.Is(err, control.ErrNoDaemon):
			return d.removeAll()
		case err != nil:
			return err
		}
		if lowered.Ending {
			fmt.Fprintln(d.out, "The wall is down. The daemon ends within seconds, when its on_close commands have ended.")
		} else {
			fmt.Fprintln(d.out, "The wall is down, and the daemon has ended.")
		}
		if lowered.SocketUnit == "" {
			return nil
		}
		d.others = slices.DeleteFunc(d.others, func(table string) bool { return table == lowered.Table })
		return d.stopUnits(lowered.SocketUnit)
	}
	return c
}

// lowering takes walls down.
type lowering struct {
	out    io.Writer
	path   string      // of the control socket
	kernel *nft.Kernel // nil without the privilege
	others []string    // tables of walls that must stay
}

// ours reports whether the control socket is the one of this system's service.
func (d *lowering) ours() bool { return d.path == control.DefaultPath }

// minded reports whether a daemon serves a wall, that is, listens on one of its queues. A
// wall without doors has no queues: then known is false.
func minded(w *nft.Standing) (minded, known bool, err error) {
	for _, queue := range w.Queues {
		if minded, err := nfqueue.InUse(queue); minded || err != nil {
			return minded, true, err
		}
	}
	return false, len(w.Queues) > 0, nil
}

// removeUnminded removes the tables of all walls if no daemon serves any of them, and
// prevents systemd from starting a daemon. It reports whether nothing more is to be done.
func (d *lowering) removeUnminded() (done bool, err error) {
	walls, err := d.kernel.Others("")
	if err != nil {
		return false, err
	}
	for _, w := range walls {
		d.others = append(d.others, w.Table)
	}
	for _, w := range walls {
		if minded, known, err := minded(w); minded || !known || err != nil {
			return false, err
		}
	}
	d.others = nil
	if err := d.removeAll(); err != nil {
		return false, err
	}
	if listenedAt(d.path) || restarts() {
		return true, d.stopUnits(socketUnit)
	}
	return true, nil
}

// removeAll removes the tables of walls that no daemon serves. The other walls are an
// error, which names them.
func (d *lowering) removeAll() error {
	walls, err := d.kernel.Others("")
	if err != nil {
		return err
	}
	for _, w := range walls {
		minded, _, asking := minded(w)
		switch {
		case asking != nil:
			return asking
		case minded:
			err = errors.Join(err, fmt.Errorf("a daemon uses the table inet %s, but does not listen at %s: "+
				"name its socket with --control, or end it", w.Table, d.path))
			continue
		}
		if _, err := d.kernel.Remove(w.Table); err != nil {
			return err
		}
		fmt.Fprintf(d.out, "The table inet %s is removed. No daemon used it.\n", w.Table)
	}
	if len(walls) == 0 {
		fmt.Fprintln(d.out, "No wall stands.")
	}
	return err
}

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
func (d *lowering) stopUnits(unit string) error {
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
	fmt.Fprintf(d.out, "%s is stopped too, as the next client there would put the wall up again.\n"+
		"To put it up: systemctl start knockwall\n", socketUnit)
	return nil
}

// removeLate removes a wall that a daemon put up because a client asked for its status
// before the socket unit stopped. That daemon has stopped with the units.
func (d *lowering) removeLate() error {
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
