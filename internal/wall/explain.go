package wall

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/sequence"
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
	Rejected     Why = "rejected"  // a person's knock was authentic, and was rejected
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
	f := w.packets.current()
	addr, prefix, err := parseSource(address)
	switch {
	case err != nil && f != nil:
		if known, failed := w.explainPerson(f, address, remembered); failed != nil || len(known) > 0 {
			return known, failed
		}
		return nil, &request{ErrBadSource, err.Error() + ", and the daemon remembers no knock of a person of that name"}
	case err != nil:
		return nil, err
	case f == nil:
		return nil, errNotInstalled
	}
	if prefix.IsValid() && !slices.ContainsFunc(f.config.Doors, func(d effective.Door) bool { return d.SourcePrefix.Of(addr).Prefix == prefix }) {
		return nil, &request{ErrBadSource, fmt.Sprintf("%s is not one source at any door: give one address of it", address)}
	}
	return w.explainAddress(f, addr, remembered)
}

// explainAddress says for each door why an address is admitted or not.
func (w *Wall) explainAddress(f *policy, addr netip.Addr, remembered func() []audit.Event) (all []Explanation, err error) {
	for _, d := range f.config.Doors { // so that summed events are remembered, too
		w.trail.Settle(d.Name, d.SourcePrefix.Of(addr))
		w.trail.Settle(d.Name, packet.Source{})
	}
	found, examined := w.health.findings()
	bareReasons := doctor.BareDoors(found)
	past := remembered()
	since := knocksSince(past)
	trapped := make([]time.Duration, len(f.config.Doors)) // by door: remaining time
	for i, d := range f.config.Doors {
		if trapped[i], err = w.edges.Kernel.Trapped(f.config, i, d.SourcePrefix.Of(addr)); err != nil {
			return nil, err
		}
	}
	all = w.explainAll(addr, past, since, f, trapped)
	var seen answers
	var unknown error // why it is unknown whether the source gets replies
	if slices.ContainsFunc(all, func(e Explanation) bool { return e.In || e.Reason == Exhausted }) {
		seen, unknown = w.answers(f, addr)
	}
	for i := range all {
		e := &all[i]
		dropped, times := w.windows.repeated(e.Door, e.Source)
		switch why := bareReasons[e.Door]; {
		case why != "":
			e.In, e.Reason, e.Since = true, Bare, time.Time{}
			e.Sentence = fmt.Sprintf("%s is not refused: the door guards nothing on this host. %s", e.Source, why)
		case times >= manySYNs && unknown == nil && !seen.answered[e.Door] && (e.In || e.Reason == Exhausted):
			sentence := fmt.Sprintf("its SYN to %s has come %d times. Something behind the wall drops it: "+
				"another firewall of this host, or of the machine that the port is forwarded to.", dropped, times)
			if e.In {
				e.Reason, e.Sentence = NotAnswered, fmt.Sprintf("%s is let in, and is not answered: ", e.Source)+sentence
			} else {
				e.Sentence += " Its last connection is not answered: " + sentence
			}
		case e.In && unknown != nil:
			e.Sentence += fmt.Sprintf(" It is unknown whether its connections get replies: %v.", unknown)
		case e.In && len(seen.silent[e.Door]) > 0 && !seen.answered[e.Door]:
			e.Reason = NotAnswered
			e.Sentence = fmt.Sprintf("%s was accepted here, and never answered: it tried to connect to %s, and nothing came back through this host. "+
				"Either no service answers behind the door, another firewall drops the answers, or they take another route.", e.Source, list(seen.silent[e.Door]))
		}
		e.Sentence += obstacles(e, found, examined)
	}
	return all, nil
}

// obstacles says what the doctor has found, when the host was examined, that keeps the source
// out where the wall does not, or that keeps its knocks from the wall. It is empty if there is
// nothing.
func obstacles(e *Explanation, found []doctor.Finding, examined time.Time) string {
	stopped, lead := doctor.Connections, " "
	switch e.Reason {
	case WindowOpen, Trusted:
		lead = " But "
	case NotAnswered, Exhausted:
	case NeverKnocked:
		stopped = doctor.Knocks
	default:
		return ""
	}
	version := 6
	if e.Source.Addr().Is4() {
		version = 4
	}
	problems := doctor.Obstacles(found, e.Door, stopped, version)
	if len(problems) == 0 {
		return ""
	}
	from := "`knockwall doctor` finds: "
	if now := time.Now(); now.Sub(examined) > maxFindingsAge+examineTimeout {
		from = fmt.Sprintf("`knockwall doctor` has found, as the host was last examined at %s: ", when(examined, now))
	}
	return lead + from + strings.Join(problems, " ")
}

