package wall

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/sequence"
)

// inquiry is the question why a source is admitted at a door or not.
type inquiry struct {
	door   *effective.Door
	source packet.Source
	now    time.Time
	past   sourceHistory
}

// in is the answer that the source is admitted.
func (q *inquiry) in(why Why, format string, a ...any) Explanation {
	return Explanation{q.door.Name, q.source, true, why, time.Time{}, fmt.Sprintf("%s is let in: ", q.source) + fmt.Sprintf(format, a...) + "."}
}

// out is the answer that the source is not admitted.
func (q *inquiry) out(why Why, since time.Time, format string, a ...any) Explanation {
	return Explanation{q.door.Name, q.source, false, why, since, fmt.Sprintf("%s is not let in%s: ", q.source, where(q.door)) + fmt.Sprintf(format, a...) + "."}
}

// explain explains one door. It is called with the mu of packets held. All knocks since
// the time since are remembered, or all since the start if it is zero. Trapped is how long
// the kernel still ignores knocks of the source.
func (w *Wall) explain(door int, addr netip.Addr, past []audit.Event, since time.Time, trapped time.Duration) Explanation {
	f := w.packets.policy
	d := &f.config.Doors[door]
	source := d.SourcePrefix.Of(addr)
	q := &inquiry{d, source, time.Now(), historyOf(past, d.Name, source, d.SequenceTimeout)}
	if packet.Among(addr, f.config.Wall.Trusted) || packet.Among(addr, d.Trusted) {
		return q.in(Trusted, "it is trusted, and need not knock")
	}
	win, recorded := w.windows.get(f.ids[door], source)
	if recorded && !win.Spent && win.Until.After(q.now) {
		return q.in(WindowOpen, "its window is open for another %s", roughly(win.Until.Sub(q.now)))
	}
	last := q.past.last
	if trapped > 0 && (last.Kind != audit.Trapped || last.Code == audit.CodeSpray) {
		return q.out(TrappedWhy, last.Time, "the source or its network has tried ports that are not knock ports, and its knocks are ignored for another %s", roughly(trapped))
	}
	attempt := q.attempt(f, door)
	if attempt.isUnderWay(q.now) {
		return q.out(Knocking, attempt.Started, "it has knocked %d of %d so far, and has %s left for the rest",
			attempt.Step, attempt.steps, roughly(attempt.late.Sub(q.now)))
	}
	if recorded && win.Spent {
		return q.out(Exhausted, time.Time{}, "it has knocked, and has already made max_connections connections (%d); it has to knock again", d.MaxConnections)
	}
	last = q.lastWith(attempt)
	if e, ok := q.afterWindow(last); ok {
		return e
	}
	if e, ok := q.afterKnocks(last); ok {
		return e
	}
	sentence := q.neverKnocked(w.packets.since, since)
	if u := w.usage.reading(); u.full {
		sentence += fmt.Sprintf("; conntrack's table is nearly full, %d of %d connections, and when it is full the kernel drops knocks", u.known, u.room)
	}
	return q.out(NeverKnocked, time.Time{}, "%s", sentence)
}

// explainedAttempt is an attempt to open the door that is worth an explanation.
type explainedAttempt struct {
	sequence.Attempt
	known bool // there is one
	steps int
	late  time.Time // when its time is up
}

// isUnderWay reports whether the attempt can still succeed.
func (a *explainedAttempt) isUnderWay(now time.Time) bool {
	return a.known && !a.Strayed && !now.After(a.late)
}

// attempt returns the source's attempt to open the door. It is called with the mu of
// packets held.
func (q *inquiry) attempt(f *policy, door int) (a explainedAttempt) {
	a.Attempt, a.steps, a.known = f.attemptAt(door, q.source)
	a.known = a.known && a.Step < a.steps && (a.Step > 0 || len(f.locksOf[door]) == 1)
	a.late = a.Started.Add(q.door.SequenceTimeout)
	if a.Doubted && (q.now.After(a.late) || q.past.last.Kind == audit.Closed) {
		a.known = false // the attempt belongs to closing the door
	}
	return a
}

