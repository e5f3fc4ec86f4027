package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
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
		out := c.OutOrStdout()
		kernel, notAllowed := ruleset.OpenKernel()
		if notAllowed == nil {
			defer kernel.Close()
		}
		// To ask at a socket that is systemd's is to start the daemon. So the kernel is
		// asked first whether one runs, by who may; unless a socket is named, whose
		// daemon may guard another network than this one.
		if notAllowed == nil && !c.Flags().Changed("control") {
			done, err := removeTables(out, kernel, false)
			switch {
			case done && listenedAt(*path):
				return stopListening(out, kernel, socketUnit)
			case done, err != nil:
				return err
			}
		}
		lowered, err := control.NewClient(*path).Down(c.Context())
		switch {
		case errors.Is(err, control.ErrNoDaemon) && notAllowed != nil:
			return notAllowed
		case errors.Is(err, control.ErrNoDaemon):
			if done, err := removeTables(out, kernel, true); done || err != nil {
				return err
			}
			return fmt.Errorf("a daemon minds the wall, and does not listen at %s: name its socket with --control, or end it", *path)
		case err != nil:
			return err
		}
		fmt.Fprintln(out, "The wall is down, and the daemon has ended.")
		if lowered.SocketUnit == "" {
			return nil
		}
		return stopListening(out, kernel, lowered.SocketUnit)
	}
	return c
}

// removeTables removes the tables of walls if no daemon minds any of them, and
// reports whether there is nothing more to do. Of a wall without doors, which has no
// queues, that is not known before the daemon was asked in vain.
func removeTables(out io.Writer, kernel *ruleset.Kernel, asked bool) (done bool, err error) {
	walls, err := kernel.Others("")
	if err != nil {
		return false, err
	}
	for _, w := range walls {
		if len(w.Queues) == 0 && !asked {
			return false, nil
		}
		for _, queue := range w.Queues {
			if minded, err := nfqueue.InUse(queue); minded || err != nil {
				return false, err
			}
		}
	}
	for _, w := range walls {
		if _, err := kernel.Remove(w.Table); err != nil {
			return false, err
		}
		fmt.Fprintf(out, "The table inet %s is removed; no daemon minded it.\n", w.Table)
	}
	if len(walls) == 0 {
		fmt.Fprintln(out, "No wall stands.")
	}
	return true, nil
}

// socketUnit is what the unit is called by which systemd listens for a daemon that
// does not run.
const socketUnit = "knockwall.socket"

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

// stopListening has systemd listen no more, as it would put the wall up again for
// the next who asks for its status. What the unit is called is the daemon's to say,
// but not which units root stops.
func stopListening(out io.Writer, kernel *ruleset.Kernel, unit string) error {
	if os.Geteuid() != 0 || unit != socketUnit {
		if unit != socketUnit {
			unit = strconv.Quote(unit)
		}
		fmt.Fprintf(out, "systemd puts it up again as soon as somebody asks for its status. To prevent that:\n"+
			"  sudo systemctl stop %s\n", unit)
		return nil
	}
	if said, err := exec.Command("systemctl", "stop", unit).CombinedOutput(); err != nil {
		return fmt.Errorf("systemd listens for who asks for the wall, and puts it up again then; "+
			"`systemctl stop %s`, which would prevent that, failed: %w: %s", unit, err, bytes.TrimSpace(said))
	}
	// Somebody may have asked before that, and a daemon put the wall up, which has
	// ended with the socket.
	if kernel != nil {
		done, err := removeTables(io.Discard, kernel, true)
		switch {
		case err != nil:
			return err
		case !done:
			return errors.New("somebody has put the wall up again this very moment: type `knockwall down` once more")
		}
	}
	fmt.Fprintf(out, "So that nobody puts it up again by asking for its status, %s is stopped, too.\n"+
		"To put it up: systemctl start knockwall\n", unit)
	return nil
}
