package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/wall"
)

// socket returns a path that is short enough for a socket.
func socket(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "run", "control.sock")
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dead leaves a socket on which nobody listens, as a killed daemon does.
func dead(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestTheSocketIsForItsOwnerAndGroupAlone(t *testing.T) {
	// Even a umask of 0 does not open the socket to others.
	defer syscall.Umask(syscall.Umask(0))
	path := socket(t)
	listen(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeSocket|0o660; got != want {
		t.Errorf("mode %v, want %v", got, want)
	}
	if mask := syscall.Umask(0); mask != 0 {
		t.Errorf("the umask of the process has become %#o", mask)
	}
}

func TestADeadSocketIsReplaced(t *testing.T) {
	path := socket(t)
	dead(t, path)
	l := listen(t, path)
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Close()
		}
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("nobody listens: %v", err)
	}
	conn.Close()
}

func TestASocketThatIsAnsweredIsLeftAlone(t *testing.T) {
	path := socket(t)
	listen(t, path)
	_, err := Listen(path)
	wantError(t, err, "a knockwall daemon is running already", path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first one no longer listens: %v", err)
	}
	conn.Close()
}

func TestNoOtherFileIsReplaced(t *testing.T) {
	for name, occupy := range map[string]func(path string) error{
		"a file":    func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"a folder":  func(path string) error { return os.Mkdir(path, 0o700) },
		"a symlink": func(path string) error { return os.Symlink("/nowhere", path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := occupy(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Listen(path)
			wantError(t, err, path, "is not a socket", "--control")
			after, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if !os.SameFile(before, after) {
				t.Error("it is another file now")
			}
		})
	}
}

func TestPathsThatNoSocketCanHaveAreRefused(t *testing.T) {
	long := filepath.Join(filepath.Dir(socket(t)), strings.Repeat("x", 108))
	for path, want := range map[string]string{
		"":           "is not the path of a file",
		"@knockwall": "is not the path of a file", // an abstract socket has no permissions
		long:         "may have 107 bytes",
	} {
		l, err := Listen(path)
		if err == nil {
			l.Close()
		}
		wantError(t, err, want, path, "--control")
	}
	_, err := NewClient(long).Status(context.Background(), wall.WindowQuery{})
	wantError(t, err, "may have 107 bytes", "--control")
}

func TestTheClientSaysWhyThereIsNoAnswer(t *testing.T) {
	t.Run("no socket", func(t *testing.T) {
		path := socket(t)
		_, err := NewClient(path).Status(context.Background(), wall.WindowQuery{})
		wantError(t, err, "no knockwall listens at "+path, "knockwall run", "--control")
	})
	t.Run("a dead socket", func(t *testing.T) {
		path := socket(t)
		dead(t, path)
		_, err := NewClient(path).Status(context.Background(), wall.WindowQuery{})
		wantError(t, err, "no knockwall listens at "+path, "knockwall run")
	})
	t.Run("somebody who is silent", func(t *testing.T) {
		path := socket(t)
		listen(t, path) // the kernel accepts connections, but nobody reads
		c := NewClient(path)
		c.http.Timeout = 50 * time.Millisecond
		_, err := c.Status(context.Background(), wall.WindowQuery{})
		wantError(t, err, path, "does not answer")
	})
	t.Run("somebody who hangs up", func(t *testing.T) {
		path := socket(t)
		l := listen(t, path)
		go func() {
			if conn, err := l.Accept(); err == nil {
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				conn.Close()
			}
		}()
		_, err := NewClient(path).Status(context.Background(), wall.WindowQuery{})
		wantError(t, err, path, "hung up", "try again")
	})
	t.Run("a context that has ended", func(t *testing.T) {
		path := socket(t)
		listen(t, path)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := NewClient(path).Status(ctx, wall.WindowQuery{})
		wantError(t, err, context.Canceled.Error())
	})
	t.Run("a socket of somebody else", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root may use every socket: needs a user that is not root")
		}
		path := socket(t)
		listen(t, path)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		_, err := NewClient(path).Status(context.Background(), wall.WindowQuery{})
		wantError(t, err, path, "not yours to use", "sudo")
	})
}

