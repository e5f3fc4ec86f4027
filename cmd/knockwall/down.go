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
		Short: "Take the wall down, daemon or no daemon",
		Long: `down takes the wall down: every port answers again as it would without
knockwall. A daemon that listens at --control does it itself, and ends. Where
none minds the wall, down removes the tables that daemons have left standing,
for which it needs root, or the capability CAP_NET_ADMIN. It needs no rule
files.

Where systemd listens for the daemon, it would put the wall up again as soon as
somebody asks for its status; so down stops that, too, if it is root. The wall
is put up again by systemctl start knockwall, and when the machine starts.`,
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
		// To ask at a socket that is systemd's is to start the daemon. So the kernel is
		// asked first whether one runs, by who may; unless another socket is named,
		// whose daemon may guard another network than this one.
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
			fmt.Fprintln(d.out, "The wall is down. The daemon ends when its on_close commands have ended, in some seconds.")
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
	kernel *nft.Kernel // nil: it may not be asked
	others []string    // tables of walls that are not to be touched
}

// ours reports whether the control socket is that of this system's own daemon.
func (d *lowering) ours() bool { return d.path == control.DefaultPath }

// minded reports whether a daemon minds a wall: whether it listens to any of its
// queues. Of a wall without doors, which has none, that is not known.
func minded(w *nft.Standing) (minded, known bool, err error) {
	for _, queue := range w.Queues {
		if minded, err := nfqueue.InUse(queue); minded || err != nil {
			return minded, true, err
		}
	}
	return false, len(w.Queues) > 0, nil
}

// removeUnminded removes the tables of walls if no daemon minds any of them, and
// has systemd start none. It reports whether there is nothing more to do.
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

// removeAll removes the tables of walls that no daemon minds, and says of those that
// one does.
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
			err = errors.Join(err, fmt.Errorf("a daemon minds the table inet %s, and does not listen at %s: "+
				"name its socket with --control, or end it", w.Table, d.path))
			continue
		}
		if _, err := d.kernel.Remove(w.Table); err != nil {
			return err
		}
		fmt.Fprintf(d.out, "The table inet %s is removed; no daemon minded it.\n", w.Table)
	}
	if len(walls) == 0 {
		fmt.Fprintln(d.out, "No wall stands.")
	}
	return err
}

// What the units are called by which systemd listens for a daemon that does not
// run, and starts it.
const (
	socketUnit  = "knockwall.socket"
	serviceUnit = "knockwall.service"
)

// restarts reports whether systemd is about to start the daemon again.
func restarts() bool {
	state, _ := exec.Command("systemctl", "is-active", serviceUnit).Output() // its error is that it is not active
	return string(bytes.TrimSpace(state)) == "activating"
}

// listenedAt reports whether somebody listens at a unix socket, without asking
// there (proc_net_unix(5): __SO_ACCEPTCON is among the flags).
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

// stopUnits has systemd listen no more, as it would put the wall up again for the
// next who asks for its status. What the unit is called is the daemon's to say, but
// not which units root stops.
func (d *lowering) stopUnits(unit string) error {
	if os.Geteuid() != 0 || !d.ours() || unit != socketUnit {
		if unit != socketUnit {
			unit = strconv.Quote(unit)
		}
		fmt.Fprintf(d.out, "systemd puts it up again as soon as somebody asks for its status. To prevent that:\n"+
			"  sudo systemctl stop %s\n", unit)
		return nil
	}
	if said, err := exec.Command("systemctl", "stop", socketUnit, serviceUnit).CombinedOutput(); err != nil {
		return fmt.Errorf("systemd listens for who asks for the wall, and puts it up again then; "+
			"`systemctl stop %s`, which would prevent that, failed: %w: %s", socketUnit, err, bytes.TrimSpace(said))
	}
	if err := d.removeLate(); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "So that nobody puts it up again by asking for its status, %s is stopped, too.\n"+
		"To put it up: systemctl start knockwall\n", socketUnit)
	return nil
}

// removeLate removes a wall that a daemon has put up because somebody asked for its
// status before systemd listened no more. The daemon has been stopped with the units.
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
