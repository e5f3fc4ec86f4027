//go:build linux

package main

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
	stops := []os.Signal{unix.SIGTERM, unix.SIGINT}
	switch {
	case systemd.Supervised():
		signal.Notify(heard, unix.SIGHUP)
	case !signal.Ignored(unix.SIGHUP): // nohup ignores it
		stops = append(stops, unix.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, stops...)
	context.AfterFunc(ctx, stop)
	return ctx, heard, stop
}

// reloadAt reloads the rule files at each hangup.
func (r *rules) reloadAt(ctx context.Context, hangups <-chan os.Signal, said io.Writer) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		_, warnings, err := r.reload(0)
		fmt.Fprint(systemd.At(said, systemd.Warning), warnings)
		if err == nil {
			continue
		}
		if wrong, ok := errors.AsType[*control.RulesError](err); ok {
			fmt.Fprint(systemd.At(said, systemd.Error), wrong.Diagnostics)
		}
		fmt.Fprintf(systemd.At(said, systemd.Error), "knockwall: %v\n", err)
	}
}
