package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
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
	case errors.As(err, &bad), errors.Is(err, wall.ErrBadSource), errors.Is(err, wall.ErrBadWindow), errors.Is(err, wall.ErrBadOrigin), errors.Is(err, wall.ErrBadSharing):
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
	switch _, tooLong := errors.AsType[*http.MaxBytesError](err); {
	case tooLong:
		return badRequest{fmt.Errorf("the body is longer than %d bytes", most)}
	case os.IsTimeout(err):
		return badRequest{fmt.Errorf("the body did not come within %s", patience)}
	case err != nil:
		return badRequest{errors.New("the body does not come to its end")}
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil || bytes.TrimSpace(b)[0] != '{' {
		return badRequest{errors.New("the body is not the JSON that this path takes: " + mistakeIn(err, to))}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return badRequest{errors.New("the body has more than one JSON value")}
	}
	return nil
}

// mistakeIn says what is wrong with a JSON object, in the words of JSON and not of Go. to is
// what it was decoded into.
func mistakeIn(err error, to any) string {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("there is a mistake at character %d", syntax.Offset)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return fmt.Sprintf("%q takes %s, and not %s", wrong.Field, kindIn(wrong.Type), kindOf(wrong.Value))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "it ends too early"
	}
	if err != nil {
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return fmt.Sprintf("there is no %s%s", name, fieldsOf(to))
		}
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok {
			return "a value in it cannot be read"
		}
	}
	return "it is not an object"
}

// kindIn returns the name of the kind of JSON that is decoded into a type.
func kindIn(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a text in quotes"
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		return "an object"
	case reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}

// kindOf returns the name of a kind of value. The package json begins with the kind, and may
// add the value.
func kindOf(value string) string {
	kind, _, _ := strings.Cut(value, " ")
	if name, ok := map[string]string{"bool": "true or false", "array": "a list", "object": "an object"}[kind]; ok {
		return name
	}
	return "a " + strings.Replace(kind, "string", "text", 1)
}

// fieldsOf names the fields of the struct that to points to. It names none if objects in it
// have fields of their own.
func fieldsOf(to any) string {
	var names []string
	for field := range reflect.TypeOf(to).Elem().Fields() {
		if field.Type.Kind() == reflect.Slice {
			return ""
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, strconv.Quote(name))
	}
	if names == nil {
		return ", as it takes nothing"
	}
	return ", only " + strings.Join(names, ", ")
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
