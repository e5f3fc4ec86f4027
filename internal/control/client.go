package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/systemd"
)

// changeTimeout is how long a client waits for the answer to a change. A reload of many
// doors takes time on a busy machine.
const changeTimeout = 2 * time.Minute

// maxAnswer is the greatest length of an answer, in bytes. One with as many windows as fit has
// about 10 MB.
const maxAnswer = 32 << 20

// Client sends requests to the daemon.
type Client struct {
	// Session is the user's ssh session, if there is one. Reload asks which doors shut it out.
	Session host.SSH

	path string
	http http.Client
}

// NewClient returns a client for the socket at path.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{
		Transport: &http.Transport{
			ResponseHeaderTimeout: changeTimeout,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// ErrNoDaemon means that no daemon listens on the socket.
var ErrNoDaemon = errors.New("no knockwall listens")

// RequestError is an error in a request.
type RequestError struct{ err error }

func (e *RequestError) Error() string { return e.err.Error() }

// Status returns the state of the wall, with the open windows that are wanted. If they do not
// fit into one answer, it asks for more.
func (c *Client) Status(ctx context.Context, windows wall.WindowQuery) (s wall.Status, err error) {
	path := func() string { return "/v1/status?" + windowsQuery(windows).Encode() }
	if err := c.ask(ctx, http.MethodGet, path(), nil, &s); err != nil {
		return s, err
	}
	most := windows.Limit
	for s.WindowsNext != "" && (most == 0 || len(s.Windows) < most) {
		if windows.After, err = wall.ParseWindowPlace(s.WindowsNext); err != nil {
			return s, fmt.Errorf("the daemon's answer cannot be read: %w", err)
		}
		if most > 0 {
			windows.Limit = most - len(s.Windows)
		}
		var more wall.Status
		if err := c.ask(ctx, http.MethodGet, path(), nil, &more); err != nil {
			return s, err
		}
		s.Windows, s.WindowsNext = append(s.Windows, more.Windows...), more.WindowsNext
	}
	return s, nil
}

// Open opens a window for a source, for the time in window. If window is empty, it uses
// the door's own time.
func (c *Client) Open(ctx context.Context, door, source, window string) (w wall.WindowStatus, err error) {
	return w, c.ask(ctx, http.MethodPost, "/v1/windows", openRequest{door, source, window}, &w)
}

// Close closes a source's window. With sessions, it also ends the source's connections
// through the door.
func (c *Client) Close(ctx context.Context, door, source string, sessions bool) (w wall.Closing, err error) {
	path := "/v1/windows/" + url.PathEscape(door) + "/" + url.PathEscape(source) + "?sessions=" + strconv.FormatBool(sessions)
	return w, c.ask(ctx, http.MethodDelete, path, nil, &w)
}

// Explain returns for each door whether it admits an address, and why.
func (c *Client) Explain(ctx context.Context, address string) (all []wall.Explanation, err error) {
	return all, c.ask(ctx, http.MethodGet, "/v1/explain/"+url.PathEscape(address), nil, &all)
}

// Reload makes the daemon read the rule files again. If confirm is not empty, the new
// rules are on trial for that time. It returns a [*RulesError] if the files have errors.
func (c *Client) Reload(ctx context.Context, confirm string) (r Reloaded, err error) {
	path := "/v1/reload"
	if s := c.Session; s.Client.IsValid() {
		path += "?" + url.Values{parameterSession: {s.String()}}.Encode()
	}
	return r, c.ask(ctx, http.MethodPost, path, reloadRequest{confirm}, &r)
}

// Confirm ends a trial and keeps the rules.
func (c *Client) Confirm(ctx context.Context) (done Confirmed, err error) {
	return done, c.ask(ctx, http.MethodPost, "/v1/confirm", nil, &done)
}

// Revert ends a trial, and puts the former rules back. If there was no wall before, it takes
// the wall down, and the daemon ends.
func (c *Client) Revert(ctx context.Context) (r Reverted, err error) {
	return r, c.ask(ctx, http.MethodPost, "/v1/revert", nil, &r)
}

// Down removes the wall and ends the daemon.
func (c *Client) Down(ctx context.Context) (l Lowered, err error) {
	return l, c.ask(ctx, http.MethodPost, "/v1/down", nil, &l)
}

// Events calls each with every event of the selection, until there are no more, or ctx or the
// daemon ends.
func (c *Client) Events(ctx context.Context, wanted Selection, each func(audit.Event) error) error {
	follow, err := c.Follow(ctx, wanted)
	if err != nil {
		return err
	}
	return follow(each)
}

// Follow selects events. From its return on the daemon passes on all that happen, for the
// function to call each with them, as Events does.
func (c *Client) Follow(ctx context.Context, wanted Selection) (func(each func(audit.Event) error) error, error) {
	response, err := c.send(ctx, http.MethodGet, "/v1/events?"+wanted.query().Encode(), nil)
	if err != nil {
		return nil, err
	}
	return func(each func(audit.Event) error) error { return lines(ctx, c, response, wanted.Follow, each) }, nil
}

// FollowChanges calls each with every change after a cursor, until ctx or the daemon ends. Without
// a cursor that the daemon knows, it begins with the state.
func (c *Client) FollowChanges(ctx context.Context, cursor string, each func(wall.Change) error) error {
	response, err := c.send(ctx, http.MethodGet, "/v1/changes?after="+url.QueryEscape(cursor), nil)
	if err != nil {
		return err
	}
	return lines(ctx, c, response, true, each)
}

// lines calls each with the lines of a response. With follow, they end only with the daemon.
func lines[T any](ctx context.Context, c *Client, response *http.Response, follow bool, each func(T) error) error {
	defer response.Body.Close()
	decoder := json.NewDecoder(response.Body)
	for {
		var line T
		switch err := decoder.Decode(&line); {
		case errors.Is(err, io.EOF) && follow:
			return fmt.Errorf("the daemon at %s has ended", c.path)
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return c.unreadable(err)
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// Tell tells the daemon of changes at another host. It returns an error for each of them,
// "" if there was none.
func (c *Client) Tell(ctx context.Context, origin string, changes []Told) ([]string, error) {
	var a toldAnswer
	err := c.ask(ctx, http.MethodPost, "/v1/changes", tellRequest{origin, changes}, &a)
	if err == nil && len(a.Errors) != len(changes) {
		err = errors.New("the daemon's answer does not fit the request")
	}
	return a.Errors, err
}

// TellSharing tells the daemon what a companion knows of its group.
func (c *Client) TellSharing(ctx context.Context, known wall.Companion) error {
	return c.ask(ctx, http.MethodPost, "/v1/sharing", known, &struct{}{})
}

// ask sends a request and reads an answer that comes at once.
func (c *Client) ask(ctx context.Context, method, path string, body, to any) error {
	timeout := clientTimeout
	if method != http.MethodGet {
		timeout = changeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(to); err != nil {
		return c.unreadable(err)
	}
	return nil
}

// unreadable says why an answer cannot be read.
func (c *Client) unreadable(err error) error {
	_, isSyntax := errors.AsType[*json.SyntaxError](err)
	_, isType := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case isSyntax, isType:
		return fmt.Errorf("what answers at %s is not this knockwall's daemon: it is another program, or another version. "+
			"After an upgrade, restart the daemon", c.path)
	case os.IsTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the daemon at %s has begun an answer and does not end it; try again", c.path)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the daemon at %s has ended while it answered; try again", c.path)
	}
	return fmt.Errorf("reading the answer of the daemon at %s: %w", c.path, err)
}

// send sends a request. It returns an error for every status but 200.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var b io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		b = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://knockwall"+path, b)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		start := "knockwall run"
		if c.path == DefaultPath && systemd.HasUnit("knockwall.service") {
			start = "sudo systemctl start knockwall"
		}
		return nil, fmt.Errorf("%w at %s: start it with `%s`, or name its socket with --control", ErrNoDaemon, c.path, start)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the control socket %s is not yours to use: try it with sudo%s", c.path, orJoin(c.path))
	case errors.Is(err, syscall.EINVAL):
		return nil, tooLong(c.path)
	case c.path == "":
		return nil, errors.New("--control has no path")
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return nil, fmt.Errorf("the daemon at %s hung up: there are too many requests at once, or the daemon has just ended; try again", c.path)
	case os.IsTimeout(err):
		return nil, fmt.Errorf("the daemon at %s does not answer: check its state "+
			"with `systemctl status knockwall` if systemd starts it", c.path)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("sending a request to the daemon at %s: %w", c.path, causeOf(err))
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var p problem
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&p); err != nil || p.Error == "" {
		p.Error = response.Status
	}
	if p.Diagnostics != "" {
		return nil, &RulesError{p.Diagnostics}
	}
	err = fmt.Errorf("the daemon says: %s", p.Error)
	if response.StatusCode == http.StatusBadRequest {
		err = &RequestError{err}
	}
	return nil, err
}

// orJoin says how a user gets access to a socket, if its group has access and can be named.
func orJoin(socket string) string {
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm()&0o060 != 0o060 {
		return ""
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Gid == 0 {
		return ""
	}
	group, err := user.LookupGroupId(strconv.FormatUint(uint64(owner.Gid), 10))
	if err != nil {
		return ""
	}
	name := "YOUR-NAME"
	if me, err := user.Current(); err == nil {
		name = me.Username
	}
	return fmt.Sprintf(", or join its group and log in again: sudo usermod -aG %s %s", group.Name, name)
}

// causeOf returns the system's own error, without the words of Go's packages around it.
func causeOf(err error) error {
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number
	}
	if wrong, ok := errors.AsType[*url.Error](err); ok {
		return wrong.Err
	}
	return err
}
