package control_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/wall"
)

// FuzzControl parses bytes as a request and answers it.
func FuzzControl(f *testing.F) {
	for _, test := range wrong {
		f.Add(raw(test.method, test.path, test.body))
	}
	for _, seed := range [][3]string{
		{"GET", "/", ""},
		{"GET", "/v1/status", ""},
		{"GET", "/v1/windows", ""},
		{"GET", "/v1/events", ""},
		{"GET", "/v1/events?follow=true", ""},
		{"GET", "/v1/explain/192.0.2.7", ""},
		{"GET", "/v1/explain/2001:db8::%2f64", ""},
		{"GET", "/metrics", ""},
		{"HEAD", "/v1/events?follow=true", ""},
		{"POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": "5m"}`},
		{"POST", "/v1/windows", `{"DOOR": "ssh", "door": "ssh", "source": "2001:db8::/64"}`},
		{"DELETE", "/v1/windows/ssh/192.0.2.1?sessions=true", ""},
		{"DELETE", "/v1/windows/%73sh/%31%39%32.0.2.1", ""},
		{"POST", "/v1/reload", ""},
		{"POST", "/v1/reload", `{"confirm": "2m"}`},
		{"POST", "/v1/confirm", ""},
		{"POST", "/v1/revert", ""},
		{"POST", "/v1/reload?session=192.0.2.7+50000+192.0.2.1+22", ""},
		{"GET", "/v1/events?door=ssh&source=192.0.2.0/24&last=1", ""},
		{"POST", "/v1/sharing", `{"group": "prod", "name": "a", "count": 1, "members": [{"name": "b", "lag_seconds": 0.1}]}`},
		{"POST", "/v1/down", "null"},
		{"OPTIONS", "*", ""},
		{"CONNECT", "/v1/windows", ""},
		{"GET", "//v1/status", ""},
	} {
		f.Add(raw(seed[0], seed[1], seed[2]))
	}
	d, handler, reloads := newFuzzed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return // Serve would not call the handler either
		}
		body, err := io.ReadAll(request.Body)
		request.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err}))
		// The client has gone already, so following ends.
		gone, cancel := context.WithCancel(context.Background())
		defer cancel()
		if request.URL.Query().Has("follow") {
			cancel()
		}

		windows, reloaded := opens(d), *reloads
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request.WithContext(gone))

		checkAnswer(t, request, answer)
		wellFormed := err == nil && len(body) <= control.MaxBody
		now := opens(d)
		if !slices.Equal(now, windows) {
			if answer.Code != http.StatusOK || !(wellFormed && opening(request, body) || closes(request)) {
				t.Errorf("%s %s, %q: windows %v, and then %v", request.Method, request.URL, body, windows, now)
			}
		}
		if *reloads != reloaded && !(wellFormed && is(request, "POST", "/v1/reload") && isObject(body, "confirm")) {
			t.Errorf("%s %s, %q reloads", request.Method, request.URL, body)
		}
		if is(request, "POST", "/v1/down") && answer.Code == http.StatusOK {
			<-d.ended // ended already
		}
		select {
		case <-d.ended:
			if !wellFormed || !is(request, "POST", "/v1/down") || !isObject(body) {
				t.Errorf("%s %s, %q takes the wall down", request.Method, request.URL, body)
			}
			d, handler, reloads = newFuzzed(t)
		default:
			for _, w := range d.Wall.Windows(wall.WindowQuery{}) {
				if _, err := d.Wall.Close(w.Door, w.Source.String(), true); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := d.Wall.Open("ssh", "192.0.2.1", 0); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// newFuzzed returns a daemon with one window, its handler, and the number of reloads. Run
// ends with the process, or when it is asked to.
func newFuzzed(t testing.TB) (*daemon, http.Handler, *int) {
	t.Helper()
	d := &daemon{kernel: &stillKernel{}, ended: make(chan struct{})}
	d.History = audit.NewHistory()
	d.Wall = wall.New(d.kernel.edges(), d.History)
	d.Confirm = func() (control.Confirmed, error) { return control.Confirmed{}, d.Wall.Confirm() }
	reloads := new(int)
	d.Reload = func(time.Duration) (control.Reloaded, error) {
		*reloads++
		if *reloads%2 == 0 {
			return control.Reloaded{}, &control.RulesError{Diagnostics: "Error: Not a port\n"}
		}
		return control.Reloaded{Doors: 1, Warnings: "Warning: Sequence easy to find\n"}, nil
	}
	if err := d.Wall.Apply(rules()); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.ended)
		_ = d.Wall.Run(context.Background())
	}()
	if _, err := d.Wall.Open("ssh", "192.0.2.1", 0); err != nil {
		t.Fatal(err)
	}
	return d, control.Handler(d.Daemon), reloads
}

// failing is the end of a body with an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// raw returns a request as it is sent.
func raw(method, path, body string) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: knockwall\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
}

func checkAnswer(t *testing.T, request *http.Request, answer *httptest.ResponseRecorder) {
	t.Helper()
	text := answer.Body.Bytes()
	wrong := func(what string) {
		t.Errorf("%s %s: %s: %d, %v, %q", request.Method, request.URL, what, answer.Code, answer.Header(), text)
	}
	var problem struct {
		Error       string
		Diagnostics string
	}
	switch answer.Code {
	case http.StatusOK:
		switch kind, _, _ := strings.Cut(answer.Header().Get("Content-Type"), ";"); kind {
		case "application/json":
			if !json.Valid(text) {
				wrong("no JSON")
			}
		case "application/x-ndjson":
			for line := range bytes.Lines(text) {
				if !json.Valid(line) {
					wrong("a line is no JSON")
				}
			}
		case "text/markdown", "text/plain":
			if path := request.URL.Path; path != "/" && path != "/metrics" {
				wrong("no JSON")
			}
		default:
			wrong("of an unknown kind")
		}
		return
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusConflict:
	case http.StatusUnprocessableEntity:
		defer func() {
			if problem.Diagnostics == "" {
				wrong("no diagnostics")
			}
		}()
	default:
		wrong("an unfitting status")
	}
	if err := json.Unmarshal(text, &problem); err != nil || problem.Error == "" {
		wrong("no error in JSON")
	}
}

func is(r *http.Request, method, path string) bool { return r.Method == method && r.URL.Path == path }

// opening reports whether a request opens a window.
func opening(r *http.Request, body []byte) bool {
	return is(r, "POST", "/v1/windows") && len(bytes.TrimSpace(body)) > 0 && isObject(body, "door", "source", "window")
}

// closes reports whether a request closes a window, whatever its body.
func closes(r *http.Request) bool {
	return r.Method == "DELETE" && strings.HasPrefix(r.URL.Path, "/v1/windows/ssh/")
}

// isObject reports whether a body is one JSON object of strings with no fields but these.
// An empty body or null counts as an object without fields.
func isObject(body []byte, fields ...string) bool {
	if len(bytes.TrimSpace(body)) == 0 {
		return true
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	var object map[string]*string
	if decoder.Decode(&object) != nil || !errors.Is(decoder.Decode(&object), io.EOF) {
		return false
	}
	for name := range object {
		if !slices.ContainsFunc(fields, func(field string) bool { return strings.EqualFold(field, name) }) {
			return false
		}
	}
	return true
}
