//go:build linux

// Package takedown removes walls from the kernel, whether a daemon runs or not, and keeps
// systemd from starting a daemon that would put the wall up again.
package takedown

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/nfqueue"
)

// takedown takes walls down.
type takedown struct {
	out    io.Writer
	path   string      // of the control socket
	kernel *nft.Kernel // nil without the privilege
	// others are the tables that removeLate must leave: those that stood before a connection to
	// systemd's socket, which may start a daemon that puts up another. removeUnserved fills it,
	// unless it removes them all. askDaemon takes out the table of the daemon that it has ended.
	others []string
}

// Run takes down the wall of the daemon that listens at a control socket. If none listens
// there, it removes the tables that daemons have left. It writes to out what it has done.
func Run(ctx context.Context, out io.Writer, controlPath string) error {
	d := &takedown{out: out, path: controlPath}
	kernel, notAllowed := nft.OpenKernel()
	if notAllowed == nil {
		defer kernel.Close()
		d.kernel = kernel
	}
	// A connection to systemd's socket would start the daemon. So ask the kernel first
	// whether a daemon runs, if this process has the privilege. Do not if the control socket
	// is another one: that daemon may be in another network namespace.
	if d.kernel != nil && d.ours() {
		if done, err := d.removeUnserved(); done || err != nil {
			return err
		}
	}
	err := d.askDaemon(ctx)
	switch {
	case errors.Is(err, control.ErrNoDaemon) && d.kernel == nil:
		return notAllowed
	case errors.Is(err, control.ErrNoDaemon):
		return d.removeAll()
	}
	return err
}

// ours reports whether the control socket is the one of this system's service.
func (d *takedown) ours() bool { return d.path == control.DefaultPath }

// removeUnserved removes the tables of all walls if no daemon serves any of them, and
// prevents systemd from starting a daemon. It reports whether nothing more is to be done.
func (d *takedown) removeUnserved() (done bool, err error) {
	walls, err := d.kernel.Others("")
	if err != nil {
		return false, err
	}
	for _, w := range walls {
		d.others = append(d.others, w.Table)
	}
	for _, w := range walls {
		if served, known, err := served(w); served || !known || err != nil {
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

// askDaemon makes the daemon remove its wall and end.
func (d *takedown) askDaemon(ctx context.Context) error {
	lowered, err := control.NewClient(d.path).Down(ctx)
	if err != nil {
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

// removeAll removes the tables of walls that no daemon serves. The other walls are an
// error, which names them.
func (d *takedown) removeAll() error {
	walls, err := d.kernel.Others("")
	if err != nil {
		return err
	}
	for _, w := range walls {
		served, _, asking := served(w)
		switch {
		case asking != nil:
			return asking
		case served:
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

// served reports whether a daemon serves a wall, that is, listens on one of its queues. A
// wall without doors has no queues: then known is false.
func served(w *nft.Standing) (served, known bool, err error) {
	for _, queue := range w.Queues {
		if served, err := nfqueue.InUse(queue); served || err != nil {
			return served, true, err
		}
	}
	return false, len(w.Queues) > 0, nil
}