// lastWith returns the event that explains the state of the source best: the last one, or
// the end of an attempt.
func (q *inquiry) lastWith(a explainedAttempt) audit.Event {
	last := q.past.last
	if a.known && (!last.Time.After(a.late) || a.Strayed) { // no event says yet that it has failed
		failed := a.late
		if !q.now.After(a.late) {
			failed = a.Started
		}
		last = audit.Event{Time: failed, Kind: audit.Reset, Step: a.Step, Steps: a.steps, Code: endCodes[a.Reason()]}
	}
	if (last.Kind == audit.Reset || isToClose(last)) && q.past.wrong.Kind != "" {
		last = q.past.wrong // its last knock also began an attempt that did not continue
	}
	return last
}

// afterWindow explains a source whose last event is about its window.
func (q *inquiry) afterWindow(last audit.Event) (e Explanation, ok bool) {
	switch {
	case last.Kind == audit.Refused && last.Steps == 0: // by hand
		e = q.out(NotOpened, last.Time, "the door could not be opened at %s: %s", when(last.Time, q.now), last.Reason)
	case last.Kind == audit.Refused:
		e = q.out(NotOpened, last.Time, "it has knocked, and the door could not be opened at %s: %s", when(last.Time, q.now), last.Reason)
	case last.Kind == audit.Opened, last.Kind == audit.Refreshed: // without an event of its end
		over := last.Time.Add(last.Window)
		e = q.out(WindowOver, over, "its window is over since %s; it has to knock again", when(over, q.now))
	case last.Kind == audit.Expired && last.Reason != "":
		e = q.out(WindowOver, last.Time, "its window is over since %s; it has to knock again. While the window was open, %s: another firewall of this host, "+
			"or of the machine that the port is forwarded to", when(last.Time, q.now), last.Reason)
	case last.Kind == audit.Expired:
		e = q.out(WindowOver, last.Time, "its window is over since %s; it has to knock again", when(last.Time, q.now))
	case last.Kind == audit.Closed && last.Failed: // the window then stayed open until its end
		e = q.out(WindowOver, time.Time{}, "its window is over; it has to knock again")
	case last.Kind == audit.Closed:
		e = q.out(WindowClosed, last.Time, "its window was closed at %s: %s", when(last.Time, q.now), last.Reason)
	default:
		return e, false
	}
	return e, true
}

// afterKnocks explains a source whose last event is about its knocks.
func (q *inquiry) afterKnocks(last audit.Event) (e Explanation, ok bool) {
	at := when(last.Time, q.now)
	switch {
	case last.Kind == audit.Trapped:
		e = q.trapped(last)
	case last.Kind == audit.Replayed:
		e = q.out(ReplayedWhy, last.Time, "what it sent at %s opens the door only once and was used before", at)
	case last.Kind == audit.Reset && last.Code == audit.CodeNotAPassword:
		e = q.out(BadPassword, last.Time, "what it sent at %s is not a valid one-time password for its address and that minute: "+
			"the secrets differ, a clock is wrong, or the password was made for another address", at)
	case last.Kind == audit.Reset && last.Person != "":
		e = q.out(Rejected, last.Time, "%s knocked at %s, and the knock was rejected: %s", last.Person, at, last.Reason)
	case last.Kind == audit.Reset && last.Code == audit.CodeTooLate:
		e = q.out(TooLate, last.Time, "it knocked too slowly: by %s only %d of %d had come within %s", at, last.Step, last.Steps, printable.Time(q.door.SequenceTimeout))
	case last.Kind == audit.Reset:
		e = q.out(WrongOrder, last.Time, "it knocked in the wrong order at %s, after %d of %d right knocks", at, last.Step, last.Steps)
	case isToClose(last):
		e = q.out(WrongOrder, last.Time, "its knocks until %s, %d of %d, belong to the sequence that closes the door, not to one that opens it",
			at, last.Step, last.Steps)
	case last.Kind == audit.Knock && last.Step == last.Steps: // nothing later is remembered
		e = q.out(WindowOver, time.Time{}, "the window that it knocked for at %s is over; it has to knock again", at)
	case last.Kind == audit.Knock:
		e = q.out(Forgotten, last.Time, "it knocked %d of %d until %s, and the end of its attempt is not remembered: "+
			"other rules came into force, or too many sources knocked at once", last.Step, last.Steps, at)
	default:
		return e, false
	}
	return e, true
}

