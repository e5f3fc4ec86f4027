package control

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
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
	clientTimeout  = 10 * time.Second // to send a request, and to read its answer
	maxHeader      = 8 << 10
	maxBody        = 4 << 10
	maxConnections = 512
	maxFollowers   = 32
	maxAnswering   = 8 // at once, with what may be long
	patience       = 2 * time.Second
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
	// Confirm ends a trial.
	Confirm func() error
	// SocketUnit is the unit by which systemd listens for the daemon, and starts it
	// when it does not run; empty where the daemon listens by itself.
	SocketUnit string
	// Complain is told now and then what the HTTP server has to say.
	Complain func(string)
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

// Lowered is what taking the wall down came to.
type Lowered struct {
	Table      string `json:"table"`
	SocketUnit string `json:"socket_unit,omitempty"`
	Ending     bool   `json:"ending,omitempty"` // the daemon waits for commands
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
	s := newService(d)
	server := &http.Server{
		Handler:           s.handler(),
		ReadTimeout:       clientTimeout,
		WriteTimeout:      clientTimeout,
		IdleTimeout:       clientTimeout,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: clientTimeout,
		ConnState:         s.crowd.changed,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connection{}, c) },
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          log.New(&complaints{tell: d.Complain, now: time.Now}, "", 0),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		wait, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = server.Shutdown(wait) // an answer may be on its way
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
	crowd     *crowd
	following chan struct{} // one for each who follows
	answering chan struct{} // one for each long answer that is on its way
}

func newService(d Daemon) *service {
	return &service{d, newCrowd(), make(chan struct{}, maxFollowers), make(chan struct{}, maxAnswering)}
}

func (s *service) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Wall, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/markdown; charset=utf-8")
		_, _ = rw.Write(page)
	})
	mux.HandleFunc("GET /metrics", s.long(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP))
	mux.HandleFunc("GET /v1/status", s.long(answer(func(*http.Request) (any, error) { return s.Wall.Status() })))
	mux.HandleFunc("GET /v1/windows", s.long(answer(func(*http.Request) (any, error) { return s.Wall.Windows(), nil })))
	mux.HandleFunc("POST /v1/windows", answer(s.open))
	mux.HandleFunc("DELETE /v1/windows/{door}/{source...}", answer(s.shut))
	mux.HandleFunc("GET /v1/explain/{address...}", s.long(answer(func(r *http.Request) (any, error) {
		return s.Wall.Explain(r.PathValue("address"), s.History.Past)
	})))
	mux.HandleFunc("POST /v1/reload", answer(s.reload))
	mux.HandleFunc("POST /v1/confirm", answer(func(r *http.Request) (any, error) {
		if err := readBody(r, &struct{}{}); err != nil {
			return nil, err
		}
		return struct{}{}, s.Confirm()
	}))
	mux.HandleFunc("POST /v1/down", answer(func(r *http.Request) (any, error) {
		if err := readBody(r, &struct{}{}); err != nil {
			return nil, err
		}
		table, err := s.Wall.Down(context.WithoutCancel(r.Context()))
		return Lowered{table, s.SocketUnit, !s.Wall.Ended()}, err
	}))
	mux.HandleFunc("GET /v1/events", s.events)
	return inJSON(mux)
}

// long bounds how many answers are on their way at once that may have many
// megabytes, as their readers may be slow.
func (s *service) long(handler http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		select {
		case s.answering <- struct{}{}:
			defer func() { <-s.answering }()
			handler(rw, r)
		case <-time.After(patience):
			fail(rw, http.StatusServiceUnavailable, errors.New("too many ask for this, and read the answer slowly: try again"))
		case <-r.Context().Done():
		}
	}
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
	if err := readBody(r, &struct{}{}); err != nil {
		return nil, err
	}
	sessions, err := flag(r, "sessions")
	if err != nil {
		return nil, err
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
		return fmt.Errorf("a trial takes %.0fs to %.0fh, and not %s", minTrial.Seconds(), maxTrial.Hours(), confirm)
	}
	return nil
}

// events writes a line of JSON for each event.
func (s *service) events(rw http.ResponseWriter, r *http.Request) {
	follow, err := flag(r, "follow")
	switch {
	case err != nil:
		fail(rw, http.StatusBadRequest, err)
	case follow:
		s.follow(rw, r)
	default:
		s.long(s.past)(rw, r)
	}
}

func (s *service) past(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", linesOfJSON)
	encoder := json.NewEncoder(rw)
	for _, e := range s.History.Past() {
		_ = encoder.Encode(e) // the client may be gone
	}
}

const linesOfJSON = "application/x-ndjson"

func (s *service) follow(rw http.ResponseWriter, r *http.Request) {
	select {
	case s.following <- struct{}{}:
		defer func() { <-s.following }()
	default:
		fail(rw, http.StatusServiceUnavailable, fmt.Errorf("%d follow the events already, and no more can", maxFollowers))
		return
	}
	if conn, ok := r.Context().Value(connection{}).(net.Conn); ok {
		s.crowd.exempt(conn)
	}
	past, follower := s.History.Follow()
	defer follower.Close()
	rw.Header().Set("Content-Type", linesOfJSON)
	encoder := json.NewEncoder(rw)
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
			// The daemon ends, and what it has said last is to be heard.
			for {
				select {
				case e := <-follower.Events():
					if !send(e) {
						return
					}
				default:
					return
				}
			}
		case e := <-follower.Events():
			if !send(e) {
				return
			}
			if len(follower.Events()) == 0 {
				follower.CaughtUp()
			}
		}
	}
}
