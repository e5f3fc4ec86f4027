//go:build linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/systemd"
)

// untilSignal returns a context that ends with the first signal to stop the daemon. The
// second such signal kills the process. SIGHUP means that the terminal is gone, and stops
// the daemon. In a service it asks for a reload, and is sent to hangups.
func untilSignal(ctx context.Context) (_ context.Context, hangups <-chan os.Signal, _ context.CancelFunc) {
	// The daemon goes on if the reader of its messages ends.
	signal.Ignore(unix.SIGPIPE)
	heard := make(chan os.Signal, 1)
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, unix.SIGTERM, unix.SIGINT)
	switch {
	case systemd.Supervised():
		signal.Notify(heard, unix.SIGHUP)
	case !signal.Ignored(unix.SIGHUP): // nohup ignores it
		signal.Notify(ends, unix.SIGHUP)
	}
	ctx, end := context.WithCancel(ctx)
	go func() {
		select {
		case <-ends:
		case <-ctx.Done():
		}
		signal.Stop(ends) // from here on a signal kills
		end()
	}()
	return ctx, heard, end
}

// reloadAt reloads the rule files at each hangup, until ctx ends.
func (r *rules) reloadAt(ctx context.Context, hangups <-chan os.Signal, stderr io.Writer) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		if !until(ctx, func() { r.reloadAndReport(stderr) }) {
			return
		}
	}
}

// reloadAndReport reloads the rule files, and writes the warnings and errors.
func (r *rules) reloadAndReport(stderr io.Writer) {
	done, err := r.reload(0)
	fmt.Fprint(systemd.At(stderr, systemd.Warning), done.Warnings)
	if err == nil {
		return
	}
	if wrong, ok := errors.AsType[*control.RulesError](err); ok {
		fmt.Fprint(systemd.At(stderr, systemd.Error), wrong.Diagnostics)
	}
	fmt.Fprintf(systemd.At(stderr, systemd.Error), "knockwall: %v\n", err)
}
