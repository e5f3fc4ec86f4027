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
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/nft"
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
	seen, unknown := w.answers(f, addr) // unknown says why it is not known whether the source gets replies
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
		case !e.In && len(seen.open[e.Door]) > 0:
			e.Sentence += fmt.Sprintf(" It has an open connection to %s, which goes on: only new ones are refused.", list(seen.open[e.Door]))
		}
		e.Sentence += obstacles(e, found, examined)
	}
	return all, nil
}

// obstacles says what the doctor has found, when the host was examined, that keeps the source
// out where the wall does not, or that keeps its knocks from the wall. It is empty if there is
// nothing.
func obstacles(e *Explanation, found []doctor.Finding, examined time.Time) string {
	stopped, lead := []doctor.Traffic{doctor.Connections}, " "
	switch e.Reason {
	case WindowOpen, Trusted:
		lead = " But "
	case NotAnswered:
		stopped = append(stopped, doctor.Others)
	case Exhausted:
	case NeverKnocked:
		stopped = []doctor.Traffic{doctor.Knocks}
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
	open := w.windows.openedBy(func(_ string, by method.Opener) bool { return strings.EqualFold(by.Name, name) })
	slices.SortFunc(open, func(a, b nft.Window) int {
		return WindowPlace{a.Door, a.Source}.compare(WindowPlace{b.Door, b.Source})
	})
	for _, win := range open {
		add(win.Opener.Name, win.Door, win.Source)
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
	now := w.packets.policy
	for i, d := range now.config.Doors {
		var left time.Duration
		if before := f.doorNamed(d.Name); before >= 0 {
			left = trapped[before]
		}
		e := w.explain(i, addr, past, since, left)
		if !e.In {
			e.Sentence += withoutSequence(&d) + w.windows.withoutRoom(now, i, e.Source)
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
	open     map[string][]packet.Port // ports to which it is connected
	answered map[string]bool          // it had a reply
}

// answers returns what conntrack knows of the connections of an address. It knows nothing
// of those whose first packet was dropped behind the wall.
func (w *Wall) answers(f *policy, addr netip.Addr) (answers, error) {
	seen := answers{map[string][]packet.Port{}, map[string][]packet.Port{}, map[string]bool{}}
	if w.edges.Directions == nil {
		return seen, nil
	}
	err := w.edges.Directions(func(s sessions.Session, by sessions.Seen) {
		if s.Remote != addr.WithZone("") {
			return
		}
		for key := range f.doorSources(s) {
			seen.answered[key.door] = seen.answered[key.door] || by != sessions.ToService
			ports := map[sessions.Seen]map[string][]packet.Port{sessions.ToService: seen.silent, sessions.Both: seen.open}[by]
			if ports != nil && !slices.Contains(ports[key.door], s.Port) {
				ports[key.door] = append(ports[key.door], s.Port)
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
