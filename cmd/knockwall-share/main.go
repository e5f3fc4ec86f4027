//go:build linux

// Knockwall-share shares the windows of this host with others. `knockwall share` runs it. It
// is a program of its own, so that the daemon has no code that uses a network.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/share"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

// Exit codes, as those of knockwall.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// run shares windows until a signal stops it.
func run(arguments []string, stderr io.Writer) int {
	flags := pflag.NewFlagSet("knockwall-share", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	config := flags.String("config", "/etc/knockwall.d", "")
	path := flags.String("control", control.DefaultPath, "")
	fail := func(code int, format string, a ...any) int {
		fmt.Fprintf(systemd.At(stderr, systemd.Error), "knockwall share: "+format+"\n", a...)
		return code
	}
	if err := flags.Parse(arguments); err != nil || flags.NArg() > 0 {
		return fail(exitUsage, `it takes only flags. See "knockwall share --help"`)
	}
	s, l := ruleset.LoadShare(*config)
	_ = terminal.WriteDiagnostics(stderr, l)
	switch {
	case l.Diagnostics.HasErrors():
		return exitUsage
	case s == nil:
		return fail(exitUsage, "%s has no share block, which says with whom to share", *config)
	}
	name, err := nameOf(s)
	if err != nil {
		return fail(exitFailed, "%v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := func(failed bool, text string) {
		w := stderr
		if failed {
			w = systemd.At(stderr, systemd.Warning)
		}
		fmt.Fprintf(w, "knockwall share: %s\n", text)
	}
	log(false, fmt.Sprintf("this host is %s in the group %s", name, s.Group))
	if err := share.New(share.Options{Share: s, Name: name, Control: *path, Log: log}).Run(ctx); err != nil {
		return fail(exitFailed, "%v", err)
	}
	return exitDone
}

// nameOf returns the name of this host in its group.
func nameOf(s *ruleset.Share) (string, error) {
	if s.Name != "" {
		return s.Name, nil
	}
	host, err := os.Hostname()
	name, _, _ := strings.Cut(host, ".")
	if err == nil && !ruleset.IsMemberName(name) {
		err = fmt.Errorf("the host's name %q cannot be its name in the group: write name in the share block", name)
	}
	return name, err
}
