//go:build linux && !client

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/terminal"
)

// trial is a trial that a user watches at a terminal.
type trial struct {
	client *control.Client
	path   string // of the control socket
	in     io.Reader
	out    io.Writer
	// follow passes on the events since before the trial began.
	follow func(each func(audit.Event) error) error
}

// newTrial prepares to watch a trial, before it begins. It returns nil if the user is not at a
// terminal, or if the daemon has no room for another follower.
func newTrial(c *cobra.Command, client *control.Client, path string) *trial {
	in, isFile := c.InOrStdin().(*os.File)
	if !isFile {
		return nil
	}
	_, reads := terminal.Width(in)
	_, writes := terminal.Width(c.OutOrStdout())
	if !reads || !writes {
		return nil
	}
	none := 0
	follow, err := client.Follow(c.Context(), control.Selection{Follow: true, Last: &none})
	if err != nil {
		return nil
	}
	return &trial{client: client, path: path, in: in, out: c.OutOrStdout(), follow: follow}
}

// errNotKept means that the rules on trial are no longer in force.
var errNotKept = errors.New("the new rules were not confirmed, and the former ones are in force again")

// watch counts down until the trial ends, and returns an error if its rules were not kept.
// Ctrl-C ends only the counting. Enter confirms the rules, but not before the user has read
// what that is worth.
func (t *trial) watch(ctx context.Context, until time.Time) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	t.say("Type `%s` in a new connection, and nowhere else: then you know that you can get in. "+
		"`%s` ends the trial at once, and Ctrl-C only this countdown.", control.Command(t.path, "confirm"), control.Command(t.path, "revert"))
	ended, entered := make(chan error, 1), make(chan struct{})
	go func() { ended <- t.end() }()
	go func() {
		for lines := bufio.NewScanner(t.in); lines.Scan(); {
			select {
			case entered <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	warned := false
	for {
		left := max(0, time.Until(until)).Round(time.Second)
		fmt.Fprintf(t.out, "\r\x1b[K%s left ", printable.Time(left)) // erase the line, write it anew
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.say("\nThe trial goes on until %s.", until.Format(time.TimeOnly))
			return nil
		case err := <-ended:
			if err == nil {
				t.say("\nThe new rules are confirmed, and stay in force.")
			} else {
				fmt.Fprintln(t.out)
			}
			return err
		case <-entered:
			if !warned {
				warned = true
				t.say("Enter in this window proves nothing: it was connected before the trial, and stays connected whatever the rules are. " +
					"If you are sure that you can get in, press Enter again.")
				continue
			}
			if _, err := t.client.Confirm(ctx); err != nil {
				t.say("%v", err)
			}
		}
	}
}

// end waits for the end of the trial.
func (t *trial) end() error {
	var result error
	over := errors.New("the trial is over")
	err := t.follow(func(e audit.Event) error {
		if e.Kind != audit.Reloaded {
			return nil
		}
		switch e.Code {
		case audit.CodeConfirmed:
		case audit.CodeNotConfirmed, audit.CodeReverted:
			result = errNotKept
		default:
			return nil
		}
		return over
	})
	if errors.Is(err, over) {
		return result
	}
	return err
}

func (t *trial) say(format string, a ...any) {
	terminal.WriteParagraph(t.out, fmt.Sprintf(format, a...))
}
