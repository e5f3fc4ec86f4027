//go:build linux

package daemon

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// waitForSignals is a program that takes the signals of a daemon. It says what they do,
// and never ends by itself.
func waitForSignals() error {
	ctx, hangups, stop := untilSignal(context.Background())
	defer stop()
	fmt.Println("running")
	for {
		select {
		case <-hangups:
			fmt.Println("reload")
		case <-ctx.Done():
			fmt.Println("stopping")
			select {}
		}
	}
}

// The first signal stops the daemon, and the second kills it. SIGHUP stops a daemon at a
// terminal, and makes a service reload its rule files.
func TestSignals(t *testing.T) {
	const term, interrupt, hangup = unix.SIGTERM, unix.SIGINT, unix.SIGHUP
	service := []string{"NOTIFY_SOCKET=/nowhere"}
	for _, test := range []struct {
		name          string
		environment   []string
		reloads       int
		first, second syscall.Signal
	}{
		{"TERM and TERM", nil, 0, term, term},
		{"TERM and INT", nil, 0, term, interrupt},
		{"INT and TERM", nil, 0, interrupt, term},
		{"the terminal is gone", nil, 0, hangup, term},
		{"a service", service, 0, term, term},
		{"a service that reloads", service, 2, term, interrupt},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, "signals", false, test.environment)
			c.expect(t, "running")
			for range test.reloads {
				c.signal(t, hangup)
				c.expect(t, "reload")
			}
			c.signal(t, test.first)
			c.expect(t, "stopping")
			c.signal(t, test.second)
			_ = c.Wait()
			if status := c.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != test.second {
				t.Errorf("after the second signal it ended with %v", c.ProcessState)
			}
		})
	}
}

// A reader of stderr that ends does not end the daemon.
func TestBrokenPipeDoesNotEndTheDaemon(t *testing.T) {
	c := start(t, "signals", false, nil)
	c.expect(t, "running")
	c.signal(t, unix.SIGPIPE)
	c.signal(t, unix.SIGTERM)
	c.expect(t, "stopping")
}
