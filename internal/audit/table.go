package audit

import (
	"fmt"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/printable"
)

// Kind is the kind of an event.
type Kind string

// The kinds of events. The table below has a row for each.
const (
	Knock      Kind = "knock"      // a knock of a door was heard
	Reset      Kind = "reset"      // an attempt ended before it was complete
	Trapped    Kind = "trapped"    // a source sent a packet to a trap, and cannot knock for a while
	Replayed   Kind = "replayed"   // a used sequence or password was sent again
	Opened     Kind = "opened"     // a window opened
	Refreshed  Kind = "refreshed"  // an open window got its full length again
	Accepted   Kind = "accepted"   // a new connection was admitted
	Refused    Kind = "refused"    // a new connection was refused
	Closed     Kind = "closed"     // a window was closed before it expired
	Expired    Kind = "expired"    // a window expired
	Command    Kind = "command"    // a command of the rule files ran
	Low        Kind = "low"        // few one-time sequences are left
	Overloaded Kind = "overloaded" // packets or events were lost, or conntrack's table is nearly full
	Reloaded   Kind = "reloaded"   // new rules are in force
	Healed     Kind = "healed"     // another program changed the table, and the daemon put it back
	Started    Kind = "started"    // the wall is in force and the daemon runs
	Stopped    Kind = "stopped"    // the daemon stops
)

// Priority is the urgency of an event as in syslog: lower numbers are more urgent.
type Priority int

// The priorities of events.
const (
	Error   Priority = 3 // something failed; every failed event has this priority
	Warning Priority = 4 // an administrator must know of it
	Notice  Priority = 5
	Info    Priority = 6
)

// Class is who can cause events of a kind. It decides how events are summed up and how
// many are kept.
type Class uint8

// The classes.
const (
	ByHost     Class = iota // the host and its administrators: each event is passed on
	ByGuests                // sources that know the knocks: each event is passed on, up to a limit
	ByKnocks                // anybody who sends packets to knock ports: summed up by source
	ByRefusals              // anybody who sends packets to guarded ports: summed up by source
)

// Metric is the counter for a kind of events. Several kinds can share a counter with
// labels.
type Metric struct {
	Name   string // without the prefix of this program's metrics
	Help   string
	ByDoor bool // it has the label "door"; otherwise it counts for the host
	Labels []string
	Values []string // the labels' values for this kind
}

// Row describes a kind of events. The journal, the metrics, and everything that sums up,
// keeps or describes events read it from the table.
type Row struct {
	Kind      Kind
	MessageID string   // in the journal; the message catalog explains it
	Priority  Priority // of an event that did not fail
	Class     Class
	Metric    *Metric // nil if events of the kind are not counted
	Recounts  bool    // the number of doors or open windows may change
	Codes     []Code  // codes of events that did not fail
	Failures  []Code  // codes of failed events; nil if events of the kind never fail
	sentence  func(e Event, source string) string
}

// Can reports whether an event of the kind can have a code.
func (r *Row) Can(c Code, failed bool) bool {
	if failed {
		return slices.Contains(r.Failures, c)
	}
	return slices.Contains(r.Codes, c)
}

// MayFail reports whether an event of the kind can fail.
func (r *Row) MayFail() bool { return len(r.Failures) > 0 }

// Table returns the rows of all kinds. They are shared; do not change them.
func Table() []*Row {
	rows := make([]*Row, len(table))
	for i := range table {
		rows[i] = &table[i]
	}
	return rows
}

// Row returns the row of a kind. It is empty if the kind is unknown.
func (k Kind) Row() *Row {
	if i, ok := places[k]; ok {
		return &table[i]
	}
	return &unknown
}

var unknown = Row{Priority: Notice, sentence: func(e Event, _ string) string { return string(e.Kind) }}

// Priority returns the event's priority.
func (e Event) Priority() Priority {
	if e.Failed {
		return Error
	}
	return e.Kind.Row().Priority
}

// Counts counts events by kind.
type Counts [len(table)]uint64

// Add counts an event. It ignores kinds that are not in the table.
func (c *Counts) Add(k Kind) {
	if i, ok := places[k]; ok {
		c[i]++
	}
}

// Of returns the number of events of a kind.
func (c *Counts) Of(k Kind) uint64 {
	if i, ok := places[k]; ok {
		return c[i]
	}
	return 0
}

// places are the indexes of the kinds in the table.
var places = func() map[Kind]int {
	m := make(map[Kind]int, len(table))
	for i := range table {
		m[table[i].Kind] = i
	}
	return m
}()

// summedUp are the kinds that can be summed up, in the order of the table.
var summedUp = func() (kinds []Kind) {
	for i := range table {
		if table[i].Class != ByHost {
			kinds = append(kinds, table[i].Kind)
		}
	}
	return kinds
}()

