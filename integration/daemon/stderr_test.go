package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// fullPipe returns the write end of a pipe that is full and that nobody reads.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	lab.Must(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	fd := int(w.Fd())
	lab.Must(t, unix.SetNonblock(fd, true))
	for size := 4096; size > 0; {
		if _, err := unix.Write(fd, make([]byte, size)); errors.Is(err, unix.EAGAIN) {
			size /= 2
		} else {
			lab.Must(t, err)
		}
	}
	lab.Must(t, unix.SetNonblock(fd, false))
	return w
}

// If nobody reads stderr, the wall is put in force nevertheless, a trial ends, and the
// daemon obeys signals.
func TestNothingWaitsForStderr(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	path := l.WriteRules(`wall { on_stop = "remove" }
door "ssh" {
  ports    = [22]
  sequence = [1, 2]
}`) // the daemon warns of this sequence
	for _, arguments := range [][]string{nil, {"--confirm", "10s"}} {
		cmd := lab.Knockwall(append([]string{"run", "--config", path, "--control", filepath.Join(l.Folder, "control")}, arguments...)...)
		cmd.Stderr = fullPipe(t)
		lab.Must(t, lab.StartOn(l.Server, cmd))
		exited := make(chan struct{})
		go func() { cmd.Wait(); close(exited) }()
		t.Cleanup(func() { cmd.Process.Kill(); <-exited })
		eventually.True(t, "the wall is in force", func() bool { return !l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) })
		if arguments == nil {
			lab.Must(t, cmd.Process.Signal(syscall.SIGTERM))
		}
		select {
		case <-exited:
		case <-time.After(lab.Deadline):
			t.Fatalf("run %q does not end", arguments)
		}
		if arguments != nil && !l.Admits(lab.Client4, lab.Server4, 22) {
			t.Error("the trial has ended, but the wall is in force")
		}
	}
}
