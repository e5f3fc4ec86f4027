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
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// The limits of the resources that clients can use. Whoever can use the socket may change
// the wall, but must not stop the daemon by mistake.
const (
	clientTimeout  = 10 * time.Second // to send a request, and to read its answer
	maxHeader      = 8 << 10
	maxBody        = 4 << 10
	maxConnections = 512
	maxFollowers   = 32
	maxAnswering   = 8       // long answers at once
	maxWindows     = 1 << 16 // in one answer
	patience       = 2 * time.Second
)

// The limits of a trial's length.
const (
	minTrial = time.Second
	maxTrial = time.Hour
)

// Daemon is what the API controls.
type Daemon struct {
	Wall    *wall.Wall
	History *audit.History
	// Reload reads the rule files and puts them in force, on trial if confirm is not 0.
	// If the files have errors, it returns a [*RulesError].
	Reload func(confirm time.Duration) (Reloaded, error)
	// Confirm ends a trial and keeps the rules.
	Confirm func() (Confirmed, error)
	// SocketUnit is the systemd unit that listens for the daemon and starts it on a
	// connection. It is empty if the daemon listens itself.
	SocketUnit string
	// Complain gets messages of the HTTP server, one a minute at most.
	Complain func(string)
}

// RulesError is errors in the rule files, described in several lines of text.
type RulesError struct{ Diagnostics string }

func (e *RulesError) Error() string { return "the rule files are wrong; the rules in force stay" }

// Reloaded is the result of a reload.
type Reloaded struct {
	Doors        int              `json:"doors"` // their number
	Changes      []ruleset.Change `json:"changes"`
	Warnings     string           `json:"warnings,omitempty"` // about the files
	TrialSeconds float64          `json:"trial_seconds,omitempty"`
	// Shut are the doors that hide the port of the client's ssh session from its address.
	Shut []string `json:"shut,omitempty"`
	// Next is what comes next if the trial is not confirmed. It is nil without a trial.
	Next *Next `json:"next,omitempty"`
}

// Reverted is the result of ending a trial.
type Reverted struct {
	// Down says that there was no wall before: it is taken down, and the daemon ends.
	Down bool `json:"down"`
}

// Confirmed is the result of confirming a trial.
type Confirmed struct {
	Next Next `json:"next"`
	// FilesDiffer says that the rule files differ from the confirmed rules.
	FilesDiffer bool `json:"files_differ"`
}

// Next says which rules the next restart of the daemon and the next boot put in force.
type Next struct {
	Restart Rules `json:"restart"`
	Boot    Rules `json:"boot"`
}

// Rules are rules that come into force later.
type Rules string

// The rules.
const (
	Files  Rules = "files"  // the rule files, as they are then
	Former Rules = "former" // those from before the trial
	None   Rules = "none"   // none: nothing starts this daemon
)

// Lowered is the result of removing the wall.
type Lowered struct {
	Table      string `json:"table"`
	SocketUnit string `json:"socket_unit,omitempty"`
	Ending     bool   `json:"ending,omitempty"` // the daemon still waits for commands
}

// openRequest is the body of POST /v1/windows.
type openRequest struct {
	Door   string `json:"door"`
	Source string `json:"source"`
	Window string `json:"window,omitempty"`
}

// reloadRequest is the body of POST /v1/reload. It may be empty.
type reloadRequest struct {
	Confirm string `json:"confirm,omitempty"`
}

//go:embed API.md
var page []byte

