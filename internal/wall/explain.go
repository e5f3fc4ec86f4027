package wall

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
)

// Explanation says why a source is admitted at a door or not.
type Explanation struct {
	Door     string        `json:"door"`
	Source   packet.Source `json:"source"`
	In       bool          `json:"in"`
	Reason   Why           `json:"reason"`
	Since    time.Time     `json:"since,omitzero"` // when this state began, if known
	Sentence string        `json:"sentence"`
}

// Why is the reason in an [Explanation].
type Why string

// The reasons.
const (
	Bare         Why = "not guarded" // the door guards nothing on this host
	Trusted      Why = "trusted"
	WindowOpen   Why = "window open"
	NotAnswered  Why = "not answered" // it is admitted, and no reply passes this host
	Exhausted    Why = "exhausted"    // max_connections is reached
	Knocking     Why = "knocking"     // an attempt has begun
	WrongOrder   Why = "wrong order"
	TooLate      Why = "too late"
	TrappedWhy   Why = "trapped"  // it has tried a trap
	ReplayedWhy  Why = "replayed" // it has sent a used one-time password or sequence
	BadPassword  Why = "bad password"
	Forgotten    Why = "forgotten" // the end of an attempt is not in the history
	WindowOver   Why = "window over"
	WindowClosed Why = "window closed"
	NotOpened    Why = "not opened" // the kernel refused to open the window
	NeverKnocked Why = "never knocked"
)

// Explain says for each door why an address is admitted or not. The remembered events, as
// [audit.History] has them, explain what happened before now.
//
// An address stands for the source that it belongs to. A prefix may name the source
// instead. A network that is not one source at any door is [ErrBadSource].
func (w *Wall) Explain(address string, remembered func() []audit.Event) ([]Explanation, error) {
	addr, prefix, err := parseSource(address)
	if err != nil {
		return nil, err
	}
	f := w.packets.current()
	if f == nil {
		return nil, errNotInstalled
	}
	if prefix.IsValid() && !slices.ContainsFunc(f.config.Doors, func(d effective.Door) bool { return d.SourcePrefix.Of(addr).Prefix == prefix }) {
		return nil, &request{ErrBadSource, fmt.Sprintf("%s is not one source at any door: give one address of it", address)}
	}
	for _, d := range f.config.Doors { // so that summed events are remembered, too
		w.trail.Settle(d.Name, d.SourcePrefix.Of(addr))
		w.trail.Settle(d.Name, packet.Source{})
	}
	bareReasons := doctor.BareDoors(w.Findings())
	past := remembered()
	since := knocksSince(past)
	trapped := make([]time.Duration, len(f.config.Doors)) // by door: remaining time
	for i, d := range f.config.Doors {
		if trapped[i], err = w.edges.Kernel.Trapped(f.config, i, d.SourcePrefix.Of(addr)); err != nil {
			return nil, err
		}
	}
	all := w.explainAll(addr, past, since, f, trapped)
	var unanswered map[string][]packet.Port
	var unknown error // why it is unknown whether the source gets replies
	if slices.ContainsFunc(all, func(e Explanation) bool { return e.In }) {
		unanswered, unknown = w.unanswered(f, addr)
	}
	for i := range all {
		e := &all[i]
		ports := unanswered[e.Door]
		switch why := bareReasons[e.Door]; {
		case why != "":
			e.In, e.Reason, e.Since = true, Bare, time.Time{}
			e.Sentence = fmt.Sprintf("%s is not refused: the door guards nothing on this host. %s", e.Source, why)
		case e.In && unknown != nil:
			e.Sentence += fmt.Sprintf(" It is unknown whether its connections get replies: %v.", unknown)
		case e.In && len(ports) > 0:
			e.Reason = NotAnswered
			e.Sentence = fmt.Sprintf("%s was accepted here, and never answered: it tried to connect to %s, and nothing came back through this host. "+
				"Either no service answers behind the door, or replies take another route.", e.Source, list(ports))
		}
	}
	return all, nil
}