// maxPersonSources is for how many sources of a person explainPerson answers: the latest.
const maxPersonSources = 16

// explainPerson says for each door and source where a person has knocked why that source is
// admitted or not.
func (w *Wall) explainPerson(f *policy, name string, remembered func() []audit.Event) ([]Explanation, error) {
	var knocked []windowKey // the latest last
	add := func(person, door string, source packet.Source) {
		at := windowKey{door, source}
		if person == "" || !strings.EqualFold(person, name) || f.doorNamed(door) < 0 || !source.IsValid() {
			return
		}
		knocked = append(slices.DeleteFunc(knocked, func(other windowKey) bool { return other == at }), at)
		if len(knocked) > maxPersonSources {
			knocked = knocked[1:]
		}
	}
	for _, e := range remembered() {
		add(e.Person, e.Door, e.Source)
	}
	for _, win := range w.windows.status() {
		add(win.Person, win.Door, win.Source)
	}
	all := []Explanation{}
	explained := map[netip.Addr][]Explanation{}
	for _, at := range knocked {
		addr := at.source.Addr()
		if at.source.Link != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(at.source.Link), 10))
		}
		if _, done := explained[addr]; !done {
			doors, err := w.explainAddress(f, addr, remembered)
			if err != nil {
				return nil, err
			}
			explained[addr] = doors
		}
		for _, e := range explained[addr] {
			if e.Door == at.door {
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// explainAll explains all doors. The indexes of trapped are those of the doors of f,
// which may not be the current policy.
func (w *Wall) explainAll(addr netip.Addr, past []audit.Event, since time.Time, f *policy, trapped []time.Duration) []Explanation {
	w.packets.mu.Lock()
	defer w.packets.mu.Unlock()
	all := []Explanation{}
	for i, d := range w.packets.policy.config.Doors {
		var left time.Duration
		if before := f.doorNamed(d.Name); before >= 0 {
			left = trapped[before]
		}
		e := w.explain(i, addr, past, since, left)
		if !e.In {
			e.Sentence += withoutSequence(&d)
		}
		all = append(all, e)
	}
	return all
}

// withoutSequence says that no knocks open a door now, whoever sends them, because its list
// of one-time sequences is used up or cannot be read. It is empty if there is a sequence.
func withoutSequence(d *effective.Door) string {
	at := d.Knocking()
	switch {
	case at < 0:
		return ""
	case d.States[at].Unread:
		return " No knocks open the door now: its list of sequences cannot be read."
	case d.Stock() != nil && d.Stock().Left == 0:
		return fmt.Sprintf(" No knocks open the door now: all sequences of %s are used. Add lines to it, then type: knockwall reload", d.Stock().Of)
	}
	return ""
}

// answers says what became of a source's connections, by door.
type answers struct {
	silent   map[string][]packet.Port // ports to which it tried to connect without a reply
	answered map[string]bool          // it had a reply
}

// answers returns what conntrack knows of the connections of an address. It knows nothing
// of those whose first packet was dropped behind the wall.
func (w *Wall) answers(f *policy, addr netip.Addr) (answers, error) {
	seen := answers{map[string][]packet.Port{}, map[string]bool{}}
	if w.edges.Directions == nil {
		return seen, nil
	}
	err := w.edges.Directions(func(s sessions.Session, by sessions.Seen) {
		if s.Remote != addr.WithZone("") {
			return
		}
		for key := range f.doorSources(s) {
			switch {
			case by != sessions.ToService:
				seen.answered[key.door] = true
			case !slices.Contains(seen.silent[key.door], s.Port):
				seen.silent[key.door] = append(seen.silent[key.door], s.Port)
			}
		}
	})
	return seen, err
}

// list joins ports for a sentence.
func list(ports []packet.Port) string {
	var names []string
	for _, p := range ports {
		names = append(names, p.String())
	}
	return strings.Join(names, " and ")
}

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
	if recorded && !win.Spent() && win.Until.After(q.now) {
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
	if recorded && win.Spent() {
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
		s.wrong = audit.Event{}
		if ended := s.last; ended.Kind == audit.Reset && (ended.Time.Equal(e.Time) ||
			ended.Code == audit.CodeWrongOrder && e.Time.Sub(ended.Time) <= within) {
			s.wrong = ended
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
