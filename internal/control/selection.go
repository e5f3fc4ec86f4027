package control

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

// Selection is which events a client wants. The zero value is all that the daemon remembers.
type Selection struct {
	Follow  bool            // new ones, too, until the daemon ends
	Door    string          // of this door; empty: of all doors, and of the daemon itself
	Sources []packet.Source // of any of these; empty: of all
	Last    *int            // the last ones of those that the daemon remembers; nil: all of them
}

// The names of the query parameters.
const (
	parameterFollow = "follow"
	parameterDoor   = "door"
	parameterSource = "source"
	parameterLast   = "last"
	parameterLimit  = "limit"
	parameterAfter  = "after"
)

// maxSelected is the number of sources that a client can select at once.
const maxSelected = 64

// query returns the query parameters.
func (s *Selection) query() url.Values {
	q := url.Values{parameterFollow: {strconv.FormatBool(s.Follow)}}
	if s.Door != "" {
		q.Set(parameterDoor, s.Door)
	}
	for _, source := range s.Sources {
		q.Add(parameterSource, source.String())
	}
	if s.Last != nil {
		q.Set(parameterLast, strconv.Itoa(*s.Last))
	}
	return q
}

// selectionOf reads the query parameters of a request.
func selectionOf(r *http.Request) (s Selection, err error) {
	q := r.URL.Query()
	if s.Follow, err = flag(r, parameterFollow); err != nil {
		return s, err
	}
	s.Door = q.Get(parameterDoor)
	if s.Sources, err = sourcesOf(q); err != nil {
		return s, err
	}
	if q.Get(parameterLast) != "" {
		last, err := numberOf(q, parameterLast, "events")
		if err != nil {
			return s, err
		}
		s.Last = &last
	}
	return s, nil
}

// sourcesOf reads the sources that a request selects.
func sourcesOf(q url.Values) (sources []packet.Source, err error) {
	if len(q[parameterSource]) > maxSelected {
		return nil, badRequest{fmt.Errorf("at most %d sources can be selected", maxSelected)}
	}
	for _, text := range q[parameterSource] {
		source, err := packet.ParseSource(text)
		if err != nil {
			return nil, badRequest{fmt.Errorf("source is an IP address or a prefix, not %q", text)}
		}
		sources = append(sources, source)
	}
	return sources, nil
}

// numberOf reads a parameter that is a number of things.
func numberOf(q url.Values, parameter, things string) (int, error) {
	n, err := strconv.Atoi(q.Get(parameter))
	if err != nil || n < 0 {
		return 0, badRequest{fmt.Errorf("%s is the number of %s, not %q", parameter, things, q.Get(parameter))}
	}
	return n, nil
}

// windowsQuery returns the query parameters that select windows.
func windowsQuery(wanted wall.WindowQuery) url.Values {
	q := url.Values{}
	if wanted.Door != "" {
		q.Set(parameterDoor, wanted.Door)
	}
	for _, source := range wanted.Sources {
		q.Add(parameterSource, source.String())
	}
	if wanted.Limit > 0 {
		q.Set(parameterLimit, strconv.Itoa(wanted.Limit))
	}
	if !wanted.After.IsZero() {
		q.Set(parameterAfter, wanted.After.String())
	}
	return q
}

// windowsWanted reads the query parameters that select windows: not more than fit into one
// answer.
func windowsWanted(r *http.Request) (wanted wall.WindowQuery, err error) {
	q := r.URL.Query()
	wanted.Door = q.Get(parameterDoor)
	if wanted.Sources, err = sourcesOf(q); err != nil {
		return wanted, err
	}
	if q.Get(parameterLimit) != "" {
		if wanted.Limit, err = numberOf(q, parameterLimit, "windows"); err != nil {
			return wanted, err
		}
	}
	if wanted.Limit == 0 || wanted.Limit > maxWindows {
		wanted.Limit = maxWindows
	}
	if text := q.Get(parameterAfter); text != "" {
		if wanted.After, err = wall.ParseWindowPlace(text); err != nil {
			return wanted, badRequest{err}
		}
	}
	return wanted, nil
}

// has reports whether the client wants an event.
func (s *Selection) has(e audit.Event) bool {
	if s.Door != "" && e.Door != s.Door {
		return false
	}
	return len(s.Sources) == 0 || slices.ContainsFunc(s.Sources, func(wanted packet.Source) bool { return wanted.Meets(e.Source) })
}

// past returns those of the past events that the client wants.
func (s *Selection) past(all []audit.Event) []audit.Event {
	all = slices.DeleteFunc(all, func(e audit.Event) bool { return !s.has(e) })
	if s.Last != nil {
		all = all[max(0, len(all)-*s.Last):]
	}
	return all
}
