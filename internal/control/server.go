package control

import (
	"bytes"
	"container/list"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/wall"
)

// The bounds of what clients can make the daemon keep. Who is at the socket may
// change the wall, but is not to stop it by mistake.
const (
	clientTimeout  = 10 * time.Second
	maxHeader      = 8 << 10
	maxBody        = 4 << 10
	maxConnections = 512
	maxFollowers   = 32
	shutdownTime   = 2 * time.Second
)

// The bounds of how long a trial takes.
const (
	minTrial = time.Second
	maxTrial = time.Hour
)

// Daemon is what is controlled.
type Daemon struct {
	Wall    *wall.Wall
	History *audit.History
	// Reload reads the rule files and puts them in force; on trial, unless confirm
	// is 0. It says how many doors there are, and what is unwise in the files. What
	// is wrong with them it says as a [*RulesError].
	Reload func(confirm time.Duration) (doors int, warnings string, err error)
}

// RulesError says that rule files are wrong, and how, as text of several lines.
type RulesError struct{ Diagnostics string }

func (e *RulesError) Error() string { return "the rule files are wrong; the rules in force stay" }

// Reloaded is what a reload came to.
type Reloaded struct {
	Doors        int     `json:"doors"`
	Warnings     string  `json:"warnings,omitempty"`
	TrialSeconds float64 `json:"trial_seconds,omitempty"`
}

// openRequest is the body of POST /v1/windows.
type openRequest struct {
	Door   string `json:"door"`
	Source string `json:"source"`
	Window string `json:"window,omitempty"`
}

// reloadRequest is the body of POST /v1/reload, which may be empty.
type reloadRequest struct {
	Confirm string `json:"confirm,omitempty"`
}

//go:embed API.md
var page []byte

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, d Daemon) error {
	s := &service{Daemon: d, following: make(chan struct{}, maxFollowers)}
	c := &crowd{waiting: list.New(), places: map[net.Conn]*list.Element{}}
	server := &http.Server{
		Handler:           s.handler(),
		ReadTimeout:       clientTimeout,
		WriteTimeout:      clientTimeout,
		IdleTimeout:       clientTimeout,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: clientTimeout,
		ConnState:         c.changed,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		patience, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		_ = server.Shutdown(patience) // an answer may be on its way
		server.Close()
	})
	err := server.Serve(l)
	if !stop() {
		<-closed
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answering on the control socket: %w", err)
	}
	return nil
}

type service struct {
	Daemon
	following chan struct{} // one for each who follows
}

func (s *service) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Wall, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/markdown; charset=utf-8")
		_, _ = rw.Write(page)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /v1/status", answer(func(*http.Request) (any, error) { return s.Wall.Status() }))
	mux.HandleFunc("GET /v1/windows", answer(func(*http.Request) (any, error) { return s.Wall.Windows(), nil }))
	mux.HandleFunc("POST /v1/windows", answer(s.open))
	mux.HandleFunc("DELETE /v1/windows/{door}/{source...}", answer(s.shut))
	mux.HandleFunc("POST /v1/reload", answer(s.reload))
	mux.HandleFunc("POST /v1/confirm", answer(func(r *http.Request) (any, error) {
		if err := readBody(r, &struct{}{}); err != nil {
			return nil, err
		}
		return struct{}{}, s.Wall.Confirm()
	}))
	mux.HandleFunc("POST /v1/down", answer(func(r *http.Request) (any, error) {
		if err := readBody(r, &struct{}{}); err != nil {
			return nil, err
		}
		return struct{}{}, s.Wall.Down(context.WithoutCancel(r.Context()))
	}))
	mux.HandleFunc("GET /v1/events", s.events)
	return inJSON(mux)
}

// inJSON answers in JSON, too, where there is nothing to be had.
func inJSON(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(rw, r)
			return
		}
		refusal := &refusal{header: rw.Header(), code: http.StatusNotFound}
		handler.ServeHTTP(refusal, r)
		text := "there is nothing at " + r.URL.Path + ": GET / says what there is"
		if refusal.code == http.StatusMethodNotAllowed {
			text = fmt.Sprintf("%s takes %s, and not %s", r.URL.Path, rw.Header().Get("Allow"), r.Method)
		}
		fail(rw, refusal.code, errors.New(text))
	})
}

// refusal takes down what ServeMux would answer.
type refusal struct {
	header http.Header
	code   int
}

func (r *refusal) Header() http.Header         { return r.header }
func (r *refusal) WriteHeader(code int)        { r.code = code }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }

// badRequest is an error in how something was asked for.
type badRequest struct{ error }

// answer makes a handler that writes what f returns.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		result, err := f(r)
		if err != nil {
			fail(rw, codeOf(err), err)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(rw)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(result) // the client may be gone
	}
}

