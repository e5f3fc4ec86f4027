package control_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/control"
)

// prompt is how long a request may take that nothing should delay.
const prompt = 5 * time.Second

// wantPrompt checks that a request is answered promptly.
func wantPrompt(t *testing.T, s *served) {
	t.Helper()
	for _, request := range []struct{ method, path, body string }{
		{"GET", "/v1/status", ""},
		{"POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7"}`},
		{"DELETE", "/v1/windows/ssh/192.0.2.7", ""},
	} {
		began := time.Now()
		response, body := s.ask(t, request.method, request.path, request.body)
		if took := time.Since(began); took > prompt || response.StatusCode != http.StatusOK {
			t.Errorf("%s %s: %s after %s: %s", request.method, request.path, response.Status, took, body)
		}
	}
}

// serving waits until at most that many goroutines serve connections.
func serving(t *testing.T, most int) {
	t.Helper()
	for end := time.Now().Add(prompt); ; time.Sleep(5 * time.Millisecond) {
		all := make([]byte, 16<<20)
		all = all[:runtime.Stack(all, true)]
		got := bytes.Count(all, []byte("\ncreated by net/http.(*Server).")) + bytes.Count(all, []byte("\ncreated by net/http.(*connReader)."))
		if got <= most {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are there for connections, want at most %d:\n%.10000s", got, most, all)
		}
	}
}

func TestConnectionsThatWaitHoldNobodyUp(t *testing.T) {
	for name, sent := range map[string]string{
		"silent":           "",
		"half a request":   "GET /v1/sta",
		"no end of header": "GET /v1/status HTTP/1.1\r\nHost: knockwall\r\n",
		"kept alive":       "GET /v1/windows HTTP/1.1\r\nHost: knockwall\r\n\r\n",
		"no body":          "POST /v1/windows HTTP/1.1\r\nHost: knockwall\r\nContent-Length: 40\r\n\r\n",
	} {
		for _, count := range []int{300, 600} {
			t.Run(fmt.Sprintf("%d %s", count, name), func(t *testing.T) {
				s := serve(t)
				var all []net.Conn
				for range count {
					conn := s.dial(t)
					_, _ = io.WriteString(conn, sent) // surplus connections are closed already
					all = append(all, conn)
				}
				wantPrompt(t, s)
				serving(t, control.MaxConnections)
				if count <= control.MaxConnections {
					// No connection is closed.
					for _, conn := range []net.Conn{all[0], all[len(all)-1]} {
						if sent == "" {
							fmt.Fprint(conn, "GET /v1/windows HTTP/1.1\r\nHost: knockwall\r\n\r\n")
							response, err := http.ReadResponse(bufio.NewReader(conn), nil)
							if err != nil || response.StatusCode != http.StatusOK {
								t.Errorf("one that waited is answered with %v, %v", response, err)
							}
						}
					}
				}
				for _, conn := range all {
					conn.Close()
				}
				serving(t, 0)
				wantPrompt(t, s)
			})
		}
	}
}

// closing is a connection that only records that it was closed.
type closing struct {
	net.Conn
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

// The goroutine of a closed connection may notice that later.
func TestOfTooManyEachThatComesTakesThePlaceOfAnother(t *testing.T) {
	changed, _ := control.Crowd()
	var all []*closing
	const more = 100
	for n := range control.MaxConnections + more {
		c := &closing{}
		all = append(all, c)
		changed(c, http.StateNew)
		for i, c := range all {
			if want := i <= n-control.MaxConnections; c.closed != want {
				t.Fatalf("after %d connections number %d is closed: %t", n+1, i, c.closed)
			}
		}
	}
	for _, c := range all[:more] {
		changed(c, http.StateClosed)
	}
	// An active connection stays, and a closed one makes room.
	changed(all[more], http.StateActive)
	changed(all[more+1], http.StateIdle)
	changed(all[more+2], http.StateClosed)
	changed(&closing{}, http.StateNew)
	if all[more+2].closed || all[more+3].closed {
		t.Error("one is closed although another has left")
	}
	changed(&closing{}, http.StateNew)
	if all[more].closed || all[more+1].closed || !all[more+3].closed {
		t.Error("one is closed on which something has happened, and not the one on which nothing has for longest")
	}
	for range control.MaxConnections - 4 {
		changed(&closing{}, http.StateNew)
	}
	if all[more].closed {
		t.Error("one is closed before those on which nothing has happened for longer")
	}
	changed(&closing{}, http.StateNew)
	if !all[more].closed {
		t.Error("one is not closed on which nothing has happened for longest")
	}
}

func TestConnectionsThatAreExemptStay(t *testing.T) {
	changed, exempt := control.Crowd()
	following := &closing{}
	changed(following, http.StateNew)
	changed(following, http.StateActive)
	exempt(following)
	exempt(following) // a second call changes nothing
	for range 3 * control.MaxConnections {
		changed(&closing{}, http.StateNew)
	}
	if following.closed {
		t.Error("it is closed")
	}
	changed(following, http.StateIdle)
	changed(following, http.StateClosed)
}

func TestGarbageIsAnsweredOrHungUpOnAndChangesNothing(t *testing.T) {
	s := serve(t)
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for name, sent := range map[string]string{
		"nothing":              "",
		"noise":                string(noise),
		"zeros":                strings.Repeat("\x00", 1000),
		"newlines":             strings.Repeat("\r\n", 1000),
		"another protocol":     "SSH-2.0-OpenSSH_9.9\r\n",
		"TLS":                  "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"HTTP/2":               "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/9":               "GET /v1/status HTTP/9.9\r\nHost: knockwall\r\n\r\n",
		"no host":              "GET /v1/status HTTP/1.1\r\n\r\n",
		"no version":           "GET /v1/status\r\n\r\n",
		"a line that is long":  "GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: knockwall\r\n\r\n",
		"two lengths":          "POST /v1/down HTTP/1.1\r\nHost: knockwall\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"a negative length":    "POST /v1/down HTTP/1.1\r\nHost: knockwall\r\nContent-Length: -1\r\n\r\n",
		"a length and chunks":  "POST /v1/down HTTP/1.1\r\nHost: knockwall\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n{}",
		"chunks without size":  "POST /v1/down HTTP/1.1\r\nHost: knockwall\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n",
		"half a body":          "POST /v1/windows HTTP/1.1\r\nHost: knockwall\r\nContent-Length: 90\r\n\r\n{\"door\": \"ssh\", \"source\": \"192.0.2.7\"}",
		"half an empty body":   "POST /v1/down HTTP/1.1\r\nHost: knockwall\r\nContent-Length: 2\r\n\r\n",
		"half a chunk":         "POST /v1/windows HTTP/1.1\r\nHost: knockwall\r\nTransfer-Encoding: chunked\r\n\r\n26\r\n{\"door\": \"ssh\", \"source\": \"192.0.2.7\"}",
		"a percent sign":       "DELETE /v1/windows/ssh/%zz HTTP/1.1\r\nHost: knockwall\r\n\r\n",
		"a path that is none":  "GET v1/status HTTP/1.1\r\nHost: knockwall\r\n\r\n",
		"a star":               "OPTIONS * HTTP/1.1\r\nHost: knockwall\r\n\r\n",
		"a connection through": "CONNECT 192.0.2.7:22 HTTP/1.1\r\nHost: 192.0.2.7:22\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.dial(t)
			_ = conn.SetDeadline(time.Now().Add(deadline))
			_, _ = io.WriteString(conn, sent)
			_ = conn.(*net.UnixConn).CloseWrite()
			answer, err := io.ReadAll(conn)
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Errorf("nobody hangs up: %v", err)
			}
			// After a request with a complete body the server may send nothing more than
			// an error.
			if strings.HasPrefix(string(answer), "HTTP/1.1 2") && name != "a star" {
				t.Errorf("answered with\n%s", answer)
			}
			wantWindows(t, s, before...)
			if !s.kernel.wallStands() {
				t.Fatal("the wall is down")
			}
			conn.Close()
		})
	}
	wantPrompt(t, s)
	serving(t, 0)
}

func TestManyCommandsAtOnce(t *testing.T) {
	s := serve(t)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			c := control.NewClient(s.path)
			source := fmt.Sprintf("192.0.2.%d", 10+n)
			for range 20 {
				if _, err := c.Open(t.Context(), "ssh", source, ""); err != nil {
					t.Errorf("Open: %v", err)
				}
				if _, err := c.Reload(t.Context(), ""); err != nil {
					t.Errorf("Reload: %v", err)
				}
				if _, err := c.Close(t.Context(), "ssh", source, false); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
		})
	}
	all.Wait()
	wantWindows(t, s, before...)
}