// Serve answers requests on l until ctx ends.
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
		_ = server.Shutdown(wait) // an answer may be in progress
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
	following chan struct{} // one for each follower
	answering chan struct{} // one for each long answer in progress
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
	mux.HandleFunc("GET /v1/status", s.long(answer(func(r *http.Request) (any, error) {
		wanted, err := windowsWanted(r)
		if err != nil {
			return nil, err
		}
		return s.Wall.Status(wanted)
	})))
	mux.HandleFunc("GET /v1/windows", s.long(answer(func(r *http.Request) (any, error) {
		wanted, err := windowsWanted(r)
		if err != nil {
			return nil, err
		}
		return s.Wall.Windows(wanted), nil
	})))
	mux.HandleFunc("POST /v1/windows", answer(s.open))
	mux.HandleFunc("DELETE /v1/windows/{door}/{source...}", answer(s.shut))
	mux.HandleFunc("GET /v1/changes", s.changes)
	mux.HandleFunc("POST /v1/changes", answer(s.tell))
	mux.HandleFunc("POST /v1/sharing", answer(s.tellSharing))
	mux.HandleFunc("GET /v1/explain/{address...}", s.long(answer(func(r *http.Request) (any, error) {
		return s.Wall.Explain(r.PathValue("address"), s.History.Past)
	})))
	mux.HandleFunc("POST /v1/reload", answer(s.reload))
	mux.HandleFunc("POST /v1/confirm", answer(func(r *http.Request) (any, error) {
		if err := readBody(r, &struct{}{}); err != nil {
			return nil, err
		}
		return s.Confirm()
	}))
	mux.HandleFunc("POST /v1/revert", answer(func(r *http.Request) (any, error) {
		if err := readBody(r, &struct{}{}); err != nil {
			return nil, err
		}
		down, err := s.Wall.Revert(context.WithoutCancel(r.Context()))
		return Reverted{down}, err
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

// long limits how many long answers are in progress at once. They can have many
// megabytes, and their readers can be slow.
func (s *service) long(handler http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		select {
		case s.answering <- struct{}{}:
			defer func() { <-s.answering }()
			handler(rw, r)
		case <-time.After(patience):
			fail(rw, http.StatusServiceUnavailable, errors.New("too many clients are reading such answers: try again"))
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
	var session host.SSH
	if text := r.URL.Query().Get(parameterSession); text != "" {
		var ok bool
		if session, ok = host.ParseSession(text); !ok {
			return nil, badRequest{fmt.Errorf("session is the value of SSH_CONNECTION, not %q", text)}
		}
	}
	reloaded, err := s.Reload(confirm)
	if err != nil {
		return nil, err
	}
	reloaded.TrialSeconds = confirm.Seconds()
	if session.Client.IsValid() {
		reloaded.Shut = s.Wall.ShutTo(session)
	}
	return reloaded, nil
}

// parameterSession is the query parameter with the ssh session of whoever asks to reload.
const parameterSession = "session"

// CheckTrial returns an error if a trial cannot take that long.
func CheckTrial(confirm time.Duration) error {
	if confirm < minTrial || confirm > maxTrial {
		return fmt.Errorf("a trial takes %.0fs to %.0fh, and not %s", minTrial.Seconds(), maxTrial.Hours(), printable.Time(confirm))
	}
	return nil
}

// events writes one line of JSON for each event.
func (s *service) events(rw http.ResponseWriter, r *http.Request) {
	wanted, err := selectionOf(r)
	switch {
	case err != nil:
		fail(rw, http.StatusBadRequest, err)
	case wanted.Follow:
		s.follow(rw, r, wanted)
	default:
		s.long(func(rw http.ResponseWriter, _ *http.Request) { s.past(rw, wanted) })(rw, r)
	}
}

func (s *service) past(rw http.ResponseWriter, wanted Selection) {
	rw.Header().Set("Content-Type", linesOfJSON)
	encoder := json.NewEncoder(rw)
	for _, e := range wanted.past(s.History.Past()) {
		_ = encoder.Encode(e) // the client may be gone
	}
}

const linesOfJSON = "application/x-ndjson"

// beginsFollowing makes room for a follower, which calls done when it ends.
func (s *service) beginsFollowing(rw http.ResponseWriter, r *http.Request) (done func(), ok bool) {
	select {
	case s.following <- struct{}{}:
	default:
		fail(rw, http.StatusServiceUnavailable, fmt.Errorf("%d clients follow already, which is the limit", maxFollowers))
		return nil, false
	}
	if conn, ok := r.Context().Value(connection{}).(net.Conn); ok {
		s.crowd.exempt(conn)
	}
	return func() { <-s.following }, true
}

func (s *service) follow(rw http.ResponseWriter, r *http.Request, wanted Selection) {
	done, ok := s.beginsFollowing(rw, r)
	if !ok {
		return
	}
	defer done()
	past, follower := s.History.Follow()
	defer follower.Close()
	rw.Header().Set("Content-Type", linesOfJSON)
	encoder := json.NewEncoder(rw)
	stream := http.NewResponseController(rw)
	send := func(e audit.Event) bool {
		return !wanted.has(e) || stream.SetWriteDeadline(time.Now().Add(clientTimeout)) == nil && encoder.Encode(e) == nil
	}
	for _, e := range wanted.past(past) {
		if !send(e) {
			return
		}
	}
	for stream.Flush() == nil {
		select {
		case <-r.Context().Done():
			// The daemon is ending. Send its last events.
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