// explainAll explains all doors. The indexes of trapped are those of the doors of f,
// which may not be the current policy.
func (w *Wall) explainAll(addr netip.Addr, past []audit.Event, since time.Time, f *policy, trapped []time.Duration) []Explanation {
	w.packets.mu.Lock()
	defer w.packets.mu.Unlock()
	if since.Before(w.packets.since) {
		since = w.packets.since
	}
	all := []Explanation{}
	for i, d := range w.packets.policy.config.Doors {
		var left time.Duration
		if before := f.doorNamed(d.Name); before >= 0 {
			left = trapped[before]
		}
		all = append(all, w.explain(i, addr, past, since, left))
	}
	return all
}

// unanswered returns, for each door, the ports to which an address tried to connect
// without a reply. Doors where it had any reply are left out.
func (w *Wall) unanswered(f *policy, addr netip.Addr) (map[string][]packet.Port, error) {
	if w.edges.Directions == nil {
		return nil, nil
	}
	silent, answered := map[string][]packet.Port{}, map[string]bool{}
	err := w.edges.Directions(func(s sessions.Session, seen sessions.Seen) {
		if s.Remote != addr.WithZone("") {
			return
		}
		for key := range f.doorSources(s) {
			switch {
			case seen != sessions.ToService:
				answered[key.door] = true
			case !slices.Contains(silent[key.door], s.Port):
				silent[key.door] = append(silent[key.door], s.Port)
			}
		}
	})
	maps.DeleteFunc(silent, func(door string, _ []packet.Port) bool { return answered[door] })
	return silent, err
}

// list joins ports for a sentence.
func list(ports []packet.Port) string {
	var names []string
	for _, p := range ports {
		names = append(names, p.String())
	}
	return strings.Join(names, " and ")
}

