package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// RunUnowned starts a daemon whose table other programs can change, and waits until the
// wall is in force.
func (l *Lab) RunUnowned(rules string) *Daemon {
	l.T.Helper()
	if !l.SupportsOwnership() {
		return l.Run(rules) // this kernel has only such tables
	}
	return l.RunTestBinary(rules)
}

// RunTestBinary starts the test binary as a daemon, so that the daemon has what only the
// tests have, and waits until the wall is in force.
func (l *Lab) RunTestBinary(rules string) *Daemon {
	l.T.Helper()
	self, err := os.Executable()
	Must(l.T, err)
	control := filepath.Join(l.Folder, "control")
	cmd := exec.Command(self, l.WriteRules(rules), control)
	cmd.Env = []string{unownedVariable + "=1"}
	return l.LaunchCommand(control, cmd).waitUntilGuarding()
}

// unownedVariable makes a test binary a daemon that does not use table ownership. The
// kernel then lets others change its wall, as kernels before Linux 6.9 do. The arguments
// are the rule files and the control socket.
const unownedVariable = "KNOCKWALL_UNOWNED"

// unownedDaemon is a minimal `knockwall run`.
func unownedDaemon(rules, path string) error {
	// A test may send the signal as soon as it reads that the daemon is guarding.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	kernel, err := nft.OpenKernel()
	if err != nil {
		return err
	}
	kernel.DisableFeatures(nft.Features{NativeQueue: kernel.Features().NativeQueue})
	listener, err := control.Listen(path)
	if err != nil {
		return err
	}
	history := audit.NewHistory()
	w := wall.New(wall.KernelEdges(kernel), audit.Sinks{history, audit.Text(os.Stderr)})
	raise := func(confirm time.Duration) (done control.Reloaded, err error) {
		loaded := ruleset.Load(rules)
		switch {
		case loaded.Config == nil:
			return done, &control.RulesError{Diagnostics: loaded.Diagnostics.Error()}
		case confirm != 0:
			return done, w.Try(loaded.Config, confirm)
		}
		return done, w.Apply(loaded.Config)
	}
	if _, err := raise(0); err != nil {
		return err
	}
	confirm := func() (control.Confirmed, error) { return control.Confirmed{}, w.Confirm() }
	fmt.Fprintln(os.Stderr, "guarding without owning a table")
	served := make(chan error, 1)
	go func() {
		served <- control.Serve(ctx, listener, control.Daemon{Wall: w, History: history, Reload: raise, Confirm: confirm})
	}()
	if err := w.Run(ctx); err != nil {
		return err
	}
	return <-served
}
