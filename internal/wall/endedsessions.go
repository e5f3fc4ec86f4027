package wall

import (
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
)

// maxEnded is of how many pairs of source and door it is remembered that sessions were
// ended and are still in conntrack.
const maxEnded = 4096

// endedSessions ends sessions, and lets them continue when their source opens a window.
// Its methods are called with change held, so that no window opens meanwhile.
type endedSessions struct {
	edges *Edges
	trail *audit.Summer

	mu      sync.Mutex
	sources map[windowKey]bool // sources with sessions that were ended
}

// sessionsKey is the key of a source in endedSessions. Conntrack does not tell on which
// link a link-local source is. Sessions of the same address on other links are therefore
// treated alike.
func sessionsKey(door string, source packet.Source) windowKey {
	source.Link = 0
	return windowKey{door, source}
}

// end ends the sessions of a source through a door. It returns the number of ended
// sessions.
func (s *endedSessions) end(f *policy, door string, source packet.Source) (ended int, err error) {
	who := map[windowKey]bool{}
	ended, err = s.edges.EndSessions(func(e sessions.Session) bool {
		wanted := false
		for key := range f.doorSources(e) {
			wanted = wanted || key == sessionsKey(door, source)
		}
		if wanted {
			f.addSources(who, e)
		}
		return wanted
	})
	s.mu.Lock()
	fits := len(s.sources)+len(who) <= maxEnded
	if fits {
		maps.Copy(s.sources, who)
	}
	s.mu.Unlock()
	if !fits {
		s.read(f) // this also reads the new ones; most others will be gone from conntrack
	}
	return ended, err
}

// read reads from conntrack which sources have ended sessions. This daemon or an earlier
// one has ended them.
func (s *endedSessions) read(f *policy) {
	ended, err := s.edges.EndedSessions()
	if err != nil {
		s.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Refused, Code: audit.CodeStillBarred, Failed: true,
			Reason: "ended sessions stay ended, even after a knock: " + err.Error()})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sources)
	for _, e := range ended {
		f.addSources(s.sources, e)
	}
}

// any reports whether any source has ended sessions.
func (s *endedSessions) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sources) > 0
}

// clearMarks lets ended sessions continue whose sources have just opened a window. It
// costs nothing for sources without ended sessions.
func (s *endedSessions) clearMarks(f *policy, openings []*opening) {
	free := s.among(openings)
	if len(free) == 0 {
		return
	}
	err := s.edges.ClearMarks(func(e sessions.Session) bool {
		for key := range f.doorSources(e) {
			if free[key] {
				return true
			}
		}
		return false
	})
	if err == nil {
		s.mu.Lock()
		maps.DeleteFunc(s.sources, func(key windowKey, _ bool) bool { return free[key] })
		s.mu.Unlock()
		return
	}
	for key := range free {
		s.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Refused, Door: key.door, Source: key.source, Failed: true,
			Code: audit.CodeStillBarred, Reason: fmt.Sprintf("its ended sessions stay ended: %v", err)})
	}
}

// among returns which of the windows that were opened are of sources with ended sessions.
func (s *endedSessions) among(openings []*opening) map[windowKey]bool {
	free := map[windowKey]bool{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range openings {
		if key := sessionsKey(o.door, o.source); o.err == nil && s.sources[key] {
			free[key] = true
		}
	}
	return free
}

// doorSources iterates over the doors through which a session goes, with the source of
// the session at each of them.
func (f *policy) doorSources(e sessions.Session) iter.Seq[windowKey] {
	return func(yield func(windowKey) bool) {
		for _, i := range f.config.At(e.Port) {
			d := &f.config.Doors[i]
			if d.GuardsAt(e.Local, e.Here) && !yield(windowKey{d.Name, d.SourcePrefix.Of(e.Remote)}) {
				return
			}
		}
	}
}

// addSources adds the source of a session at each door through which it goes, up to
// maxEnded entries.
func (f *policy) addSources(who map[windowKey]bool, e sessions.Session) {
	for key := range f.doorSources(e) {
		if len(who) < maxEnded {
			who[key] = true
		}
	}
}