func codeOf(err error) int {
	var bad badRequest
	var rules *RulesError
	switch {
	case errors.As(err, &bad), errors.Is(err, wall.ErrBadSource), errors.Is(err, wall.ErrBadWindow):
		return http.StatusBadRequest
	case errors.Is(err, wall.ErrNoDoor), errors.Is(err, wall.ErrNoWindow):
		return http.StatusNotFound
	case errors.Is(err, wall.ErrOnTrial), errors.Is(err, wall.ErrNoTrial):
		return http.StatusConflict
	case errors.As(err, &rules):
		return http.StatusUnprocessableEntity
	case errors.Is(err, wall.ErrLowered):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// problem is the body of every answer that is not the one that was asked for.
type problem struct {
	Error       string `json:"error"`
	Diagnostics string `json:"diagnostics,omitempty"`
}

func fail(rw http.ResponseWriter, code int, err error) {
	p := problem{Error: err.Error()}
	var rules *RulesError
	if errors.As(err, &rules) {
		p.Diagnostics = rules.Diagnostics
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	_ = json.NewEncoder(rw).Encode(p)
}

// readBody reads one JSON object into to, and nothing that it has no place for. An
// empty body is an empty object.
func readBody(r *http.Request, to any) error {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return badRequest{fmt.Errorf("the body cannot be read, or is longer than %d bytes: %w", maxBody, err)}
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		return badRequest{fmt.Errorf("the body is not the JSON that is wanted: %w", err)}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return badRequest{errors.New("the body has more than one JSON value")}
	}
	return nil
}

// duration reads a time as rule files have it.
func duration(what, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, badRequest{fmt.Errorf(`%s is a time such as "30s" or "2m", and not %q`, what, text)}
	}
	return d, nil
}

func (s *service) open(r *http.Request) (any, error) {
	var body openRequest
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	var length time.Duration
	if body.Window != "" {
		var err error
		if length, err = duration("window", body.Window); err != nil {
			return nil, err
		}
	}
	return s.Wall.Open(body.Door, body.Source, length)
}

func (s *service) shut(r *http.Request) (any, error) {
	sessions := false
	if text := r.URL.Query().Get("sessions"); text != "" {
		var err error
		if sessions, err = strconv.ParseBool(text); err != nil {
			return nil, badRequest{fmt.Errorf("sessions is true or false, and not %q", text)}
		}
	}
	return s.Wall.Close(r.PathValue("door"), r.PathValue("source"), sessions)
}

func (s *service) reload(r *http.Request) (any, error) {
	var body reloadRequest
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	var confirm time.Duration
	if body.Confirm != "" {
		var err error
		if confirm, err = duration("confirm", body.Confirm); err != nil {
			return nil, err
		}
		if err := CheckTrial(confirm); err != nil {
			return nil, badRequest{err}
		}
	}
	doors, warnings, err := s.Reload(confirm)
	if err != nil {
		return nil, err
	}
	return Reloaded{Doors: doors, Warnings: warnings, TrialSeconds: confirm.Seconds()}, nil
}

// CheckTrial says what is wrong with the length of a trial, if anything is.
func CheckTrial(confirm time.Duration) error {
	if confirm < minTrial || confirm > maxTrial {
		return fmt.Errorf("a trial takes %s to %s, and not %s", minTrial, maxTrial, confirm)
	}
	return nil
}

// events writes a line of JSON for each event.
func (s *service) events(rw http.ResponseWriter, r *http.Request) {
	follow := false
	if text := r.URL.Query().Get("follow"); text != "" {
		var err error
		if follow, err = strconv.ParseBool(text); err != nil {
			fail(rw, http.StatusBadRequest, fmt.Errorf("follow is true or false, and not %q", text))
			return
		}
	}
	rw.Header().Set("Content-Type", "application/x-ndjson")
	encoder := json.NewEncoder(rw)
	if !follow {
		for _, e := range s.History.Past() {
			_ = encoder.Encode(e)
		}
		return
	}
	select {
	case s.following <- struct{}{}:
		defer func() { <-s.following }()
	default:
		fail(rw, http.StatusServiceUnavailable, fmt.Errorf("%d follow the events already, and no more can", maxFollowers))
		return
	}
	past, follower := s.History.Follow()
	defer follower.Close()
	stream := http.NewResponseController(rw)
	send := func(e audit.Event) bool {
		return stream.SetWriteDeadline(time.Now().Add(clientTimeout)) == nil && encoder.Encode(e) == nil
	}
	for _, e := range past {
		if !send(e) {
			return
		}
	}
	for stream.Flush() == nil {
		select {
		case <-r.Context().Done():
			return
		case e := <-follower.Events():
			if !send(e) {
				return
			}
		}
	}
}

// crowd closes the connection that has waited longest when there are too many.
type crowd struct {
	mu      sync.Mutex
	count   int
	waiting *list.List // of net.Conn: connections that have asked for nothing yet, or not again
	places  map[net.Conn]*list.Element
}

// changed is called by [http.Server] whenever the state of a connection changes.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if place := c.places[conn]; place != nil {
		c.waiting.Remove(place)
		delete(c.places, conn)
	}
	switch state {
	case http.StateNew:
		c.count++
		if c.count > maxConnections {
			longest := conn
			if first := c.waiting.Front(); first != nil {
				longest = first.Value.(net.Conn)
			}
			longest.Close() // which ends in StateClosed
		}
		c.places[conn] = c.waiting.PushBack(conn)
	case http.StateIdle:
		c.places[conn] = c.waiting.PushBack(conn)
	case http.StateClosed, http.StateHijacked:
		c.count--
	}
}
