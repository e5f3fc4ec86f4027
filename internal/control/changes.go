package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/wall"
)

// The limits of a POST of changes.
const (
	MaxTold     = 256 // changes
	maxToldBody = 1 << 20
)

// Told is a change at another host, in the body of POST /v1/changes.
type Told struct {
	Kind   wall.ChangeKind `json:"change"`
	Door   string          `json:"door,omitempty"`
	Source string          `json:"source,omitempty"`
	Left   string          `json:"left,omitempty"`
	Person string          `json:"person,omitempty"`
	Key    string          `json:"key,omitempty"`
	Grant  string          `json:"grant,omitempty"`
	Method string          `json:"method,omitempty"`
	Time   time.Time       `json:"time,omitzero"`
	Reason string          `json:"reason,omitempty"`
}

// tellRequest is the body of POST /v1/changes.
type tellRequest struct {
	Origin  string `json:"origin"`
	Changes []Told `json:"changes"`
}

// toldAnswer is the answer. It has an error for each change, "" if there was none.
type toldAnswer struct {
	Errors []string `json:"errors"`
}

// changes writes one line of JSON for each change, until the client goes or reads no more.
func (s *service) changes(rw http.ResponseWriter, r *http.Request) {
	done, ok := s.beginsFollowing(rw, r)
	if !ok {
		return
	}
	defer done()
	follower := s.Wall.Follow(r.URL.Query().Get("after"))
	rw.Header().Set("Content-Type", linesOfJSON)
	stream := http.NewResponseController(rw)
	encoder := json.NewEncoder(rw)
	if stream.Flush() != nil {
		return
	}
	for {
		changes, err := follower.Next(r.Context())
		if err != nil {
			return // the client has gone, or the daemon is ending
		}
		for i, c := range changes {
			if i%64 == 0 && stream.SetWriteDeadline(time.Now().Add(clientTimeout)) != nil || encoder.Encode(c) != nil {
				return
			}
		}
		if stream.Flush() != nil {
			return
		}
	}
}

// tell applies changes at another host.
func (s *service) tell(r *http.Request) (any, error) {
	var body tellRequest
	if err := readLongBody(r, &body, maxToldBody); err != nil {
		return nil, err
	}
	if len(body.Changes) > MaxTold {
		return nil, badRequest{fmt.Errorf("there are %d changes; at most %d are taken at once", len(body.Changes), MaxTold)}
	}
	told := make([]wall.Told, len(body.Changes))
	for i, c := range body.Changes {
		told[i] = wall.Told{Kind: c.Kind, Door: c.Door, Source: c.Source, Method: c.Method, Time: c.Time, Reason: c.Reason,
			Person: method.Person{Name: c.Person, Key: c.Key, Grant: c.Grant}}
		if c.Kind != wall.ChangeOpen {
			continue
		}
		var err error
		if told[i].Left, err = duration("left", c.Left); err != nil {
			return nil, err
		}
	}
	errs, err := s.Wall.Tell(body.Origin, told)
	if err != nil {
		return nil, err
	}
	a := toldAnswer{Errors: make([]string, len(errs))}
	for i, err := range errs {
		if err != nil {
			a.Errors[i] = err.Error()
		}
	}
	return a, nil
}

// tellSharing takes what the companion knows of its group.
func (s *service) tellSharing(r *http.Request) (any, error) {
	var body wall.Companion
	if err := readLongBody(r, &body, maxToldBody); err != nil {
		return nil, err
	}
	return struct{}{}, s.Wall.TellSharing(body)
}
