package integration

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fullPipe returns the end to write to of a pipe that takes nothing.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	fd := int(w.Fd())
	must(t, unix.SetNonblock(fd, true))
	for size := 4096; size > 0; {
		if _, err := unix.Write(fd, make([]byte, size)); errors.Is(err, unix.EAGAIN) {
			size /= 2
		} else {
			must(t, err)
		}
	}
	must(t, unix.SetNonblock(fd, false))
	return w
}

// A reader of stderr that takes nothing from the start keeps no wall from standing, no
// trial from ending, and no signal from being obeyed.
func TestNothingWaitsForStderr(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(22)
	path := l.rules(`wall { on_stop = "remove" }
door "ssh" {
  ports    = [22]
  sequence = [1, 2]
}`) // which is warned of
	for _, arguments := range [][]string{nil, {"--confirm", "2s"}} {
		cmd := knockwall(append([]string{"run", "--config", path, "--control", filepath.Join(l.folder, "control")}, arguments...)...)
		cmd.Stderr = fullPipe(t)
		must(t, on(l.server, cmd))
		exited := make(chan struct{})
		go func() { cmd.Wait(); close(exited) }()
		t.Cleanup(func() { cmd.Process.Kill(); <-exited })
		eventually(t, "the wall stands", func() bool { return !l.admits(client4, server4, 22) })
		if arguments == nil {
			must(t, cmd.Process.Signal(syscall.SIGTERM))
		}
		select {
		case <-exited:
		case <-time.After(deadline):
			t.Fatalf("run %q does not end", arguments)
		}
		if arguments != nil && !l.letsIn(client4, server4, 22) {
			t.Error("the trial is over, and the wall stands")
		}
	}
}
