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

// maxEnded is of how many sources at doors it is remembered that sessions of theirs were
// ended, and are still there.
const maxEnded = 4096

// sessionsKey is whose sessions are a source's at a door. On which link one is that a
// link-local source has made, conntrack does not say: those of the same address on
// other links go with it.
func sessionsKey(door string, source packet.Source) windowKey {
	source.Link = 0
	return windowKey{door, source}
}

// endSessions ends the sessions that a source has through a door, and what is noted of
// them, so that nothing of theirs is known again. It returns how many there were.
func (w *Wall) endSessions(door string, source packet.Source) (ended int, err error) {
	w.change.Lock()
	defer w.change.Unlock()
	w.mu.Lock()
	f := w.policy
	i := f.doorNamed(door)
	if i >= 0 {
		if win := w.windows.Get(f.ids[i], source); win != nil && win.Spent() {
			w.windows.Close(win.Door, win.Source)
		}
	}
	w.mu.Unlock()
	if i < 0 {
		return 0, errDoorGone
	}
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
		w.readEndedSources(f) // these, too; of most others nothing will be left
		return ended, err
	}
	maps.Copy(w.endedSources, who)
	return ended, err
}

// readEndedSources notes anew who has sessions that were ended, by this daemon or one before
// it. It is called with change held.
func (w *Wall) readEndedSources(f *policy) {
	ended, err := w.edges.EndedSessions()
	if err != nil {
		w.trail.Record(audit.Event{Time: time.Now(), Kind: audit.Refused, Code: audit.CodeStillBarred, Failed: true,
			Reason: "sessions that were ended stay so, whoever knocks: " + err.Error()})
		return
	}
	clear(w.endedSources)
	for _, e := range ended {
		f.addSources(w.endedSources, e)
	}
}

// comingBy iterates over the doors through which a session goes, each with who has made
// it, as that door tells sources apart.
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

// noteComing notes who has made a session, at each door through which it goes, as long
// as there is room.
func (f *policy) addSources(who map[windowKey]bool, e sessions.Session) {
	for key := range f.doorSources(e) {
		if len(who) < maxEnded {
			who[key] = true
		}
	}
}

// clearEndedMarks lets the sessions go on, of those for whom windows were opened, that were ended
// before. Who has none costs nothing. It is called with change held.
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
				Code: audit.CodeStillBarred, Reason: fmt.Sprintf("the sessions that were ended before stay so: %v", err)})
			continue
		}
		delete(w.endedSources, key)
	}
}