// explain explains one door. It is called with the mu of packets held. All knocks since the time since
// are remembered. Trapped is how long the kernel still ignores knocks of the source.
func (w *Wall) explain(door int, addr netip.Addr, past []audit.Event, since time.Time, trapped time.Duration) Explanation {
	f := w.packets.policy
	d := &f.config.Doors[door]
	source := d.SourcePrefix.Of(addr)
	in := func(why Why, format string, a ...any) Explanation {
		return Explanation{d.Name, source, true, why, time.Time{}, fmt.Sprintf("%s is let in: ", source) + fmt.Sprintf(format, a...) + "."}
	}
	now := time.Now()
	if packet.Among(addr, f.config.Wall.Trusted) || packet.Among(addr, d.Trusted) {
		return in(Trusted, "it is trusted, and need not knock")
	}
	win, recorded := w.windows.get(f.ids[door], source)
	if recorded && !win.Spent() && win.Until.After(now) {
		return in(WindowOpen, "its window is open for another %s", roughly(win.Until.Sub(now)))
	}

	out := func(why Why, since time.Time, format string, a ...any) Explanation {
		return Explanation{d.Name, source, false, why, since, fmt.Sprintf("%s is not let in%s: ", source, where(d)) + fmt.Sprintf(format, a...) + "."}
	}
	s := historyOf(past, d.Name, source, d.SequenceTimeout)
	if trapped > 0 && (s.last.Kind != audit.Trapped || s.last.Code == audit.CodeSpray) {
		return out(TrappedWhy, s.last.Time, "the source or its network has tried ports that are not knock ports, and its knocks are ignored for another %s", roughly(trapped))
	}
	attempt, steps, known := f.attemptAt(door, source)
	known = known && attempt.Step < steps && (attempt.Step > 0 || len(f.locksOf[door]) == 1)
	late := attempt.Started.Add(d.SequenceTimeout)
	if attempt.Doubted && (now.After(late) || s.last.Kind == audit.Closed) {
		known = false // the attempt belongs to closing the door
	}
	if known && !attempt.Strayed && !now.After(late) {
		return out(Knocking, attempt.Started, "it has knocked %d of %d so far, and has %s left for the rest",
			attempt.Step, steps, roughly(late.Sub(now)))
	}
	if recorded && win.Spent() {
		return out(Exhausted, time.Time{}, "it has knocked, and has already made max_connections connections (%d); it has to knock again", d.MaxConnections)
	}
	last := s.last
	if known && (!last.Time.After(late) || attempt.Strayed) { // no event says yet that it has failed
		failed := late
		if !now.After(late) {
			failed = attempt.Started
		}
		last = audit.Event{Time: failed, Kind: audit.Reset, Step: attempt.Step, Steps: steps, Code: endCodes[attempt.Reason()]}
	}
	if (last.Kind == audit.Reset || isToClose(last)) && s.wrong.Kind != "" {
		last = s.wrong // its last knock also began an attempt that did not continue
	}
	switch {
	case last.Kind == audit.Refused && last.Steps == 0: // by hand
		return out(NotOpened, last.Time, "the door could not be opened at %s: %s", when(last.Time, now), last.Reason)
	case last.Kind == audit.Refused:
		return out(NotOpened, last.Time, "it has knocked, and the door could not be opened at %s: %s", when(last.Time, now), last.Reason)
	case last.Kind == audit.Opened, last.Kind == audit.Refreshed: // without an event of its end
		over := last.Time.Add(last.Window)
		return out(WindowOver, over, "its window is over since %s; it has to knock again", when(over, now))
	case last.Kind == audit.Expired:
		return out(WindowOver, last.Time, "its window is over since %s; it has to knock again", when(last.Time, now))
	case last.Kind == audit.Closed && last.Failed: // the window then stayed open until its end
		return out(WindowOver, time.Time{}, "its window is over; it has to knock again")
	case last.Kind == audit.Closed:
		return out(WindowClosed, last.Time, "its window was closed at %s: %s", when(last.Time, now), last.Reason)
	case last.Kind == audit.Trapped && last.Code == audit.CodeSpray: // the penalty is over
		return out(TrappedWhy, last.Time, "it tried ports that are not knock ports, the last one %s at %s, which ended its attempt; it can knock again",
			last.Port, when(last.Time, now))
	case last.Kind == audit.Trapped:
		until := last.Time.Add(d.Penalty)
		if now.After(until) {
			return out(TrappedWhy, last.Time, "it tried a trap, %s, at %s, which ended its attempt; it can knock again", last.Port, when(last.Time, now))
		}
		return out(TrappedWhy, last.Time, "it tried a trap, %s, at %s, and its knocks are ignored for another %s", last.Port, when(last.Time, now), roughly(until.Sub(now)))
	case last.Kind == audit.Replayed:
		return out(ReplayedWhy, last.Time, "what it sent at %s opens the door only once and was used before", when(last.Time, now))
	case last.Kind == audit.Reset && last.Code == audit.CodeNotAPassword:
		return out(BadPassword, last.Time, "what it sent at %s is not a valid one-time password for its address and that minute: "+
			"the secrets differ, a clock is wrong, or the password was made for another address", when(last.Time, now))
	case last.Kind == audit.Reset && last.Code == audit.CodeTooLate:
		return out(TooLate, last.Time, "it knocked too slowly: by %s only %d of %d had come within %s",
			when(last.Time, now), last.Step, last.Steps, d.SequenceTimeout)
	case last.Kind == audit.Reset:
		return out(WrongOrder, last.Time, "it knocked in the wrong order at %s, after %d of %d right knocks",
			when(last.Time, now), last.Step, last.Steps)
	case isToClose(last):
		return out(WrongOrder, last.Time, "its knocks until %s, %d of %d, belong to the sequence that closes the door, not to one that opens it",
			when(last.Time, now), last.Step, last.Steps)
	case last.Kind == audit.Knock && last.Step == last.Steps: // nothing later is remembered
		return out(WindowOver, time.Time{}, "the window that it knocked for at %s is over; it has to knock again", when(last.Time, now))
	case last.Kind == audit.Knock:
		return out(Forgotten, last.Time, "it knocked %d of %d until %s, and the end of its attempt is not remembered: "+
			"other rules came into force, or too many sources knocked at once", last.Step, last.Steps, when(last.Time, now))
	}
	sentence := fmt.Sprintf("no knock from it was received since %s", when(since, now))
	if s.tried.Count > 0 {
		sentence += fmt.Sprintf("; it tried to connect, the last time at %s", when(s.tried.Time, now))
	}
	if !s.overlooked.IsZero() {
		sentence += fmt.Sprintf("; at %s so many knocks came at once that not each of them is remembered", when(s.overlooked, now))
	}
	if u := w.usage.reading(); u.full {
		sentence += fmt.Sprintf("; conntrack's table is nearly full, %d of %d connections, and when it is full the kernel drops knocks", u.known, u.room)
	}
	return out(NeverKnocked, time.Time{}, "%s", sentence)
}