// trapped explains a source that has tried a trap, or ports without a service.
func (q *inquiry) trapped(last audit.Event) Explanation {
	at, until := when(last.Time, q.now), last.Time.Add(q.door.Penalty)
	if last.Code == audit.CodeSpray { // the penalty is over
		return q.out(TrappedWhy, last.Time, "it tried ports that are not knock ports, the last one %s at %s, which ended its attempt; it can knock again",
			last.Port, at)
	}
	then := "its attempt has ended, and it can knock again"
	if left := until.Sub(q.now); left >= 0 {
		then = fmt.Sprintf("its knocks are ignored for another %s, and after that it can knock again", roughly(left))
	}
	return q.out(TrappedWhy, last.Time, "it tried a trap, %s, at %s: %[1]s is no knock of this door; %[3]s", last.Port, at, then)
}

// neverKnocked says what is known of a source of which no knock is remembered. The daemon
// has run since started, and remembers all knocks since the time since.
func (q *inquiry) neverKnocked(started, since time.Time) string {
	sentence := "no knock from it was received; knocks are remembered since the daemon started, at " + when(started, q.now)
	if since.After(started) {
		sentence = fmt.Sprintf("no knock from it is remembered; the daemon remembers the last %d of all sources, those since %s",
			audit.HistorySize, when(since, q.now))
	}
	for _, m := range q.door.Methods {
		if ignored := m.Traits().Ignored; ignored != "" {
			sentence += fmt.Sprintf("; %s, are not remembered", ignored)
		}
	}
	if q.past.tried.Count > 0 {
		sentence += fmt.Sprintf("; it tried to connect, the last time at %s", when(q.past.tried.Time, q.now))
	}
	if !q.past.overlooked.IsZero() {
		sentence += fmt.Sprintf("; at %s so many knocks came at once that not each of them is remembered", when(q.past.overlooked, q.now))
	}
	return sentence
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
		switch {
		case isSprayOf(e, source):
			s.last = e
		case e.Door != door:
		case e.Source == source:
			s.add(e, within)
		case !e.Source.IsValid() && (e.Kind == audit.Knock || e.Kind == audit.Reset):
			s.overlooked = e.Time
		}
	}
	return s
}

// isSprayOf reports whether an event traps a source at all doors.
func isSprayOf(e audit.Event, source packet.Source) bool {
	return e.Kind == audit.Trapped && e.Door == "" && source.Link == e.Source.Link && source.Contains(e.Source.Addr())
}

// add adds the next event of the source at the door.
func (s *sourceHistory) add(e audit.Event, within time.Duration) {
	switch {
	case e.Kind == audit.Accepted, e.Kind == audit.Command:
		return
	case e.Kind == audit.Refused && !e.Failed:
		s.tried = e
		return
	case e.Kind == audit.Knock:
		former := s.wrong
		s.wrong = audit.Event{}
		ended := s.last
		recent := func(former audit.Event) bool { return e.Time.Sub(former.Time) <= within }
		switch {
		case ended.Kind == audit.Reset && (ended.Time.Equal(e.Time) || ended.Code == audit.CodeWrongOrder && recent(ended)):
			s.wrong = ended
			// Each knock after a wrong one is wrong, too. The first one says more.
			if ended.Step == 0 && former.Step > 0 && ended.Time.Sub(former.Time) <= within {
				s.wrong = former
			}
		// The knocks that come too late are not the first one, and so in the wrong order.
		case e.Step == 0 && ended.Kind == audit.Reset && ended.Code == audit.CodeTooLate && recent(ended):
			s.wrong = ended
		case e.Step == 0 && former.Code == audit.CodeTooLate && recent(former):
			s.wrong = former
		}
	}
	s.last = e
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
func roughly(d time.Duration) string {
	if d < 10*time.Second {
		return printable.Time(d.Round(100 * time.Millisecond))
	}
	return printable.Time(d.Round(time.Second))
}
