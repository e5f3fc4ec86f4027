//go:build linux

package daemon

import (
	"context"
	"net"
	"os"

	"github.com/knockwall/knockwall/internal/control"
)

// tasks returns the tasks of the daemon. Only the end of the wall ends the daemon. The wall
// matters more than the other tasks, and goes on without them. The control server ends
// last, so that clients get all events.
func (d *daemon) tasks(l net.Listener, unit string, hangups <-chan os.Signal) *tasks {
	return &tasks{
		ready:    d.service.Ready,
		stopping: d.service.Stopping,
		first: []task{
			{"wall", d.runWall},
			optional("status for systemd", d.service.TellStatus),
			optional("watchdog of systemd", d.feedWatchdog),
			optional("reload at SIGHUP", func(ctx context.Context) { d.rules.reloadAt(ctx, hangups, d.stderr) }),
			optional("repair of the rules", func(ctx context.Context) { d.rules.repair(ctx, d.stderr) }),
		},
		last: optional("control socket", func(ctx context.Context) { d.answer(ctx, l, unit) }),
	}
}

func (d *daemon) runWall(ctx context.Context, ready func()) error {
	ready()
	return d.wall.Run(ctx)
}

// feedWatchdog notifies systemd's watchdog as long as the wall does not hang.
func (d *daemon) feedWatchdog(ctx context.Context) {
	d.service.Watch(ctx, d.wall.Alive, func(err error) { d.logError("the daemon hangs: %v", err) })
}

// answer answers clients on the control socket until ctx ends.
func (d *daemon) answer(ctx context.Context, l net.Listener, unit string) {
	err := control.Serve(ctx, l, control.Daemon{
		Wall: d.wall, History: d.history, Reload: d.rules.reload, Confirm: d.rules.confirm, SocketUnit: unit,
		Complain: func(text string) { d.logWarning("the control socket: %q", text) },
	})
	if err != nil {
		d.logError("%v: `%s` gets no answer until run is started again", err, control.Command(d.Control, "status"))
	}
}