// answering serves requests with handler, and returns a client.
func answering(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	path := socket(t)
	server := httptest.NewUnstartedServer(handler)
	server.Listener.Close()
	server.Listener = listen(t, path)
	server.Start()
	t.Cleanup(server.Close)
	return NewClient(path)
}

func TestTheClientReadsTheStatus(t *testing.T) {
	want := wall.Status{
		Table: "knockwall",
		Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Doors: []wall.DoorStatus{{Name: "ssh", Knocks: 3, Counters: wall.DoorCounters{Accepted: 7}}},
	}
	c := answering(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/v1/status" {
			t.Errorf("asked for %s %s", r.Method, r.URL.Path)
		}
		_ = json.NewEncoder(rw).Encode(want)
	})
	got, err := c.Status(context.Background(), wall.WindowQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTheClientPassesOnWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"an error of the daemon", "the daemon says: the table is gone", func(rw http.ResponseWriter, _ *http.Request) {
			fail(rw, http.StatusInternalServerError, errors.New("the table is gone"))
		}},
		{"an error of somebody else", "the daemon says: 404 Not Found", http.NotFound},
		{"garbage", "it is another program, or another version", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte("<html>"))
		}},
		{"half an answer", "has ended while it answered", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(`{"table": "knock`))
		}},
		{"another kind of answer", "it is another program, or another version", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(`{"table": 7}`))
		}},
		// Limited by size, and on a slow machine by time.
		{"an answer without end", "try again", func(rw http.ResponseWriter, r *http.Request) {
			piece := []byte(strings.Repeat(" ", 1<<16))
			for r.Context().Err() == nil {
				if _, err := rw.Write(piece); err != nil {
					return
				}
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := answering(t, test.answer).Status(context.Background(), wall.WindowQuery{})
			wantError(t, err, test.want)
			NoGo(t, err.Error())
		})
	}
}

func TestTheClientSaysWhyItCannotReadLines(t *testing.T) {
	for name, read := range map[string]func(*Client) error{
		"events": func(c *Client) error {
			return c.Events(t.Context(), Selection{}, func(audit.Event) error { return nil })
		},
		"changes": func(c *Client) error {
			return c.FollowChanges(t.Context(), "", func(wall.Change) error { return nil })
		},
	} {
		for text, want := range map[string]string{
			"<html>":       "it is another program, or another version",
			`{"door": 7}`:  "it is another program, or another version",
			`{"door": "ss`: "has ended while it answered",
		} {
			err := read(answering(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(text)) }))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is told as: %v", name, text, err)
			}
		}
	}
}

// notYet returns a daemon whose wall is not in force yet.
func notYet() Daemon {
	w := wall.New(wall.Edges{}, audit.Sinks{})
	return Daemon{Wall: w, History: audit.NewHistory(), Confirm: func() (Confirmed, error) { return Confirmed{}, w.Confirm() }}
}

func TestServeEndsWithItsContext(t *testing.T) {
	path := socket(t)
	l := listen(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, notYet()) }()

	for _, request := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/", http.StatusOK},
		{http.MethodGet, "/v1/nothing", http.StatusNotFound},
		{http.MethodPost, "/v1/status", http.StatusMethodNotAllowed},
		{http.MethodGet, "/v1/status", http.StatusInternalServerError},
		{http.MethodGet, "/v1/windows", http.StatusOK},
		{http.MethodGet, "/v1/explain/192.0.2.7", http.StatusInternalServerError},
		{http.MethodGet, "/v1/explain/everybody", http.StatusBadRequest},
		{http.MethodPost, "/v1/confirm", http.StatusConflict},
		{http.MethodPost, "/v1/revert", http.StatusConflict},
	} {
		r, err := http.NewRequest(request.method, "http://knockwall"+request.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := NewClient(path).http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != request.want {
			t.Errorf("%s %s is answered with %s", request.method, request.path, response.Status)
		}
	}

	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	l := listen(t, socket(t))
	l.Close()
	wantError(t, Serve(context.Background(), l, notYet()), "answering on the control socket")
}
