package control

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/wall"
)

// failing is a listener that only returns errors until it is closed, as in a process that
// has no file descriptor left.
type failing struct{ closed chan struct{} }

type temporary struct{ error }

func (temporary) Temporary() bool { return true }
func (temporary) Timeout() bool   { return false }

func (f failing) Accept() (net.Conn, error) {
	select {
	case <-f.closed:
		return nil, net.ErrClosed
	default:
		return nil, temporary{errors.New("too many open files")}
	}
}
func (f failing) Close() error   { close(f.closed); return nil }
func (f failing) Addr() net.Addr { return &net.UnixAddr{} }

func TestAcceptErrorsAreTold(t *testing.T) {
	told := make(chan string, 100)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, failing{make(chan struct{})}, Daemon{
			Wall: wall.New(wall.Edges{}, audit.Sinks{}), Complain: func(s string) { told <- s }})
	}()
	select {
	case text := <-told:
		if !strings.Contains(text, "too many open files") {
			t.Errorf("it is told as %q", text)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing is told")
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestComplaintsAreSummed(t *testing.T) {
	var told []string
	now := time.Unix(1e9, 0)
	c := &complaints{tell: func(s string) { told = append(told, s) }, now: func() time.Time { return now }}
	for range 1000 {
		if n, err := c.Write([]byte("no\nmore\n")); n != 8 || err != nil {
			t.Fatal(n, err)
		}
	}
	now = now.Add(complaintsEvery)
	_, _ = c.Write([]byte(strings.Repeat("x", 10000)))
	if len(told) != 2 || told[0] != "no" || told[1] != strings.Repeat("x", maxComplaint)+" (and 999 more since the last message)" {
		t.Errorf("told: %.1000q", told)
	}
}