// where names the interfaces at which a door guards, for a sentence. It is empty if the
// door guards at all of them.
func where(d *effective.Door) string {
	if len(d.Interfaces) == 0 {
		return ""
	}
	return " by " + strings.Join(d.Interfaces, " or ")
}

// isToClose reports whether an event is a knock of a close sequence.
func isToClose(e audit.Event) bool { return e.Kind == audit.Knock && e.Code == audit.CodeCloseSequence }

// sourceHistory is what the remembered events say of a source at a door.
type sourceHistory struct {
	last       audit.Event // the last event that changed its state
	wrong      audit.Event // the event of an attempt that the last knock ended, or a wrong knock right before it
	tried      audit.Event // the last refusal
	overlooked time.Time   // when events came too fast to be remembered each
}

// historyOf returns the history of a source at a door, where an attempt takes at most
// within.
func historyOf(past []audit.Event, door string, source packet.Source, within time.Duration) (s sourceHistory) {
	for _, e := range past {
		everywhere := e.Kind == audit.Trapped && e.Door == "" // a spray: at all doors
		switch {
		case everywhere && source.Link == e.Source.Link && source.Contains(e.Source.Addr()):
		case e.Door != door:
			continue
		case e.Source != source:
			if !e.Source.IsValid() && (e.Kind == audit.Knock || e.Kind == audit.Reset) {
				s.overlooked = e.Time
			}
			continue
		case e.Kind == audit.Accepted, e.Kind == audit.Command:
			continue
		case e.Kind == audit.Refused && !e.Failed:
			s.tried = e
			continue
		case e.Kind == audit.Knock:
			s.wrong = audit.Event{}
			if ended := s.last; ended.Kind == audit.Reset && (ended.Time.Equal(e.Time) ||
				ended.Code == audit.CodeWrongOrder && e.Time.Sub(ended.Time) <= within) {
				s.wrong = ended
			}
		}
		s.last = e
	}
	return s
}

// knocksSince returns since when the history has all knocks. It is zero if the history
// has all knocks since the start.
func knocksSince(past []audit.Event) (since time.Time) {
	n := 0
	for _, e := range past {
		if e.Kind.Row().Class != audit.ByKnocks { // these have a buffer of their own
			continue
		}
		if n == 0 {
			since = e.Time
		}
		n++
	}
	if n < audit.HistorySize {
		return time.Time{}
	}
	return since
}

// when formats a time, and how long ago it was.
func when(t, now time.Time) string {
	layout := time.TimeOnly
	if now.Sub(t) > 12*time.Hour {
		layout = time.DateTime
	}
	return fmt.Sprintf("%s (%s ago)", t.Format(layout), roughly(now.Sub(t)))
}

// roughly rounds a duration for a sentence.
func roughly(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
