package wall

import (
	"fmt"
	"iter"
	"maps"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
)

// maxEnded is of how many pairs of source and door it is remembered that sessions were
// ended and are still in conntrack.
const maxEnded = 4096

// sessionsKey is the key of a source in Wall.endedSources. Conntrack does not tell on
// which link a link-local source is. Sessions of the same address on other links are
// therefore treated alike.
func sessionsKey(door string, source packet.Source) windowKey {
	source.Link = 0
	return windowKey{door, source}
}

// endSessions ends the sessions of a source through a door, and deletes its spent window,
// so that none of its packets is recognized as a retransmission. It returns the number of
// ended sessions.
func (w *Wall) endSessions(door string, source packet.Source) (ended int, err error) {
	w.change.Lock()
	defer w.change.Unlock()
	f := w.current()
	i := f.doorNamed(door)
	if i < 0 {
		return 0, errDoorGone
	}
	w.windows.forgetSpent(f.ids[i], source)
	who := map[windowKey]bool{}
	ended, err = w.edges.EndSessions(func(e sessions.Session) bool {
		wanted := false
		for key := range f.doorSources(e) {
			wanted = wanted || key == sessionsKey(door, source)
		}
		if wanted {
			f.addSources(who, e)
		}
		return wanted
	})
	if len(w.endedSources)+len(who) > maxEnded {
		w.readEndedSources(f) // this also reads the new ones; most others will be gone from conntrack
		return ended, err
	}
	maps.Copy(w.endedSources, who)
	return ended, err
}

// readEndedSources reads from conntrack which sources have ended sessions. This daemon or
// an earlier one has ended them. It is called with change held.
func (w *Wall) readEndedSources(f *policy) {
	ended, err := w.edges.EndedSessions()
	if err != nil {
		w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Refused, Code: audit.CodeStillBarred, Failed: true,
			Reason: "ended sessions stay ended, even after a knock: " + err.Error()})
		return
	}
	clear(w.endedSources)
	for _, e := range ended {
		f.addSources(w.endedSources, e)
	}
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

// clearEndedMarks lets ended sessions continue whose sources have just opened a window.
// It costs nothing for sources without ended sessions. It is called with change held.
func (w *Wall) clearEndedMarks(openings []*opening) {
	free := map[windowKey]bool{}
	for _, o := range openings {
		if key := sessionsKey(o.door, o.source); o.err == nil && w.endedSources[key] {
			free[key] = true
		}
	}
	if len(free) == 0 {
		return
	}
	f := w.current()
	err := w.edges.PardonSessions(func(e sessions.Session) bool {
		for key := range f.doorSources(e) {
			if free[key] {
				return true
			}
		}
		return false
	})
	for key := range free {
		if err != nil {
			w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Refused, Door: key.door, Source: key.source, Failed: true,
				Code: audit.CodeStillBarred, Reason: fmt.Sprintf("its ended sessions stay ended: %v", err)})
			continue
		}
		delete(w.endedSources, key)
	}
}
