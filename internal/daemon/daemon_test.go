//go:build linux

package daemon

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/wall"
)

// folderOf returns a new folder whose path is short enough for sockets.
func folderOf(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

const sshRules = `door "ssh" {
  ports    = [22]
  sequence = [4118, "27917/udp", 1847]
}
`

// waitUntilGuarding waits until the daemon says that it guards the door of sshRules.
func (c *child) waitUntilGuarding(t *testing.T) {
	t.Helper()
	for c.lines.Scan() {
		switch line := c.lines.Text(); {
		case strings.HasPrefix(line, "guarding ssh: 22/tcp, "):
			return
		case strings.Contains(line, "CAP_NET_ADMIN") && os.Getenv("CI") == "":
			t.Skip("needs a kernel on which the daemon runs: ", line)
		}
	}
	t.Fatal("the daemon does not guard the door")
}

// A daemon on the real kernel, from its start to its end: systemd, the clients and stderr
// are told in the order that the documentation of the package gives.
func TestLifeOfADaemon(t *testing.T) {
	folder := folderOf(t)
	rules, socket, notify := filepath.Join(folder, "ssh.hcl"), filepath.Join(folder, "control"), filepath.Join(folder, "notify")
	if err := os.WriteFile(rules, []byte(sshRules), 0o600); err != nil {
		t.Fatal(err)
	}
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	next := func() string {
		t.Helper()
		b := make([]byte, 4096)
		_ = systemd.SetReadDeadline(time.Now().Add(patience))
		n, err := systemd.Read(b)
		if err != nil {
			t.Fatalf("systemd is told nothing: %v", err)
		}
		state, _, _ := strings.Cut(string(b[:n]), "\n")
		return state
	}

	d := start(t, "daemon", true, []string{"NOTIFY_SOCKET=" + notify}, rules, socket)
	d.waitUntilGuarding(t)
	if got := next(); got != "READY=1" {
		t.Fatalf("systemd is told %q", got)
	}
	client := control.NewClient(socket)
	if _, err := client.Status(t.Context(), wall.WindowQuery{}); err != nil {
		t.Fatalf("the daemon is ready, and does not answer: %v", err)
	}

	// The follower gets the daemon's last event, then the end of the stream.
	var kinds []audit.Kind
	following, followed := make(chan struct{}), make(chan error, 1)
	go func() {
		followed <- client.Events(t.Context(), control.Selection{Follow: true}, func(e audit.Event) error {
			if kinds = append(kinds, e.Kind); len(kinds) == 1 {
				close(following)
			}
			return nil
		})
	}()
	select {
	case <-following:
	case err := <-followed:
		t.Fatalf("the events cannot be followed: %v", err)
	}
	d.signal(t, unix.SIGTERM)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("systemd is told %q", got)
	}
	<-followed // with an error, as the daemon has ended
	if want := []audit.Kind{audit.Started, audit.Stopped}; !slices.Equal(kinds, want) {
		t.Errorf("the follower got %v, want %v", kinds, want)
	}
	var rest []string
	for d.lines.Scan() {
		_, event, _ := strings.Cut(d.lines.Text(), " ")
		rest = append(rest, strings.Fields(event)[0])
	}
	if want := []string{"started", "stopped"}; !slices.Equal(rest, want) {
		t.Errorf("the events on stderr are %q, want %q", rest, want)
	}
	if err := d.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the control socket is left")
	}
}

// The end of a trial that nobody confirmed is what the user asked for: the message is that of
// the wall, without the name of a task.
func TestTrialThatNobodyConfirms(t *testing.T) {
	folder := folderOf(t)
	rules := filepath.Join(folder, "ssh.hcl")
	if err := os.WriteFile(rules, []byte(sshRules), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, "trial", true, nil, rules, filepath.Join(folder, "control"))
	d.waitUntilGuarding(t)
	var last string
	for d.lines.Scan() {
		last = d.lines.Text()
	}
	// TestMain writes the error, too.
	if want := "trial: the wall was not confirmed in time and is removed"; last != want {
		t.Errorf("the last line is %q, want %q", last, want)
	}
	if d.Wait() == nil {
		t.Error("it ends without an error")
	}
}
