// Package control lets commands ask the daemon: HTTP with JSON on a unix
// socket, so that curl can, too.
//
//	curl --unix-socket /run/knockwall/control.sock http://knockwall/v1/status
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/knockwall/knockwall/internal/wall"
)

// DefaultPath is where the daemon listens unless it is told otherwise.
const DefaultPath = "/run/knockwall/control.sock"

// The bounds of what a client can make the daemon keep, and of an answer.
const (
	clientTimeout = 10 * time.Second
	maxHeader     = 8 << 10
	maxAnswer     = 16 << 20
)

// Listen makes the control socket, which its owner and group may use. It takes
// the place of a socket that a killed daemon has left, but not of one that is
// answered, and of no other file.
func Listen(path string) (net.Listener, error) {
	// To the kernel, either of these is a socket that everybody may use.
	if path == "" || path[0] == '@' {
		return nil, fmt.Errorf("%q is not the path of a file: name another with --control", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the control socket: %w", err)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("looking for the control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there and is no socket: remove it, or name another path with --control", path)
	default:
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("a knockwall is running already, and listens at %s", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("looking who listens at the control socket: %w", err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing a dead control socket: %w", err)
		}
	}
	// The socket is made with these rights, not given them a moment later.
	mask := syscall.Umask(0o117)
	defer syscall.Umask(mask)
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EINVAL) {
		return nil, tooLong(path)
	}
	if err != nil {
		return nil, fmt.Errorf("listening for control: %w", err)
	}
	return l, nil
}

// tooLong is what the kernel means by EINVAL: unix(7), "Pathname sockets".
func tooLong(path string) error {
	return fmt.Errorf("the path of a socket may have 107 bytes, and %s has %d: name a shorter one with --control", path, len(path))
}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, w *wall.Wall) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(rw http.ResponseWriter, _ *http.Request) {
		status, err := w.Status()
		if err != nil {
			fail(rw, http.StatusInternalServerError, err)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(rw)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(status) // the client may be gone
	})
	server := &http.Server{
		Handler:           mux,
		ReadTimeout:       clientTimeout,
		WriteTimeout:      clientTimeout,
		IdleTimeout:       clientTimeout,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: clientTimeout,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answering on the control socket: %w", err)
	}
	return nil
}

// problem is the body of every answer that is not the one that was asked for.
type problem struct {
	Error string `json:"error"`
}

func fail(rw http.ResponseWriter, code int, err error) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	_ = json.NewEncoder(rw).Encode(problem{err.Error()})
}

// Client asks the daemon that listens at a path.
type Client struct {
	path string
	http http.Client
}

// NewClient returns a client for the socket at path.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{
		Timeout: clientTimeout,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Status asks for the state of the wall.
func (c *Client) Status(ctx context.Context) (wall.Status, error) {
	var s wall.Status
	return s, c.get(ctx, "/v1/status", &s)
}

func (c *Client) get(ctx context.Context, path string, to any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://knockwall"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no knockwall listens at %s: start it with `knockwall run`, or name its socket with --control", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the control socket %s is not yours to use: try it with sudo, or join the group that owns it", c.path)
	case errors.Is(err, syscall.EINVAL):
		return tooLong(c.path)
	case os.IsTimeout(err):
		return fmt.Errorf("who listens at %s does not answer: see what became of the daemon", c.path)
	case err != nil:
		return fmt.Errorf("asking the daemon: %w", err)
	}
	defer response.Body.Close()
	body := io.LimitReader(response.Body, maxAnswer)
	if response.StatusCode != http.StatusOK {
		var p problem
		if err := json.NewDecoder(body).Decode(&p); err != nil || p.Error == "" {
			p.Error = response.Status
		}
		return fmt.Errorf("the daemon says: %s", p.Error)
	}
	if err := json.NewDecoder(body).Decode(to); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}
