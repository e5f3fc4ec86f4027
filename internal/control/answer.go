package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/wall"
)

// inJSON makes ServeMux answer errors in JSON, and turns its redirects into errors.
func inJSON(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		refusal := &refusal{ResponseWriter: rw, request: r}
		mux.ServeHTTP(refusal, r)
		if refusal.code != 0 { // the mux wrote no text
			fail(rw, refusal.code, errors.New(http.StatusText(refusal.code)))
		}
	})
}

// refusal writes the mux's errors in JSON.
type refusal struct {
	http.ResponseWriter
	request *http.Request
	refused bool // the mux's own body is dropped
	code    int  // status of an error whose text follows
}

func (r *refusal) WriteHeader(code int) {
	header, path := r.Header(), r.request.URL.Path
	ours := strings.HasPrefix(header.Get("Content-Type"), "application/json")
	switch {
	case code >= 300 && code < 400, code == http.StatusNotFound && !ours:
		r.refused = true
		header.Del("Location")
		fail(r.ResponseWriter, http.StatusNotFound, fmt.Errorf("there is nothing at %s: GET / lists what there is", path))
	case code == http.StatusMethodNotAllowed && !ours:
		r.refused = true
		fail(r.ResponseWriter, code, fmt.Errorf("%s takes %s, not %s", path, header.Get("Allow"), r.request.Method))
	case code >= 400 && !ours:
		r.code = code
	default:
		r.ResponseWriter.WriteHeader(code)
	}
}

func (r *refusal) Write(b []byte) (int, error) {
	if r.code != 0 {
		fail(r.ResponseWriter, r.code, errors.New(strings.Join(strings.Fields(string(b)), " ")))
		r.refused, r.code = true, 0
	}
	if r.refused {
		return len(b), nil
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] find the connection.
func (r *refusal) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// badRequest is an error in a request.
type badRequest struct{ error }

// answer returns a handler that writes the result of f in JSON.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(rw).SetReadDeadline(time.Now().Add(patience))
		}
		result, err := f(r)
		// The request may have taken longer than the deadline for answers.
		_ = http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(clientTimeout))
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
	case errors.As(err, &bad), errors.Is(err, wall.ErrBadSource), errors.Is(err, wall.ErrBadWindow), errors.Is(err, wall.ErrBadOrigin):
		return http.StatusBadRequest
	case errors.Is(err, wall.ErrNoDoor), errors.Is(err, wall.ErrNoWindow):
		return http.StatusNotFound
	case errors.Is(err, wall.ErrOnTrial), errors.Is(err, wall.ErrNoTrial):
		return http.StatusConflict
	case errors.As(err, &rules):
		return http.StatusUnprocessableEntity
	case errors.Is(err, wall.ErrStopping):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// problem is the body of an error.
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

// readBody reads one JSON object into to, and refuses unknown fields. An empty body
// counts as an empty object.
func readBody(r *http.Request, to any) error { return readLongBody(r, to, maxBody) }

// readLongBody is readBody for a body of at most that many bytes.
func readLongBody(r *http.Request, to any, most int64) error {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, most))
	if err != nil {
		return badRequest{fmt.Errorf("the body cannot be read, or is longer than %d bytes: %w", most, err)}
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil || bytes.TrimSpace(b)[0] != '{' {
		if err == nil {
			err = errors.New("it is not an object")
		}
		return badRequest{fmt.Errorf("the body is not the JSON that this path takes: %w", err)}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return badRequest{errors.New("the body has more than one JSON value")}
	}
	return nil
}

// duration parses a time as rule files write it.
func duration(what, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, badRequest{fmt.Errorf(`%s is a time such as "30s" or "2m", not %q`, what, text)}
	}
	return d, nil
}

// flag parses a query parameter. It is false if it is missing.
func flag(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, badRequest{fmt.Errorf("%s is true or false, not %q", name, text)}
	}
	return value, nil
}