// VerdictsMetric is the name of the metric that counts verdicts. Not every verdict is an
// event.
const VerdictsMetric = "verdicts_total"

// verdictsMetric counts verdicts that are events.
func verdictsMetric(lane, verdict string) *Metric {
	return &Metric{VerdictsMetric, "Verdicts on new connections' first packets, retransmissions left out.", true,
		[]string{"lane", "verdict"}, []string{lane, verdict}}
}

// windowsMetric counts an event of windows.
func windowsMetric(event Kind) *Metric {
	return &Metric{"windows_total", "Windows that were opened, refreshed, expired or closed.", true, []string{"event"}, []string{string(event)}}
}

// table has a row for each kind. Kinds that one packet can cause are in the order in
// which it causes them, because events of the same time are passed on in this order.
var table = [...]Row{
	{
		Kind: Reset, MessageID: "21470380bb6b4eb4be9f03221d30ffc5", Priority: Info, Class: ByKnocks,
		Metric: &Metric{Name: "resets_total", Help: "Attempts that ended before they were complete.", ByDoor: true},
		Codes: []Code{CodeWrongOrder, CodeTooLate, CodeNotAPassword, CodeNotFwknop, CodeClock, CodeExpired, CodeNotFrom, CodeNotAllowed,
			CodeUnknownDoor, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s fails to knock at %s", source, e.Door) + after(e)
		},
	},
	{
		Kind: Knock, MessageID: "df796deaca304a11aff218dc7953348f", Priority: Info, Class: ByKnocks,
		Metric: &Metric{Name: "knocks_total", Help: "Knocks that belonged to an attempt, and one-time passwords.", ByDoor: true},
		Codes:  []Code{CodeSequence, CodeCloseSequence, CodePassword, CodeClosePassword, CodeKey, CodeCloseKey, CodeFwknop, CodeManySources},
		sentence: func(e Event, source string) string {
			s := fmt.Sprintf("%s knocks at %s", source, e.Door)
			if e.Steps != 0 {
				s += fmt.Sprintf(", %d of %d right", e.Step, e.Steps)
			}
			return s
		},
	},
	{
		Kind: Trapped, MessageID: "745a594ef60d451ea518687b45cdfb1a", Priority: Info, Class: ByKnocks,
		Metric: &Metric{Name: "trapped_total", Help: "Packets to traps that were logged.", ByDoor: true},
		Codes:  []Code{CodeTrap, CodeSpray, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s is trapped at %s", source, e.Door) + after(e)
		},
	},
	{
		Kind: Replayed, MessageID: "e1c9ea981de84206b639949dfc93f11e", Priority: Warning, Class: ByKnocks,
		Metric: &Metric{Name: "replayed_total", Help: "Used sequences and passwords that were sent again.", ByDoor: true},
		Codes:  []Code{CodeSequence, CodePassword, CodeClosePassword, CodeKey, CodeCloseKey, CodeFwknop, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s repeats a used knock at %s", source, e.Door)
		},
	},
	{
		Kind: Refused, MessageID: "3ea9e666ef234eea80350250807ed352", Priority: Info, Class: ByRefusals,
		Metric:   verdictsMetric("strangers", "refuse"),
		Codes:    []Code{CodeNoWindow, CodeMaxConnections, CodeDuplicate, CodeNotShared, CodeManySources},
		Failures: []Code{CodeNotOpened, CodeMaxWindows, CodeNotRemembered, CodeMaybeUsed, CodeStillBarred, CodeNotShared, CodeManySources},
		sentence: func(e Event, source string) string {
			switch {
			case e.Code == CodeNotShared && e.Failed:
				return fmt.Sprintf("%s has told what this host does not accept", e.Origin)
			case e.Code == CodeNotShared:
				return fmt.Sprintf("%s has told of what this host does not share", e.Origin)
			case e.Code == CodeNotRemembered && e.Origin != "":
				return fmt.Sprintf("A knock at %s might open a door here once more", e.Origin)
			case e.Failed:
				return fmt.Sprintf("%s could not be opened for %s", e.Door, source)
			}
			return fmt.Sprintf("%s is refused at %s", source, e.Door)
		},
	},
	{
		Kind: Opened, MessageID: "fba10c67f0eb4257965a7685ddeee382", Priority: Notice, Class: ByGuests,
		Metric: windowsMetric(Opened), Recounts: true,
		Codes: []Code{CodeSequence, CodePassword, CodeKey, CodeFwknop, CodeManual, CodeShared, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s is open for %s, for %s", e.Door, source, printable.Time(e.Window.Round(time.Millisecond)))
		},
	},
	{
		Kind: Refreshed, MessageID: "7fd9b1cbbfe5489e9752c0dea42c9b89", Priority: Info, Class: ByGuests,
		Metric: windowsMetric(Refreshed),
		Codes:  []Code{CodeSequence, CodePassword, CodeKey, CodeFwknop, CodeManual, CodeShared, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s stays open for %s, for %s from now", e.Door, source, printable.Time(e.Window.Round(time.Millisecond)))
		},
	},
	{
		Kind: Accepted, MessageID: "625f23be16cf4e45b7f68c6f81061b54", Priority: Info, Class: ByGuests,
		Metric: verdictsMetric("admitted", "accept"),
		Codes:  []Code{CodeWindow, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s is admitted at %s", source, e.Door)
		},
	},
	{
		Kind: Closed, MessageID: "da58e032267e4b57a9f25000ccf83c47", Priority: Notice, Class: ByGuests,
		Metric: windowsMetric(Closed), Recounts: true,
		Codes:    []Code{CodeCloseSequence, CodeClosePassword, CodeCloseKey, CodeManual, CodeShared, CodeMaxConnections, CodeNewRules, CodeNoLonger, CodeManySources},
		Failures: []Code{CodeNotClosed, CodeManySources},
		sentence: func(e Event, source string) string {
			if e.Failed {
				return fmt.Sprintf("%s could not be closed for %s", e.Door, source)
			}
			return fmt.Sprintf("%s is closed early for %s", e.Door, source)
		},
	},
	{
		Kind: Expired, MessageID: "a5248bf050cf43fcbe6acd9ddb1a5e18", Priority: Info, Class: ByGuests,
		Metric: windowsMetric(Expired), Recounts: true,
		Codes: []Code{CodeTimeout, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s is closed for %s, because the window expired", e.Door, source)
		},
	},
	{
		Kind: Command, MessageID: "b79d2243eaef41eaaa26940bd3c620ae", Priority: Info,
		Codes:    []Code{CodeSucceeded},
		Failures: []Code{CodeExitCode, CodeNoExitCode, CodeInterrupted, CodeNotRun, CodeNotRemembered, CodeMayRunAgain},
		sentence: func(e Event, source string) string {
			if e.Failed {
				return fmt.Sprintf("A command of %s for %s has failed", e.Door, source)
			}
			return fmt.Sprintf("%s has run a command for %s", e.Door, source)
		},
	},
	{
		Kind: Low, MessageID: "ee96e3a808e44a12b77f636ae3124570", Priority: Warning,
		Codes:    []Code{CodeFewLeft},
		Failures: []Code{CodeNoSequence},
		sentence: func(e Event, _ string) string {
			if e.Failed {
				return "A list of one-time sequences cannot be used"
			}
			return fmt.Sprintf("%s has few one-time sequences left", e.Door)
		},
	},
	{
		Kind: Overloaded, MessageID: "390a739e79bf4b6a9a23bef3000d27a4", Priority: Warning,
		Codes: []Code{CodePacketsLost, CodeLossOver, CodeEventsLost, CodeConntrackFull, CodeConntrackRoom},
		sentence: func(e Event, _ string) string {
			switch e.Code {
			case CodeConntrackFull:
				return "This host may soon drop new connections"
			case CodeConntrackRoom:
				return "This host has room for new connections again"
			}
			return fmt.Sprintf("%d lost", e.Count)
		},
	},
	{
		Kind: Reloaded, MessageID: "8c075f0282ae41f391d5ac22bb3b0833", Priority: Notice, Recounts: true,
		Codes:    []Code{CodeRules, CodeTrial, CodeConfirmed, CodeReverted},
		Failures: []Code{CodeNotConfirmed, CodeNotPutBack, CodeNextSequences},
		sentence: func(e Event, _ string) string {
			if e.Failed {
				return "The wanted rules are not in force"
			}
			return "New rules are in force"
		},
	},
	{
		Kind: Healed, MessageID: "307d692b68f54fadaf5aee75e7bef64d", Priority: Warning,
		Metric:   &Metric{Name: "healed_total", Help: "Changes of other programs to the wall that were undone."},
		Codes:    []Code{CodePutBack},
		Failures: []Code{CodeNotPutBack},
		sentence: func(Event, string) string { return "Another program has changed the wall" },
	},
	{
		Kind: Started, MessageID: "70b8e97b8ea641a1b674fed186bd005c", Priority: Notice,
		Codes:    []Code{CodeRules, CodeTrial},
		sentence: func(Event, string) string { return "The wall is in force and the daemon runs" },
	},
	{
		Kind: Stopped, MessageID: "45ed0597cc0d44f8b48a09dabab82e1a", Priority: Notice,
		Codes:    []Code{CodeWallStands, CodeWallRemoved},
		Failures: []Code{CodeWallStands, CodeWallRemoved, CodeWallNotRemoved}, // the daemon itself may have failed
		sentence: func(Event, string) string { return "The daemon stops" },
	},
}

// after says how many knocks of an attempt were correct.
func after(e Event) string {
	if e.Steps == 0 {
		return ""
	}
	return fmt.Sprintf(" after %d of %d", e.Step, e.Steps)
}
