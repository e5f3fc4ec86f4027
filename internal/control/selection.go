package control

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
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
	if len(q[parameterSource]) > maxSelected {
		return s, badRequest{fmt.Errorf("at most %d sources can be selected", maxSelected)}
	}
	for _, text := range q[parameterSource] {
		source, err := packet.ParseSource(text)
		if err != nil {
			return s, badRequest{fmt.Errorf("source is an IP address or a prefix, not %q", text)}
		}
		s.Sources = append(s.Sources, source)
	}
	if text := q.Get(parameterLast); text != "" {
		last, err := strconv.Atoi(text)
		if err != nil || last < 0 {
			return s, badRequest{fmt.Errorf("last is the number of events, not %q", text)}
		}
		s.Last = &last
	}
	return s, nil
}

// has reports whether the client wants an event.
func (s *Selection) has(e audit.Event) bool {
	if s.Door != "" && e.Door != s.Door {
		return false
	}
	// A source can be a prefix that has the address, and the other way round.
	return len(s.Sources) == 0 || slices.ContainsFunc(s.Sources, func(wanted packet.Source) bool {
		return e.Source.IsValid() && unmapped(wanted.Prefix).Overlaps(e.Source.Prefix) && (wanted.Link == 0 || wanted.Link == e.Source.Link)
	})
}

// unmapped returns an IPv4 address that is written as an IPv6 one as what it is.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.IsSingleIP() {
		return netip.PrefixFrom(p.Addr().Unmap(), 32)
	}
	return p
}

// past returns those of the past events that the client wants.
func (s *Selection) past(all []audit.Event) []audit.Event {
	all = slices.DeleteFunc(all, func(e audit.Event) bool { return !s.has(e) })
	if s.Last != nil {
		all = all[max(0, len(all)-*s.Last):]
	}
	return all
}
